"""Gathers ``submit`` calls, and gives each a future that can be cancelled for certain."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starburst.client.collector import Run
from starburst.client.engine import engine
from starburst.client.failures import task_error
from starburst.client.fingerprint import fingerprint, same
from starburst.client.packing import (
    pack_submits,
    title_of,
)
from starburst.client.pool import Pool
from starburst.errors import StarburstError
from starburst.options import Options
from starburst.protocol.keys import ChunkId
from starburst.protocol.payload import LargeObjects, dump_call, dump_function

__all__ = ["Gatherer", "TaskFuture"]

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
        self._telling = threading.Lock()
        self._told = False

    def cancel(self) -> bool:
        """Cancel the task if no worker has claimed it; True only if it is certain that it will not run."""
        if not self.done() and self._withdraw is not None and not self._withdraw(self):
            return self.cancelled()
        return self.become_cancelled()

    def become_cancelled(self) -> bool:
        """It is certain that the task does not run: say so, once, to those that wait for it."""
        if not super().cancel():
            return False
        with self._telling:
            first, self._told = not self._told, True
        if first:
            self.set_running_or_notify_cancel()
        return True


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
        self._writing = asyncio.Lock()
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
        for future in (*waiting, *engine.run(self._withdraw_all())):
            future.become_cancelled()

    async def flush(self) -> None:
        """Write what was gathered; when this returns, all that was submitted before is in the store."""
        await asyncio.shield(asyncio.ensure_future(self._flush()))  # who is interrupted must not lose calls

    async def _flush(self) -> None:
        async with self._writing:  # what another flush is writing comes first
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
        engine.deliver(self._resolve, futures, run)

    def _resolve(self, futures: list[TaskFuture[Any]], run: Run) -> None:
        """Give futures their results; their callbacks run here."""
        for i, outcome in enumerate(run.outcomes, run.first):
            future = futures[i]
            if outcome.failure is not None and outcome.failure.kind == "cancelled":
                future.become_cancelled()
            elif future.done() or not future.set_running_or_notify_cancel():
                pass
            elif outcome.failure is None:
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
            self._forget(future)

    def _fail(self, futures: list[TaskFuture[Any]], error: BaseException) -> None:
        engine.deliver(self._fail_now, futures, error)

    def _fail_now(self, futures: list[TaskFuture[Any]], error: BaseException) -> None:
        for future in futures:
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(error)
            self._forget(future)

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

    async def _withdraw_all(self) -> list[TaskFuture[Any]]:
        withdrawn: list[TaskFuture[Any]] = []
        chunks = dict(list(self._chunks.values()))
        for chunk, members in chunks.items():
            if await self.pool.withdraw(chunk, len(members)):
                withdrawn += members
                for future in members:
                    self._forget(future)
        return withdrawn

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
