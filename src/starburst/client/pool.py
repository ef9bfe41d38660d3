"""A session with its supervisor in this process: what ``map`` and ``Executor`` run on, kept warm between calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable

from starburst.client.address import address
from starburst.client.collector import Collector, Watched, ended
from starburst.client.connection import Connection, Kind
from starburst.client.engine import at_exit, engine
from starburst.client.packing import Packed
from starburst.client.status import requests_of
from starburst.client.withdraw import withdraw
from starburst.config import patience_s
from starburst.errors import StarburstError, StoreError
from starburst.options import Options
from starburst.protocol.keys import ChunkId
from starburst.protocol.records import BatchHeader
from starburst.protocol.sessions import delete_session, read_heartbeats
from starburst.protocol.state import SessionState
from starburst.store.base import RequestCounts
from starburst.supervisor.leader import latest_term
from starburst.supervisor.loop import Supervisor
from starburst.supervisor.start import ensure_supervisor

__all__ = ["Pool", "open_pool"]

_CLOSE_S = 5.0
_HOUR_S = 3600.0
_LARGE_BYTES = 4 * 2**20
_START_S = 180.0
"""So long a supervisor may take until it leads: its container has to be fetched first."""


class Pool:
    """An open session whose workers this process looks after.

    Its coroutines run in the engine's loop.

    Attributes:
        keep: What is in the store stays when the pool is closed.
        leave_open: Nor is the session ended then.

    Args:
        connection: The session.
        detached: The session outlives this process: its supervisor is a process of its own.
    """

    def __init__(self, connection: Connection, *, detached: bool = False) -> None:
        self.connection = connection
        self.detached = detached
        self.state = SessionState.of(connection.manifest)
        self.collector = Collector(
            connection.store,
            connection.keys,
            self.state,
            connection.clock,
            news_s=connection.manifest.heartbeat_s / 2,
        )
        self.supervisor = Supervisor(
            connection.store,
            connection.manifest,
            connection.provider,
            connection.clock,
            root_url=connection.store.url,
        )
        self.keep = self.leave_open = detached
        self._watched: dict[int, Watched] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._handed_over: set[int] = set()
        self._has_supervisor = False
        self._looked_at = float("-inf")
        self._standing: tuple[int, str] | None = None
        self._alone_since: float | None = None
        self._brought_s = float("-inf")
        self._stop = asyncio.Event()
        self._supervising: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, options: Options, kind: Kind, session_id: str | None = None) -> Pool:
        """Make (or, with an id, reopen) a session; workers start with the first submission."""
        return cls(await Connection.create(options, kind, session_id=session_id))

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.connection.session_id

    @property
    def address(self) -> str:
        """What to call it in commands: its id, or its URL if its store is not the usual one."""
        return address(self.connection.store.url, self.session_id)

    @property
    def usable(self) -> bool:
        """Whether it takes more work, and has an hour for it if it had several."""
        now = self.connection.clock.time()
        several = self.connection.manifest.absolute_timeout_s >= 2 * _HOUR_S
        return (
            not self._closed
            and self.state.name(now + _HOUR_S * several) == "open"
            and self.supervisor.report.state == "open"
        )

    @property
    def live_workers(self) -> int:
        """Workers that there are."""
        return self.supervisor.report.live

    async def submit(
        self,
        packed: Packed,
        header: BatchHeader,
        on_run: Callable[..., None],
        on_error: Callable[[StarburstError], None],
    ) -> int:
        """Write a submission, see that there are workers, bring its results; returns its number."""
        seq = await self.connection.submit(packed, header)
        self._watched[seq] = Watched(seq, packed.n_tasks, on_run, on_error)
        self.collector.watch(self._watched[seq])
        await self.see_to_workers()
        return seq

    def delivered(self, *batches: int) -> None:
        """The caller has the results of some submissions and has gone on: large ones need not stay in the store."""
        self._handed_over.update(batches)
        for seq in batches:
            self._forget(self._watched.pop(seq, None))

    def _forget(self, watched: Watched | None) -> None:
        if watched and not watched.missing and not self.keep and watched.size_bytes >= _LARGE_BYTES:
            task = asyncio.ensure_future(self._remove_results(watched))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _remove_results(self, watched: Watched) -> None:
        connection = self.connection
        with contextlib.suppress(StoreError):
            await self._tell_delivered([watched.seq])
            await connection.store.delete(sorted(watched.seen))

    async def _tell_delivered(self, batches: list[int]) -> None:
        await self.connection.say("delivered", batches=batches)

    async def is_open(self) -> bool:
        """Whether the session takes work, as its events say."""
        await self.collector.read_news()
        return self.state.name(self.connection.clock.time()) == "open"

    async def check_open(self) -> None:
        """Refuse work for a session that has ended.

        Raises:
            SessionEnded: It has.
            SessionNotFound: It was removed.
        """
        if self.detached:
            await self.connection.check_exists()
        if not await self.is_open():
            raise ended(self.address, self.state.name(self.connection.clock.time()))

    async def see_to_workers(self) -> None:
        """There is work: have somebody look after the workers."""
        if self.detached:
            if not self._has_supervisor:
                await self._ensure_supervisor()
            return
        if self._supervising is None or self._supervising.done():
            self._supervising = asyncio.ensure_future(self._supervise())
        self.supervisor.wake()

    async def look_after(self, *, at_once: bool = False) -> None:
        """Somebody waits for a detached session: bring back its supervisor if that has died.

        Once in a lease it is looked whether its beat has changed, which costs two requests.

        Args:
            at_once: Start one unless it is certain that one is alive.

        Raises:
            SessionNotFound: The session was removed.
        """
        connection = self.connection
        now = connection.clock.monotonic()
        if not self.detached or (now - self._looked_at < connection.manifest.lease_s and not at_once):
            return
        before, self._looked_at = self._standing, now
        standing = await latest_term(connection.store, connection.keys)
        if standing is None:
            await connection.check_exists()
        self._standing = None if standing is None else (standing.term, standing.version)
        silent = not at_once and self._standing == before
        if standing is None and now - self._brought_s < _START_S:
            silent = False  # ours is on its way, unless its provider says otherwise
        if not (at_once or silent or standing is None or standing.resigned):
            self._alone_since = None
            return
        if not at_once and standing is not None and standing.resigned and not await self.is_open():
            return  # it was the last one
        if silent:
            await self._check_that_the_store_takes_writes(now)
        await self._ensure_supervisor(silent=silent)

    async def _check_that_the_store_takes_writes(self, now: float) -> None:
        """A supervisor falls silent, too, when it cannot write; then another one could not either."""
        self._alone_since = now if self._alone_since is None else self._alone_since
        try:
            await self.connection.say("revived")
        except StoreError:
            if now - self._alone_since >= patience_s():
                raise

    async def _ensure_supervisor(self, *, silent: bool = False) -> None:
        connection = self.connection
        started = await ensure_supervisor(
            connection.store, connection.manifest, connection.provider, connection.store.url, silent=silent
        )
        if started is not None or not self._has_supervisor:
            self._brought_s = connection.clock.monotonic()
        self._has_supervisor = True

    async def cancel(self, *batches: int) -> None:
        """Run nothing more of some submissions."""
        for seq in batches:
            self.collector.unwatch(seq)
            self._watched.pop(seq, None)
        await self.connection.say("cancelled", batches=list(batches))
        self.supervisor.wake()

    async def withdraw(self, chunk: ChunkId, count: int, *, only: int | None = None) -> bool:
        """Take a chunk, or one task of it, back from those that no worker has claimed; False if one has.

        We claim it as a worker would, so that it is certain that no task of it runs.

        Args:
            chunk: The chunk.
            count: How many tasks it has.
            only: Withdraw only this task of it, counted from 0; the others become chunks of their own.
        """
        return await withdraw(self.connection, chunk, count, only=only)

    async def requests(self) -> RequestCounts:
        """Requests of this process and, as of their last heartbeats, of the workers."""
        connection = self.connection
        return requests_of(connection.store, await read_heartbeats(connection.store, connection.keys))

    async def stop_workers(self) -> None:
        """Stop supervising and send the workers away; what is finished stays."""
        self.keep = self.leave_open = True
        await self._leave_out_what_is_handed_over()
        await self._end_supervision()
        await self._dismiss()
        await self.connection.provider.stop(self.session_id, None, grace_s=_CLOSE_S, wait=False)

    async def _dismiss(self) -> None:
        """Tell workers not to finish what they run: a container that is asked to stop would take its two minutes."""
        with contextlib.suppress(StoreError):
            await self.collector.read_news()
            if workers := sorted(set(self.state.ordinals) - set(self.state.lost)):
                await self.connection.say("dismissed", workers=workers)

    async def close(self) -> None:
        """End the session: no worker is left, and nothing of it in the store unless it is to be kept."""
        connection = self.connection
        self._closed = True
        await self.collector.close()
        await self._end_supervision()
        await asyncio.gather(*self._background)
        if self.keep and not self.leave_open:
            await self._leave_out_what_is_handed_over()
        with contextlib.suppress(StoreError):
            if not self.leave_open:
                # What nobody will collect need not be finished: workers on AWS are paid for as long as they go on.
                await connection.say("terminated", reason="closed" if self.keep else "left")
        await self._stop_workers()
        if not self.keep:
            with contextlib.suppress(StoreError):
                await delete_session(connection.store, connection.keys)
            await connection.provider.forget(self.session_id)

    async def _stop_workers(self) -> None:
        """Wait for them only a little: it is certain that they will go, and what they write before is removed."""
        provider = self.connection.provider
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(provider.stop(self.session_id, grace_s=_CLOSE_S), 3 * _CLOSE_S)

    async def _leave_out_what_is_handed_over(self) -> None:
        """What is kept for the sake of one call shall not bring the results of others when it is collected."""
        if self._handed_over:
            with contextlib.suppress(StoreError):
                await self._tell_delivered(sorted(self._handed_over))

    async def _end_supervision(self) -> None:
        if self._supervising is not None:
            self._stop.set()
            self.supervisor.wake()
            await asyncio.wait([self._supervising])

    async def _supervise(self) -> None:
        """Run the supervisor; if it cannot go on, nobody is to wait for ever."""
        self._stop.clear()
        try:
            # Another client may look after the same session (resume=) and leave before us.
            await self.supervisor.run(self._stop, wait=True)
        except StarburstError as error:
            self.collector.fail_all(error)
            return
        report = self.supervisor.report
        if not self._stop.is_set() and report.state != "open":
            await self.collector.read_news()
            self.collector.fail_all(ended(self.address, report.state, report.gave_up or ""))


_pools: dict[tuple[object, ...], Pool] = {}
_ended: list[tuple[int, Pool]] = []
"""Pools whose session ended by itself, with the process that they belong to: what is left of them goes with it."""
_lock = threading.Lock()


def open_pool(options: Options) -> Pool:
    """A pool for these options: a warm one if there is one, else a new one.

    Raises:
        StarburstError: The store or the provider cannot be opened.
    """
    key = (
        os.getpid(),
        *options.of_workers,
        os.environ.get("STARBURST_DATA_DIR"),
        os.getcwd(),  # noqa: PTH109 - a string will do
        tuple(sys.path),
    )
    with _lock:
        pool = _pools.get(key)
        if pool is not None and not pool.usable:
            _ended.append((os.getpid(), _pools.pop(key)))
            pool = None
        if pool is None:
            pool = _pools[key] = engine.run(Pool.open(options, "map"))
        return pool


def reopen_pool(options: Options, session_id: str) -> Pool:
    """The pool of a named session, made if it is not there, its deadline set anew.

    Raises:
        StarburstError: The store or the provider cannot be opened.
    """
    key = (os.getpid(), session_id, options.store, options.workers, options.slots)
    with _lock:
        pool = _pools.get(key)
        if pool is None or not pool.usable:
            pool = _pools[key] = engine.run(_reopen(options, session_id))
        return pool


async def _reopen(options: Options, session_id: str) -> Pool:
    pool = await Pool.open(options, "resume", session_id)
    connection = pool.connection
    await pool.collector.read_news()
    now = connection.clock.time()
    data = {"deadline_at": now + options.seconds("absolute_timeout")}
    changes: list[tuple[str, dict[str, float]]] = []
    if connection.manifest.created_at < now - 1 or not pool.usable:
        changes.append(("extended", data))
    if pool.state.workers != options.workers:
        changes.append(("scaled", {"workers": options.workers}))
    for what, values in changes:
        await connection.say(what, **values)
    await pool.collector.read_news()
    pool.keep = pool.leave_open = True
    return pool


def discard(pool: Pool) -> None:
    """Do not hand this pool out again."""
    with _lock:
        for key in [key for key, known in _pools.items() if known is pool]:
            del _pools[key]


def close_all() -> None:
    """Close every pool of this process."""
    with _lock:
        known = [*_ended, *((key[0], pool) for key, pool in _pools.items())]
        mine = [pool for pid, pool in known if pid == os.getpid()]
        _pools.clear()
        _ended.clear()
    if mine:
        engine.run_all((pool.close() for pool in mine), but=StarburstError)


at_exit(close_all)
