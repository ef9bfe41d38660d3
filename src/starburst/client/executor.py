"""A ``concurrent.futures.Executor`` whose workers are a session's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starburst.client.call import Call, Slice
from starburst.client.collector import Run
from starburst.client.engine import engine
from starburst.client.failures import task_error
from starburst.client.fingerprint import fingerprint, same
from starburst.client.mapping import submit, tell_where
from starburst.client.packing import (
    check_callable,
    check_chunksize,
    columns_of,
    pack_map,
    pack_submits,
    title_of,
)
from starburst.client.plan import current_options
from starburst.client.pool import Pool, open_pool
from starburst.client.progress import Silent, open_sink
from starburst.errors import OptionError, StarburstError, TaskError
from starburst.options import Options
from starburst.protocol.keys import ChunkId
from starburst.protocol.payload import LargeObjects, dump_call, dump_function
from starburst.store.base import RequestCounts

__all__ = ["Executor", "Gatherer", "TaskFuture"]

R = TypeVar("R")
_GATHER_S = 0.002
_GATHER_TASKS = 5_000


class TaskFuture(concurrent.futures.Future[R]):
    """The future of one task.

    Attributes:
        task_id: The task's name in its session, once it is submitted; None before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.task_id: str | None = None
        self._withdraw: Callable[[TaskFuture[R]], bool] | None = None

    def cancel(self) -> bool:
        """Cancel the task if no worker has claimed it; True only if it is certain that it will not run."""
        if not self.done() and self._withdraw is not None and not self._withdraw(self):
            return False
        return super().cancel()


@dataclass(slots=True)
class _Group:
    """Calls of one function that are submitted together."""

    function: bytes
    title: str
    pickles: list[bytes] = field(default_factory=list)
    futures: list[TaskFuture[Any]] = field(default_factory=list)
    large: LargeObjects = field(default_factory=LargeObjects)


