"""``map``, ``starmap``, ``imap`` and ``imap_unordered``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from starburst.client.call import Call, Slice
from starburst.client.engine import engine
from starburst.client.packing import (
    Packed,
    check_callable,
    check_chunksize,
    check_iterables,
    columns_of,
    pack_map,
    pack_star,
    title_of,
)
from starburst.client.plan import current_options
from starburst.client.pool import Pool, discard, open_pool
from starburst.client.progress import ProgressSink, Silent, open_sink
from starburst.client.terminated import tidied_at_sigterm
from starburst.environment.steps import builds_shown
from starburst.errors import OptionError, TaskError
from starburst.options import Options

__all__ = ["check_on_error", "imap", "imap_unordered", "map_", "starmap", "submit"]

R = TypeVar("R")
OnError = Literal["raise", "return", "skip"]
_FIRST_BLOCK = 4
_MAX_BLOCK = 4096
_WORTH_KEEPING_S = 5.0
"""Results of a call that failed are kept if it took its tasks so many seconds to make them."""
_told_where = False


def map_(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    chunksize: int | Literal["auto"] = "auto",
    on_error: OnError = "raise",
    progress: bool = True,
    resume: bool | Literal["code"] = False,
    **options: Any,
) -> list[R]:
    """Apply a function to every item, in parallel; results come back as a list, in order.

    Args:
        fn: Any function: imported, defined in a script or a notebook, a lambda, a closure.
        *iterables: Its arguments, taken side by side as the built-in ``map`` does; the shortest decides.
        chunksize: Tasks that a worker claims at once; "auto" needs no advice.
        on_error: "raise" stops at the first failed task and raises its error; "return" puts the error into the
            list instead of a value; "skip" leaves failed items out.
        progress: Show a progress bar and a summary on standard error.
        resume: Name each task by function, arguments and environment, and run only what has no good result from
            an earlier call. With "code" a change of the function's own code, too, makes its tasks new.
        **options: Any of :class:`starburst.Options`: ``workers=``, ``slots=``, ``timeout=``, ``retries=``, …

    Returns:
        One result an item, in the order of the items.

    Raises:
        OptionError: An argument or option is wrong; nothing was started.
        SerializationError: The function or an argument cannot be pickled; nothing was started.
        TaskFailed: A task raised; the exception is ``__cause__``.
        TaskTimeout: A task ran longer than ``timeout``.
        WorkerLost: A task took its worker down ``max_attempts`` times.
        SessionEnded: The session ended before all was done.
    """
    check_callable(fn)
    chosen = current_options(options, ("chunksize", "on_error", "progress", "resume"))
    size = check_chunksize(chunksize)
    check_on_error(on_error)
    _check_resume(resume)
    columns = columns_of(iterables)
    lanes = chosen.workers * chosen.slots
    if resume:
        from starburst.client.resume import NamedTasks, run_named

        named = NamedTasks.of(fn, columns, strict=resume == "code")
        return run_named(fn, named, chosen, chunksize=size, on_error=on_error, progress=progress)
    packed = pack_map(fn, columns, lanes=lanes, chunksize=size)
    return _run(packed, chosen, on_error=on_error, progress=progress)


def starmap(
    fn: Callable[..., R],
    rows: Iterable[Sequence[Any]],
    *,
    chunksize: int | Literal["auto"] = "auto",
    on_error: OnError = "raise",
    progress: bool = True,
    **options: Any,
) -> list[R]:
    """As :func:`starburst.map`, with each item a tuple of arguments.

    Args:
        fn: The function.
        rows: One tuple of positional arguments a task.
        chunksize: As in :func:`starburst.map`.
        on_error: As in :func:`starburst.map`.
        progress: As in :func:`starburst.map`.
        **options: As in :func:`starburst.map`.

    Returns:
        One result a row, in order.

    Raises:
        OptionError: As :func:`starburst.map`, or a row is not a sequence.
    """
    check_callable(fn)
    chosen = current_options(options, ("chunksize", "on_error", "progress"))
    size = check_chunksize(chunksize)
    check_on_error(on_error)
    listed = list(columns_of([rows])[0])
    for i, row in enumerate(listed):
        if not isinstance(row, Sequence) or isinstance(row, (str, bytes)):
            raise OptionError(
                f"row {i} of starmap is a {type(row).__name__}, not a tuple of arguments",
                hint="for one argument a task use starburst.map",
            )
    packed = pack_star(fn, listed, lanes=chosen.workers * chosen.slots, chunksize=size)
    return _run(packed, chosen, on_error=on_error, progress=progress)


def imap(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    on_error: OnError = "raise",
    progress: bool = False,
    **options: Any,
) -> Iterator[R]:
    """As :func:`starburst.map`, lazily: items are read as results are taken, so they may be endless.

    Args:
        fn: The function.
        *iterables: As in :func:`starburst.map`.
        on_error: As in :func:`starburst.map`.
        progress: As in :func:`starburst.map`.
        **options: As in :func:`starburst.map`.

    Returns:
        An iterator over results, in the order of the items. Closing it cancels what was not needed.

    Raises:
        OptionError: As :func:`starburst.map`, at the call.
    """
    return _lazily(fn, iterables, on_error=on_error, progress=progress, ordered=True, options=options)


def imap_unordered(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    on_error: OnError = "raise",
    progress: bool = False,
    **options: Any,
) -> Iterator[R]:
    """As :func:`starburst.imap`, each result as soon as it is there.

    Args:
        fn: The function.
        *iterables: As in :func:`starburst.map`.
        on_error: As in :func:`starburst.map`.
        progress: As in :func:`starburst.map`.
        **options: As in :func:`starburst.map`.

    Returns:
        An iterator over results in the order in which they come.

    Raises:
        OptionError: As :func:`starburst.map`, at the call.
    """
    return _lazily(fn, iterables, on_error=on_error, progress=progress, ordered=False, options=options)


def check_on_error(on_error: Any) -> None:
    """Refuse anything but the three words.

    Raises:
        OptionError: It is another.
    """
    if on_error not in ("raise", "return", "skip"):
        raise OptionError(f"on_error={on_error!r} is not known", hint='use "raise", "return" or "skip"')


def _check_resume(resume: Any) -> None:
    if not isinstance(resume, bool) and resume != "code":
        raise OptionError(f"resume={resume!r} is not known", hint='use True, False or "code"')


def tell_where(sink: ProgressSink, options: Options) -> None:
    """Say once per process, in a line, where the work runs."""
    global _told_where  # noqa: PLW0603 - once per process
    if not _told_where and not isinstance(sink, Silent):
        _told_where = True
        where = "on this machine" if options.launch_type == "LOCAL" else f"on {options.launch_type}"
        workers = f"{options.workers} worker{'s' if options.workers > 1 else ''}"
        sink.note(f"starburst runs {where} with up to {workers} (launch_type {options.launch_type})")


def _run(packed: Packed, options: Options, *, on_error: OnError, progress: bool) -> list[Any]:
    if packed.n_tasks == 0:
        return []
    sink = open_sink(progress=progress)
    with builds_shown(wanted=progress):
        pool = open_pool(options)
    tell_where(sink, options)
    call = Call(pool, packed.title, packed.n_tasks, sink)
    part = Slice(range(packed.n_tasks))
    with attended(call):
        submit(call, part, packed, options)
        try:
            call.wait_for_all(on_error)
        except TaskError as error:
            if call.done < call.total:
                engine.run(pool.cancel(part.seq))
            if call.task_s >= _WORTH_KEEPING_S:
                pool.keep = True
                error.hint = (
                    f"the {call.done - call.failed} results that were finished stay: starburst collect "
                    f'{pool.address} --no-wait -o results.pickle; on_error="return" goes on past failures'
                )
            raise
    results = gather(call, range(packed.n_tasks), on_error)
    engine.call_soon(pool.delivered, part.seq)
    return results


@contextlib.contextmanager
def attended(call: Call, *, can_go_on: bool = True) -> Iterator[None]:
    """See to a call's display, and to Ctrl-C and SIGTERM, after which one that was submitted whole can go on."""
    in_order = False
    try:
        with tidied_at_sigterm(lambda limit_s: _terminated(call, limit_s, can_go_on=can_go_on)):
            yield
        in_order = True
    except KeyboardInterrupt:
        discard(call.pool)
        engine.run(call.pool.stop_workers())
        # The user must see it, with or without a display.
        print(_farewell(call, "interrupted", can_go_on=can_go_on), end="", file=sys.stderr)  # noqa: T201
        raise
    finally:
        call.finish(in_order=in_order)


