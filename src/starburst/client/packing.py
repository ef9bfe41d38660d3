"""A call's function and arguments, checked and pickled in the caller's thread before anything is started."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starburst.errors import OptionError
from starburst.protocol.chunking import chunk_counts, cut_by_bytes, firsts
from starburst.protocol.payload import (
    Calls,
    LargeObjects,
    dump_function,
    join_pickles,
    pack_calls,
    pack_columns,
)
from starburst.protocol.records import BatchHeader

__all__ = [
    "MAX_TASKS",
    "Packed",
    "check_chunksize",
    "check_iterables",
    "columns_of",
    "pack_map",
    "pack_submits",
    "title_of",
]

Buffer = bytes | bytearray | memoryview
MAX_TASKS = 10_000_000
"""So many tasks one call may have; an iterable that gives more is taken for endless."""


@dataclass(slots=True)
class Packed:
    """A submission, ready to be written.

    Attributes:
        function: The pickled callable.
        function_sha256: Its content name.
        title: A name for people.
        calls: The packed arguments.
        large: Large objects that function and arguments refer to.
        n_tasks: How many calls.
    """

    function: bytes
    function_sha256: str
    title: str
    calls: Calls
    large: LargeObjects
    n_tasks: int
    extra_frames: list[Buffer] = field(default_factory=list)

    @property
    def frames(self) -> list[Buffer]:
        """All frames of the batch object."""
        return [*self.calls.frames, *self.extra_frames]

    def header(
        self, *, lanes: int, timeout_s: float | None, retries: int, at: float, code: str = ""
    ) -> BatchHeader:
        """The batch's index."""
        return BatchHeader(
            n_tasks=self.n_tasks,
            firsts=tuple(firsts(self.calls.counts)),
            counts=tuple(self.calls.counts),
            function=self.function_sha256,
            layout=self.calls.layout,
            lanes=lanes,
            timeout_s=timeout_s,
            retries=retries,
            title=self.title,
            has_keys=bool(self.extra_frames),
            code=code,
            at=at,
        )


def columns_of(iterables: Sequence[Iterable[Any]]) -> list[Sequence[Any]]:
    """The items of several iterables side by side, as :func:`zip` pairs them, one sequence for each.

    Raises:
        OptionError: There is no iterable, one is not iterable, or all are endless or too long.
    """
    check_iterables("map", iterables)
    if all(_is_endless(items) for items in iterables):
        raise _endless("all iterables are endless")
    if len(iterables) == 1:
        only = iterables[0]
        if isinstance(only, (list, tuple, range)):
            if only[MAX_TASKS : MAX_TASKS + 1]:
                raise _endless(f"these are more than {MAX_TASKS:,}")
            return [only]
        rows: list[Any] = list(itertools.islice(only, MAX_TASKS + 1))
        columns: list[Sequence[Any]] = [rows]
    else:
        rows = list(itertools.islice(zip(*iterables, strict=False), MAX_TASKS + 1))
        columns = [*zip(*rows, strict=True)] or [[] for _ in iterables]
    if len(rows) > MAX_TASKS:
        raise _endless(f"the iterable gave more than {MAX_TASKS:,} items")
    return columns


def pack_map(
    fn: Callable[..., Any], columns: Sequence[Sequence[Any]], *, lanes: int, chunksize: int | None
) -> Packed:
    """``fn`` over columns of arguments.

    Raises:
        OptionError: ``fn`` cannot be called.
        SerializationError: It, or an argument, cannot be pickled.
    """
    function, sha256, large = _pack_function(fn)
    n_tasks = min(map(len, columns))
    counts = chunk_counts(n_tasks, lanes, chunksize)
    calls = pack_columns(columns, counts, _cutter(chunksize), large)
    return Packed(function, sha256, title_of(fn), calls, large, n_tasks)