class Gatherer:
    """Gathers ``submit`` calls for some milliseconds and writes them together.

    Args:
        pool: Where they run.
        options: Timeout and retries of the tasks.
    """

    def __init__(self, pool: Pool, options: Options) -> None:
        self.pool = pool
        self._options = options
        self._lock = threading.Lock()
        self._groups: list[_Group] = []
        self._scheduled = False
        self._functions: dict[int, tuple[Any, list[object] | None, bytes, LargeObjects]] = {}
        self._chunks: dict[TaskFuture[Any], tuple[ChunkId, list[TaskFuture[Any]]]] = {}
        self.pending: set[TaskFuture[Any]] = set()
        self.submitted: list[int] = []

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskFuture[Any]:
        """Add one call; raises what pickling raises, and then nothing was added."""
        function, large = self._pickled(fn)
        group_large = LargeObjects()
        call = dump_call(args, kwargs, group_large)
        group_large.detach()
        future: TaskFuture[Any] = TaskFuture()
        future._withdraw = self.withdraw  # noqa: SLF001 - its other half
        with self._lock:
            group = self._groups[-1] if self._groups else None
            if group is None or group.function is not function or len(group.pickles) >= _GATHER_TASKS:
                group = _Group(function, title_of(fn))
                group.large.found.update(large.found)
                self._groups.append(group)
            group.large.found.update(group_large.found)
            group.pickles.append(call)
            group.futures.append(future)
            self.pending.add(future)
            if not self._scheduled:
                self._scheduled = True
                engine.call_soon(self._start)
        return future

    def withdraw(self, future: TaskFuture[Any]) -> bool:
        """Make sure that a task will not run; False if it runs or has run."""
        with self._lock:
            for group in self._groups:
                if future in group.futures:
                    i = group.futures.index(future)
                    del group.futures[i], group.pickles[i]
                    self.pending.discard(future)
                    return True
        return future in self._chunks and engine.run(self._withdraw_submitted(future))

    def cancel_pending(self) -> None:
        """Cancel every task that no worker has claimed."""
        with self._lock:
            waiting = [future for group in self._groups for future in group.futures]
            self._groups.clear()
            self.pending.difference_update(waiting)
        for future in waiting:
            concurrent.futures.Future.cancel(future)
            future.set_running_or_notify_cancel()
        engine.run(self._withdraw_all())

    async def flush(self) -> None:
        """Write what was gathered."""
        with self._lock:
            groups, self._groups = self._groups, []
            self._scheduled = False
        for group in groups:
            if group.pickles:
                await self._write(group)

    def _start(self) -> None:
        asyncio.ensure_future(self._flush_soon())  # noqa: RUF006 - futures hold its outcome

    async def _flush_soon(self) -> None:
        """Wait while calls keep coming, within reason."""
        seen = -1
        while seen < (now := sum(len(group.pickles) for group in self._groups)) < _GATHER_TASKS:
            seen = now
            await asyncio.sleep(_GATHER_S)
        await self.flush()

    async def _write(self, group: _Group) -> None:
        options, futures = self._options, group.futures
        lanes = options.workers * options.slots
        packed = pack_submits(group.function, group.title, group.pickles, group.large, lanes)
        header = packed.header(
            lanes=lanes,
            timeout_s=options.timeout_s,
            retries=options.retries,
            at=self.pool.connection.clock.time(),
        )

        def on_error(error: StarburstError) -> None:
            self._fail(futures, error)

        try:
            seq = await self.pool.submit(packed, header, lambda run: self._take(futures, run), on_error)
        except Exception as error:  # noqa: BLE001 - the futures hold it
            self._fail(futures, error)
            return
        self.submitted.append(seq)
        for first, count in zip(header.firsts, header.counts, strict=True):
            chunk = (ChunkId(seq, first), futures[first : first + count])
            for i, future in enumerate(chunk[1], first):
                future.task_id = f"{seq:06d}-{i:08d}"
                if not future.done():
                    self._chunks[future] = chunk

    def _take(self, futures: list[TaskFuture[Any]], run: Run) -> None:
        for i, outcome in enumerate(run.outcomes, run.first):
            future = futures[i]
            self._forget(future)
            if future.done() or not future.set_running_or_notify_cancel():
                continue
            if outcome.failure is None:
                future.set_result(outcome.value)
            else:
                future.set_exception(
                    task_error(
                        outcome,
                        session_id=self.pool.session_id,
                        batch=run.batch,
                        index=i,
                        worker=run.worker,
                    )
                )

    def _fail(self, futures: list[TaskFuture[Any]], error: BaseException) -> None:
        for future in futures:
            self._forget(future)
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _forget(self, future: TaskFuture[Any]) -> None:
        self._chunks.pop(future, None)
        self.pending.discard(future)

    async def _withdraw_submitted(self, future: TaskFuture[Any]) -> bool:
        """Take the future's task out of its chunk."""
        entry = self._chunks.get(future)
        if entry is None:
            return False
        chunk, members = entry
        i = members.index(future)
        if not await self.pool.withdraw(chunk, len(members), only=i):
            return False
        self._forget(future)
        behind = (ChunkId(chunk.batch, chunk.first + i + 1), members[i + 1 :])
        for member in members:
            self._chunks.pop(member, None)  # those before it are in the chunk that we have touched
        self._chunks.update((member, behind) for member in behind[1] if not member.done())
        return True

    async def _withdraw_all(self) -> None:
        chunks = dict(self._chunks.values())
        for chunk, members in chunks.items():
            if await self.pool.withdraw(chunk, len(members)):
                for future in members:
                    self._forget(future)
                    if concurrent.futures.Future.cancel(future):
                        future.set_running_or_notify_cancel()

    def _pickled(self, fn: Callable[..., Any]) -> tuple[bytes, LargeObjects]:
        """The function's pickle, made anew unless it is certain that nothing in it can have changed."""
        mark = fingerprint(fn)
        known = self._functions.get(id(fn))
        if known is not None and same(known[1], mark):
            return known[2], known[3]
        large = LargeObjects()
        function = dump_function(fn, large)
        large.detach()
        if known is not None and known[2] == function:
            return known[2], known[3]
        self._functions[id(fn)] = (fn, mark, function, large)
        return function, large