def gather(call: Call, places: Iterable[int], on_error: OnError) -> list[Any]:
    """The results of some items as ``on_error`` wants them."""
    if call.failed and on_error == "skip":
        return [call.value(i) for i in places if call.outcomes[i][0].failure is None]
    if call.failed:
        return [call.value(i, keep=True) for i in places]
    outcomes = call.outcomes
    return [outcomes[i][0].value for i in places]


def submit(call: Call, part: Slice, packed: Packed, options: Options) -> None:
    """Write a submission of a call; its results go to the call."""
    pool = call.pool
    header = packed.header(
        lanes=options.workers * options.slots,
        timeout_s=options.timeout_s,
        retries=options.retries,
        at=pool.connection.clock.time(),
    )
    part.seq = engine.run(pool.submit(packed, header, call.taker(part), call.give_up))


def _terminated(call: Call, limit_s: float, *, can_go_on: bool) -> str:
    """As after Ctrl-C, but that the process is about to end. What was interrupted may hold any lock: take none."""
    engine.run(asyncio.wait_for(call.pool.stop_workers(), limit_s), wait_s=limit_s)
    return _farewell(call, "terminated", can_go_on=can_go_on)


def _farewell(call: Call, what: str, *, can_go_on: bool) -> str:
    """Where the results are that stay."""
    session_id = call.pool.address
    lines = (
        f"{what}: workers stopped, {call.done} of {call.total} results are kept in {call.pool.session_id}\n",
        f"take what is there: starburst collect {session_id} --no-wait -o results.pickle\n",
        f"finish it:          starburst.attach({session_id!r}).collect()\n",
    )
    return "".join(lines if can_go_on else lines[:2])