def pack_star(
    fn: Callable[..., Any], rows: Sequence[Sequence[Any]], *, lanes: int, chunksize: int | None
) -> Packed:
    """``fn`` over tuples of arguments; raises as :func:`pack_map`."""
    widths = {len(row) for row in rows}
    if len(widths) == 1 and widths != {0}:
        return pack_map(fn, [*zip(*rows, strict=True)], lanes=lanes, chunksize=chunksize)
    function, sha256, large = _pack_function(fn)
    counts = chunk_counts(len(rows), lanes, chunksize)
    calls = pack_calls([(tuple(row), {}) for row in rows], counts, _cutter(chunksize), large)
    return Packed(function, sha256, title_of(fn), calls, large, len(rows))


def pack_submits(
    function: bytes, title: str, pickles: Sequence[bytes], large: LargeObjects, lanes: int
) -> Packed:
    """Calls that were pickled one by one with :func:`dump_call`."""
    calls = join_pickles(pickles, chunk_counts(len(pickles), lanes), cut_by_bytes)
    return Packed(function, hashlib.sha256(function).hexdigest(), title, calls, large, len(pickles))


def _pack_function(fn: Callable[..., Any]) -> tuple[bytes, str, LargeObjects]:
    check_callable(fn)
    large = LargeObjects()
    function = dump_function(fn, large)
    return function, hashlib.sha256(function).hexdigest(), large


def check_callable(fn: Any) -> None:
    """Refuse what cannot be called.

    Raises:
        OptionError: It is not callable, or no call of it can have a result that could be sent back.
    """
    if not callable(fn):
        raise OptionError(
            f"the first argument is a {type(fn).__name__}, not a function",
            hint="starburst.map(fn, items): give the function itself, without calling it",
        )
    plain = fn
    while isinstance(plain, functools.partial):
        plain = plain.func
    flags = getattr(getattr(plain, "__code__", None), "co_flags", 0)
    if flags & inspect.CO_COROUTINE:
        raise OptionError(
            f"{title_of(fn)} is an async function: calling it gives a coroutine, which cannot be sent back",
            hint=f"give a function that runs it, such as: def run(x): return asyncio.run({title_of(fn)}(x))",
        )
    if flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        raise OptionError(
            f"{title_of(fn)} is a generator function: calling it gives a generator, which cannot be sent back",
            hint="return a list of what it yields",
        )


def check_iterables(call: str, iterables: Sequence[Any]) -> None:
    """Refuse what cannot be iterated over.

    Raises:
        OptionError: There is no iterable, or one is not iterable.
    """
    if not iterables:
        raise OptionError(f"{call} needs at least one iterable", hint=f"starburst.{call}(fn, items)")
    for i, items in enumerate(iterables):
        try:
            iter(items)  # also what has only __getitem__
        except TypeError as error:
            raise OptionError(
                f"argument {i + 2} of {call} is a {type(items).__name__}, which cannot be iterated over",
                hint="give a list, range, array or generator of the values for that parameter",
            ) from error


def check_chunksize(chunksize: Any) -> int | None:
    """A whole number of at least 1, or None for "auto".

    Raises:
        OptionError: It is neither.
    """
    if chunksize in ("auto", None):
        return None
    if isinstance(chunksize, int) and not isinstance(chunksize, bool) and chunksize >= 1:
        return chunksize
    raise OptionError(
        f"chunksize={chunksize!r} is not a whole number of at least 1", hint='leave it out, or give "auto"'
    )


def title_of(fn: Callable[..., Any]) -> str:
    """A name of a callable for people."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _cutter(chunksize: int | None) -> Callable[[Sequence[int], Sequence[int]], list[int]]:
    return cut_by_bytes if chunksize is None else lambda counts, _: list(counts)


def _is_endless(items: Iterable[Any]) -> bool:
    if isinstance(items, itertools.repeat):
        try:
            return bool(items.__length_hint__() < 0)
        except TypeError:
            return True
    return isinstance(items, (itertools.count, itertools.cycle))


def _endless(what: str) -> OptionError:
    return OptionError(
        f"map needs all its items before it starts, and {what}",
        hint="use starburst.imap, which reads items as results are taken, or itertools.islice",
    )
