"""Detached sessions: they go on when this process ends, and are found again by their id."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

from starburst.client.collecting import Collected, collect_all
from starburst.client.connection import Connection
from starburst.client.engine import at_exit, engine
from starburst.client.gatherer import Gatherer, TaskFuture
from starburst.client.mapping import OnError, check_on_error
from starburst.client.packing import Packed, check_callable, check_chunksize, columns_of, pack_map
from starburst.client.pool import Pool
from starburst.client.status import SessionStatus, read_status, requests_of
from starburst.compute.base import Provider, outcomes_of
from starburst.errors import (
    CollectTimeout,
    SerializationError,
    SessionError,
    SessionNotFound,
    StarburstError,
    StoreFull,
)
from starburst.options import MAX_WORKERS, Options, parse_duration_s
from starburst.protocol.diagnose import why_unpicklable
from starburst.protocol.payload import Calls, LargeObjects, SharedObject
from starburst.protocol.sessions import delete_session, read_heartbeats
from starburst.store.base import RequestCounts

__all__ = ["Session", "Submission"]

R = TypeVar("R")
_GRACE_S = 10.0
_FORCED_GRACE_S = 1.0
_CHECK_S = 1.0
"""So long a session that took work is believed to take more: ``submit`` is called again and again."""


class Submission:
    """What :meth:`Session.map` submitted.

    Attributes:
        session_id: The session.
        seq: The submission's number in it.
    """

    def __init__(self, session_id: str, seq: int, n_tasks: int) -> None:
        self.session_id = session_id
        self.seq = seq
        self._n_tasks = n_tasks

    def __len__(self) -> int:
        return self._n_tasks

    @property
    def task_ids(self) -> list[str]:
        """The names of its tasks, in order."""
        return [f"{self.seq:06d}-{i:08d}" for i in range(self._n_tasks)]

    def __repr__(self) -> str:
        return f"<{self._n_tasks} tasks submitted to {self.session_id} as number {self.seq}>"


class Session:
    """A durable unit of work: everything about it is in the store, nothing depends on this process.

    Made by :func:`starburst.session`, found again by :func:`starburst.attach`.
    """

    def __init__(self, connection: Connection, options: Options) -> None:
        self._connection = connection
        self._pool = Pool(connection, detached=True)
        self._options = options
        self._gatherer = Gatherer(self._pool, options)
        self._checked_at = float("-inf")
        _open_sessions.add(self)

    def __repr__(self) -> str:
        return f"<Session {self.session_id} in {self._connection.store.url}>"

    @property
    def session_id(self) -> str:
        """Its id, by which it is attached again."""
        return self._connection.session_id

    @property
    def provider(self) -> Provider:
        """What starts its workers."""
        return self._connection.provider

    @property
    def url(self) -> str:
        """Its URL, by which any machine may join: ``starburst worker URL``."""
        return self._connection.url

    @property
    def requests(self) -> RequestCounts:
        """Requests of this process and, as of their last heartbeats, of the workers."""
        connection = self._connection
        beats = engine.run(read_heartbeats(connection.store, connection.keys))
        return requests_of(connection.store, beats)

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> TaskFuture[R]:
        """Have ``fn(*args, **kwargs)`` run by a worker.

        Args:
            fn: The function.
            *args: Its arguments.
            **kwargs: Its named arguments.

        Returns:
            A future of its result, for this process; :meth:`collect` brings it anywhere.

        Raises:
            OptionError: ``fn`` cannot be called.
            SerializationError: It or an argument cannot be pickled.
            SessionEnded: The session takes no more work.
        """
        check_callable(fn)
        if self._connection.clock.monotonic() - self._checked_at >= _CHECK_S:
            self._check_open()
        return self._gatherer.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        chunksize: int | Literal["auto"] = "auto",
        timeout: float | str | None = None,
        retries: int | None = None,
    ) -> Submission:
        """Submit a function over many items and return at once; the work is durable when this returns.

        Args:
            fn: The function.
            *iterables: Its arguments, side by side.
            chunksize: Tasks that a worker claims at once.
            timeout: Seconds that one task may run; None means the session's option.
            retries: How often a task that raised is run again; None means the session's option.

        Returns:
            A handle with the tasks' names.

        Raises:
            OptionError: An argument is wrong; nothing was submitted.
            SerializationError: The function or an argument cannot be pickled; nothing was submitted.
            SessionEnded: The session takes no more work.
        """
        check_callable(fn)
        size = check_chunksize(chunksize)
        options = self._options.merged({"timeout": timeout, "retries": retries})
        columns = columns_of(iterables)
        self._check_open()
        lanes = self._connection.lanes
        packed = pack_map(fn, columns, lanes=lanes, chunksize=size)
        if packed.n_tasks == 0:
            return Submission(self.session_id, 0, 0)
        return engine.run(self._submit(packed, options, lanes))

    def status(self) -> SessionStatus:
        """How it is now, from the store.

        Raises:
            SessionNotFound: It was removed.
            StoreError: The store cannot be read.
        """
        return engine.run(self._status())

    def results(self) -> Iterator[tuple[str, Any]]:
        """The results that are there now, as (task id, value or error), in order of submission.

        Raises:
            StoreError: The store cannot be read.
        """
        found = self._collect(wait=False, timeout_s=None)
        for seq, i in found.ids():
            yield f"{seq:06d}-{i:08d}", found.result(seq, i)

    def collect(
        self, *, wait: bool = True, timeout: float | str | None = None, on_error: OnError = "raise"
    ) -> list[Any]:
        """Results in the order of submission. May be called again and again: nothing is ever removed.

        Args:
            wait: Wait until every task that was submitted has a result; else take those that are there.
            timeout: Seconds to wait at the most.
            on_error: As in :func:`starburst.map`.

        Returns:
            The results; without ``wait``, tasks that are not finished are left out.

        Raises:
            TaskError: A task failed and ``on_error`` is "raise".
            CollectTimeout: They were not all there in time.
            SessionEnded: The session ended before all tasks were done; ``wait=False`` takes what there is.
            SessionNotFound: It was removed.
        """
        check_on_error(on_error)
        timeout_s = None if timeout is None else parse_duration_s("timeout", timeout)
        found = self._collect(wait=wait, timeout_s=timeout_s)
        if wait and found.missing:
            if found.error is not None:
                raise found.error
            raise CollectTimeout(
                f"{found.missing} of {found.total} results of {self.session_id} were not there in {timeout_s:g} s",
                hint=f"wait longer, or take what is there with wait=False; starburst status {self.session_id}",
            )
        results = []
        for seq, i in found.ids():
            if (failure := found.failure(seq, i)) is not None:
                if on_error == "raise":
                    raise failure from failure.__cause__
                if on_error == "skip":
                    continue
            results.append(found.result(seq, i))
        if on_error == "raise" and found.damaged:
            raise found.damaged[0]
        return results

    def extend(self, seconds: float | str) -> None:
        """Move the moment at which the session ends; an expired or idle session takes work again.

        Args:
            seconds: How much longer than now planned (or than now, if that is past), as 7200 or "2h".

        Raises:
            OptionError: It is not a length of time.
            SessionEnded: The session was cancelled.
        """
        more_s = parse_duration_s("seconds", seconds)
        engine.run(self._extend(more_s))

    def scale(self, workers: int) -> None:
        """Change how many workers the session may have.

        Args:
            workers: 1 to 500.

        Raises:
            OptionError: It is another number.
        """
        Options(workers=workers, max_workers=max(MAX_WORKERS, self._options.max_workers))
        engine.run(self._event("scaled", workers=workers))
        engine.run(self._wake())

    def cancel(self) -> None:
        """Run nothing more; workers stop. Results that are there stay."""
        engine.run(self._event("cancelled"))
        engine.run(self._connection.provider.stop(self.session_id, None, grace_s=1.0, wait=False))

    def cleanup(self, *, stop_workers: bool = True, force: bool = False) -> None:
        """End the session.

        Args:
            stop_workers: Stop its workers; results stay and can still be collected.
            force: Remove everything of it from the store for good.

        Raises:
            SessionError: ``force`` without ``stop_workers`` while workers are alive.
        """
        if not stop_workers:
            alive = self.status().workers
            if alive and force:
                raise SessionError(
                    f"session {self.session_id} still has {alive} workers, which would work on what is removed",
                    hint="cleanup(stop_workers=True, force=True)",
                )
        engine.run(self._cleanup(stop_workers=stop_workers, force=force))

    def put(self, value: Any) -> SharedObject:
        """Store a large value once, for use as an argument of many tasks; they get the value itself.

        Args:
            value: Anything that can be pickled.

        Returns:
            A small reference to use in its place in :meth:`map` and :meth:`submit`.

        Raises:
            SerializationError: It cannot be pickled.
            SessionNotFound: The session was removed.
        """
        large = LargeObjects()
        try:
            sha256 = large.add(value)
        except Exception as error:
            raise SerializationError(
                f"the value cannot be stored: {why_unpicklable(value, error)}"
            ) from error
        engine.run(self._put(large))
        return SharedObject(sha256)

    def _check_open(self) -> None:
        engine.run(self._pool.check_open())
        self._checked_at = self._connection.clock.monotonic()

    async def _status(self) -> SessionStatus:
        connection = self._connection
        await connection.check_exists()
        return await read_status(connection.store, connection.manifest, connection.clock)

    async def _put(self, large: LargeObjects) -> None:
        await self._connection.check_exists()
        await self._connection.put_objects(Packed(b"", "", "", Calls("stream", [], []), large, 0))

    async def _submit(self, packed: Packed, options: Options, lanes: int) -> Submission:
        header = packed.header(
            lanes=lanes,
            timeout_s=options.timeout_s,
            retries=options.retries,
            at=self._connection.clock.time(),
        )
        seq = await self._connection.submit(packed, header)
        await self._pool.see_to_workers()
        return Submission(self.session_id, seq, packed.n_tasks)

    def _collect(self, *, wait: bool, timeout_s: float | None) -> Collected:
        return engine.run(self._collected(wait, timeout_s))

    async def _collected(self, wait: bool, timeout_s: float | None) -> Collected:
        await self._connection.check_exists()
        await self._gatherer.flush()
        return await collect_all(
            self._connection,
            wait=wait,
            timeout_s=timeout_s,
            wake=self._wake,
            look_after=self._pool.look_after,
        )

    async def _wake(self) -> None:
        """Bring the session back to life if it has work and nobody looks after it."""
        if await self._pool.is_open():
            await self._pool.look_after(at_once=True)

    async def _event(self, what: str, **data: Any) -> None:
        connection = self._connection
        self._checked_at = float("-inf")
        await connection.check_exists()
        await connection.say(what, **data)

    async def _extend(self, more_s: float) -> None:
        await self._pool.collector.read_news()
        state, now = self._pool.state, self._connection.clock.time()
        if state.ended == "cancelled":
            await self._pool.check_open()
        deadline_at = max(state.deadline_at, now) + more_s
        await self._event("extended", deadline_at=deadline_at)
        await self._connection.provider.extend(self.session_id, deadline_at)
        await self._wake()

    async def _cleanup(self, *, stop_workers: bool, force: bool) -> None:
        connection = self._connection
        self._checked_at = float("-inf")
        if stop_workers:
            try:
                await self._event("terminated", reason="left" if force else "closed")
            except (SessionNotFound, StoreFull):
                if not force:  # without a session nothing need be recorded, and its removal makes room
                    raise
            grace_s = _FORCED_GRACE_S if force else _GRACE_S  # what is removed need not be finished
            await connection.provider.stop(self.session_id, None, grace_s=grace_s)
            outcomes = {} if force else outcomes_of(await connection.provider.describe(self.session_id))
            if outcomes:  # their supervisor went with them
                await self._event("workers-left", workers=outcomes)
        if force:
            await delete_session(connection.store, connection.keys)
            await connection.provider.forget(self.session_id)

    async def _flush(self) -> None:
        """Write what :meth:`submit` has gathered."""
        await self._gatherer.flush()


_open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _flush_sessions() -> None:
    """Before the process ends: what was submitted must be in the store."""
    for open_session in list(_open_sessions):
        with contextlib.suppress(StarburstError):
            engine.run(open_session._flush())  # noqa: SLF001 - the same module


at_exit(_flush_sessions)