class Executor(concurrent.futures.Executor):
    """Runs calls in parallel on a session's workers; use it as any ``concurrent.futures`` executor.

        with starburst.Executor(workers=4) as pool:
            futures = [pool.submit(fit, params) for params in grid]

    Args:
        **options: Any of :class:`starburst.Options`: ``workers=``, ``slots=``, ``timeout=``, ``retries=``, …
            and ``progress=False`` to say nothing about where it runs.

    Raises:
        OptionError: An option is unknown or wrong.
        StoreError: The store cannot be opened or written.
    """

    def __init__(self, *, progress: bool = True, **options: Any) -> None:
        self._options = current_options(options)
        self._pool = open_pool(self._options)
        self._gatherer = Gatherer(self._pool, self._options)
        self._calls: list[Call] = []
        self._shut_down = False
        self._guard = threading.Lock()
        tell_where(open_sink(progress=progress), self._options)

    @property
    def session_id(self) -> str:
        """The session that the calls belong to."""
        return self._pool.session_id

    @property
    def requests(self) -> RequestCounts:
        """Requests of all sides since the session began; workers report theirs with each heartbeat."""
        return engine.run(self._pool.requests())

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> TaskFuture[R]:
        """Have ``fn(*args, **kwargs)`` run by a worker.

        Args:
            fn: The function.
            *args: Its arguments; the function and they are pickled now, later changes do not matter.
            **kwargs: Its named arguments.

        Returns:
            The future of its result.

        Raises:
            OptionError: ``fn`` cannot be called.
            SerializationError: It or an argument cannot be pickled.
            RuntimeError: The executor was shut down.
        """
        check_callable(fn)
        with self._guard:
            self._check_open()
            return self._gatherer.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | str = "auto",
    ) -> Iterator[R]:
        """As :meth:`concurrent.futures.Executor.map`; ``chunksize`` needs no advice.

        Args:
            fn: The function.
            *iterables: Its arguments, side by side.
            timeout: Seconds from now after which taking the next result raises :class:`TimeoutError`.
            chunksize: Tasks that a worker claims at once.

        Returns:
            An iterator over the results, in order.

        Raises:
            OptionError: An argument is wrong.
            SerializationError: The function or an argument cannot be pickled.
        """
        check_callable(fn)
        size = check_chunksize(chunksize)
        columns = columns_of(iterables)
        with self._guard:
            self._check_open()
        lanes = self._options.workers * self._options.slots
        packed = pack_map(fn, columns, lanes=lanes, chunksize=size)
        if packed.n_tasks == 0:
            return iter(())
        call, part = Call(self._pool, packed.title, packed.n_tasks, Silent()), Slice(range(packed.n_tasks))
        submit(call, part, packed, self._options)
        self._calls.append(call)
        return _results_of(call, part, None if timeout is None else time.monotonic() + timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Workers stay warm for the next call with equal options, and leave after ``idle_timeout`` or with this
        process.

        Args:
            wait: Return when all pending calls are done.
            cancel_futures: Cancel those that no worker has claimed.
        """
        with self._guard:
            self._shut_down = True
        if cancel_futures:
            engine.run(self._gatherer.flush())
            self._gatherer.cancel_pending()
        if wait:
            concurrent.futures.wait(list(self._gatherer.pending))
            for call in self._calls:
                with contextlib.suppress(StarburstError):
                    call.wait_for(call.total)
            engine.call_soon(self._pool.delivered, *self._gatherer.submitted)

    def _check_open(self) -> None:
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self._pool.usable:
            raise OptionError(
                f"session {self.session_id} of this executor has ended", hint="make a new starburst.Executor"
            )


def _results_of(call: Call, part: Slice, until: float | None) -> Iterator[Any]:
    """Results in order; what was not taken when the iterator is closed is cancelled."""
    try:
        for place in range(call.total):
            while place not in call.outcomes:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"result {place} of {call.total} was not there in time")
                call.wait_for(call.done + 1, for_s=left)
            value = call.value(place)
            if isinstance(value, TaskError):
                raise value from value.__cause__
            yield value
    finally:
        if call.done < call.total and call.error is None and call.pool.usable:
            engine.run(call.pool.cancel(part.seq))
            call.total = call.done