def _lazily(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    on_error: OnError,
    progress: bool,
    ordered: bool,
    options: dict[str, Any],
) -> Iterator[Any]:
    check_callable(fn)
    check_on_error(on_error)
    chosen = current_options(options, ("on_error", "progress"))
    check_iterables("imap", iterables)
    rows = zip(*iterables, strict=False)
    return _stream(fn, rows, chosen, on_error=on_error, progress=progress, ordered=ordered)


def _stream(
    fn: Callable[..., Any],
    rows: Iterator[tuple[Any, ...]],
    options: Options,
    *,
    on_error: OnError,
    progress: bool,
    ordered: bool,
) -> Iterator[Any]:
    """Keep two blocks of items under way; a block is twice as large when one more has been taken."""
    lanes = options.workers * options.slots
    size = grow_at = _FIRST_BLOCK * lanes
    block = list(itertools.islice(rows, size))
    if not block:
        return
    packed: Packed | None = pack_star(
        fn, block, lanes=lanes, chunksize=None
    )  # what cannot be pickled starts nothing
    sink = open_sink(progress=progress)
    with builds_shown(wanted=progress):
        pool: Pool = open_pool(options)
    tell_where(sink, options)
    call = Call(pool, title_of(fn), 0, sink)
    parts: list[Slice] = []
    taken = 0
    with attended(call, can_go_on=False):
        try:
            while block or taken < call.total:
                while block and call.total - taken < 2 * size:
                    packed = packed or pack_star(fn, block, lanes=lanes, chunksize=None)
                    part = Slice(range(call.total, call.total + len(block)))
                    parts.append(part)
                    call.total += len(block)
                    submit(call, part, packed, options)
                    packed = None
                    block = list(itertools.islice(rows, size))
                place = _next_place(call, taken, ordered=ordered)
                taken += 1
                if taken == grow_at:
                    size = min(_MAX_BLOCK, size * 2)
                    grow_at += size
                failed = call.outcomes[place][0].failure is not None
                value = call.value(place)
                if failed and on_error == "raise":
                    raise value from value.__cause__
                if not (failed and on_error == "skip"):
                    yield value
            engine.call_soon(pool.delivered, *(part.seq for part in parts))
        finally:
            if call.done < call.total and call.error is None and pool.usable:
                engine.run(pool.cancel(*(part.seq for part in parts if part.seq)))


def _next_place(call: Call, taken: int, *, ordered: bool) -> int:
    """The next item to hand out: number ``taken``, or whichever came first."""
    if not ordered:
        call.wait_for(taken + 1)
        return call.any_place()
    while taken not in call.outcomes:
        call.wait_for(call.done + 1)
    return taken
