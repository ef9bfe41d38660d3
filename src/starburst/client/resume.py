"""``map(..., resume=True)``: tasks have names of their own, and what has a good result is not run again.

A task is named by function, arguments and environment. The function counts by its name (module and qualified name)
and what it closes over, not by its code, so that a call made again after a bug was fixed runs only what had failed;
where results of older code are used a warning says so, and ``resume="code"`` names functions by their code too.
Lambdas have no name and always count by their code. See docs/decisions/0003-resume.md.
"""

from __future__ import annotations

import functools
import hashlib
import types
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import xxhash

from starburst.client.call import Call, Slice
from starburst.client.collector import Run, Watched
from starburst.client.engine import engine
from starburst.client.fingerprint import global_names
from starburst.client.mapping import OnError, attended, gather, tell_where
from starburst.client.packing import Packed, pack_map, title_of
from starburst.client.pool import Pool, reopen_pool
from starburst.client.progress import open_sink
from starburst.client.status import read_batches
from starburst.environment.steps import builds_shown
from starburst.errors import CorruptObject, SerializationError
from starburst.options import Options
from starburst.protocol.pack import PackIndex
from starburst.protocol.payload import LargeObjects, dump_call, dump_function
from starburst.protocol.records import BatchHeader, Environment

__all__ = ["NamedTasks", "run_named"]

KEY_BYTES = 16
_LOOKED_INTO = 1000
"""Longer lists are named as they are."""
_MAX_DEPTH = 10


@dataclass(frozen=True, slots=True)
class NamedTasks:
    """A call whose tasks have names.

    Attributes:
        session_id: The session that all calls of this function share.
        columns: The arguments, side by side.
        names: One name a task.
        code: A hash of the function's code.
    """

    session_id: str
    columns: Sequence[Sequence[Any]]
    names: list[bytes]
    code: str

    @classmethod
    def of(cls, fn: Callable[..., Any], columns: Sequence[Sequence[Any]], *, strict: bool) -> NamedTasks:
        """Name the tasks of a call.

        Args:
            fn: The function.
            columns: Its arguments, side by side.
            strict: Name it by its code, too.

        Raises:
            SerializationError: An argument cannot be pickled.
        """
        dump_function(fn, LargeObjects())  # names what cannot be pickled before anything is made
        code = code_hash(fn)
        label, by_name = _identity(fn)
        environment = Environment()
        what = (label, "" if by_name and not strict else code, environment.python, environment.implementation)
        session_id = f"resume-{_slug(title_of(fn))}-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"
        uses: Counter[bytes] = Counter()
        names: list[bytes] = []
        large = LargeObjects()
        for args in zip(*columns, strict=True):
            digest = xxhash.xxh3_128_digest(dump_call(tuple(map(_steady, args)), {}, large))
            uses[digest] += 1  # equal items are tasks of their own
            names.append(xxhash.xxh3_128_digest(digest + uses[digest].to_bytes(8, "little")))
        return cls(session_id, columns, names, code)


def run_named(
    fn: Callable[..., Any],
    named: NamedTasks,
    options: Options,
    *,
    chunksize: int | None,
    on_error: OnError,
    progress: bool,
) -> list[Any]:
    """Bring the results that are there, run the others; see :func:`starburst.map`."""
    n_tasks = len(named.names)
    if n_tasks == 0:
        return []
    with builds_shown(wanted=progress):
        pool = reopen_pool(options, named.session_id)
    sink = open_sink(progress=progress)
    tell_where(sink, options)
    call = Call(pool, title_of(fn), n_tasks, sink)
    with attended(call):
        todo, changed = engine.run(_bring_known(call, named))
        if changed:
            warnings.warn(  # at the line of the user's call
                f"{changed} results were made by an earlier version of {call.title}; "
                'resume="code" runs them again with the present one',
                stacklevel=3,
            )
        if n_tasks - len(todo):
            sink.note(
                f"{n_tasks - len(todo)} of {n_tasks} results are there or under way in {named.session_id}"
            )
        if todo:
            part = [[column[i] for i in todo] for column in named.columns]
            packed = pack_map(fn, part, lanes=options.workers * options.slots, chunksize=chunksize)
            packed.extra_frames.append(b"".join(named.names[i] for i in todo))
            engine.run(_submit(call, packed, todo, named.code, options))
        call.wait_for_all(on_error)
    return gather(call, range(n_tasks), on_error)


async def _bring_known(call: Call, named: NamedTasks) -> tuple[list[int], int]:
    """Take good results of earlier calls, wait for tasks that are under way.

    Returns:
        The items to run, and how many results older code made.
    """
    pool = call.pool
    store, keys = pool.connection.store, pool.connection.keys
    places = {name: i for i, name in enumerate(named.names)}
    changed = 0
    under_way: list[tuple[Watched, Slice]] = []
    outdated: list[int] = []
    for seq, entry in (await read_batches(store, keys)).items():
        if isinstance(entry, CorruptObject) or not entry[0].has_keys:
            continue
        header, index = entry
        wanted = [places.get(name, -1) for name in await _names(pool, header, index)]
        if all(place < 0 or place in call.outcomes for place in wanted):
            continue
        runs: list[Run] = []
        watched = Watched(seq, header.n_tasks, runs.append, call.give_up)
        await pool.collector.sweep(watched)
        good = _take_good(call, wanted, runs, seq)
        changed += good if header.code != named.code else 0
        if watched.missing and header.code != named.code:
            outdated.append(seq)  # what has not run yet is to run with the present code
        elif watched.missing and seq not in pool.state.cancelled_batches:
            left = [wanted[i] if not watched.covered[i] else -1 for i in range(header.n_tasks)]
            under_way.append((watched, Slice(left)))
    if outdated := [seq for seq in outdated if seq not in pool.state.cancelled_batches]:
        await pool.cancel(*outdated)
    coming = set(call.outcomes)
    for watched, part in under_way:
        part.places = [place if place not in coming else -1 for place in part.places]
        coming.update(place for place in part.places if place >= 0)
        watched.on_run = call.taker(part)
        pool.collector.watch(watched)
    if under_way:
        await pool.see_to_workers()
    return [i for i in range(len(named.names)) if i not in coming], changed


def _take_good(call: Call, wanted: list[int], runs: list[Run], seq: int) -> int:
    """Hand results with a value to the call; failed tasks are as good as not run."""
    part = Slice([-1] * len(wanted))
    part.seq = seq
    good = 0
    for run in runs:
        for i, outcome in enumerate(run.outcomes, run.first):
            if outcome.failure is None and wanted[i] >= 0 and wanted[i] not in call.outcomes:
                part.places[i] = wanted[i]  # type: ignore[index]
                good += 1
    take = call.taker(part)
    for run in runs:
        take(replace(run, task_s=0.0, retried=0))  # not this call's work
    return good


async def _names(pool: Pool, header: BatchHeader, index: PackIndex) -> list[bytes]:
    """The names of a submission's tasks: its last frame."""
    last = len(index.frames) - 1
    info = index.frames[last]
    stored = await pool.connection.store.get_range(index.key, info.offset, info.stored_bytes)
    data = bytes(index.frame(last, stored))
    return [data[i : i + KEY_BYTES] for i in range(0, KEY_BYTES * header.n_tasks, KEY_BYTES)]


async def _submit(call: Call, packed: Packed, todo: list[int], code: str, options: Options) -> None:
    part = Slice(todo)
    header = packed.header(
        lanes=options.workers * options.slots,
        timeout_s=options.timeout_s,
        retries=options.retries,
        at=call.pool.connection.clock.time(),
        code=code,
    )
    part.seq = await call.pool.submit(packed, header, call.taker(part), call.give_up)


def code_hash(fn: Any) -> str:
    """A hash of a function's own code, constants and the functions within it; empty if it has none to see."""
    while isinstance(fn, (functools.partial, types.MethodType)):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    code = getattr(fn, "__code__", None)
    return hashlib.sha256(repr(_code_parts(code)).encode()).hexdigest() if code is not None else ""


def _code_parts(code: types.CodeType) -> tuple[object, ...]:
    constants = [_constant(value) for value in code.co_consts]
    return (code.co_code, constants, code.co_names, code.co_varnames)


def _constant(value: Any) -> object:
    if isinstance(value, types.CodeType):
        return _code_parts(value)
    if isinstance(value, frozenset):  # ``x in {"a", "b"}``: its order is another in each process
        return sorted(map(repr, value))
    return repr(value)


def _identity(fn: Any) -> tuple[str, bool]:
    """What names a function, and whether that is a name (else it is its content)."""
    if isinstance(fn, functools.partial):
        inner, by_name = _identity(fn.func)
        return f"{inner}({_content((fn.args, sorted(fn.keywords.items())))})", by_name
    if isinstance(fn, types.FunctionType) and "<lambda>" not in fn.__qualname__:
        closed = [cell.cell_contents for cell in fn.__closure__ or ()]
        return f"{fn.__module__}.{fn.__qualname__}({_content((closed, fn.__defaults__))})", True
    if isinstance(fn, (types.BuiltinFunctionType, type)):
        return f"{fn.__module__}.{fn.__qualname__}", True
    if isinstance(fn, types.FunctionType):  # a lambda: its code goes into the name beside this
        used = {
            name: _used(fn.__globals__[name]) for name in global_names(fn.__code__) if name in fn.__globals__
        }
        closed = [_used(cell.cell_contents) for cell in fn.__closure__ or ()]
        return f"{fn.__qualname__}({_content((closed, fn.__defaults__, sorted(used.items())))})", False
    return _content(fn), False


def _used(value: Any) -> Any:
    """What stands in a name for something that a lambda uses: functions by their own name, all else as it is."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    return _identity(value)[0] if isinstance(value, types.FunctionType) else value


def _content(value: Any) -> str:
    try:
        return hashlib.sha256(cloudpickle.dumps(_steady(value), protocol=5)).hexdigest()
    except Exception as error:
        raise SerializationError(
            f"what the function closes over cannot be pickled, so its tasks cannot be named: {error}"
        ) from error


def _steady(value: Any, depth: int = 0) -> Any:
    """The value with its sets in an order that is the same in every process, where texts hash differently."""
    kind = type(value)
    if depth > _MAX_DEPTH:
        return value
    if kind in (set, frozenset):
        parts = (cloudpickle.dumps(_steady(part, depth + 1), protocol=5) for part in value)
        return kind.__name__, tuple(sorted(parts))
    if kind in (list, tuple, dict) and len(value) <= _LOOKED_INTO:
        if kind is dict:
            return {_steady(name, depth + 1): _steady(part, depth + 1) for name, part in value.items()}
        return kind([_steady(part, depth + 1) for part in value])
    return value


def _slug(title: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in title).strip("-")
    return kept[-40:] or "call"
