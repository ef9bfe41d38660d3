"""Brings results home: one loop a session, whatever the number of calls that wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from starburst.client.address import address
from starburst.clock import Clock
from starburst.config import patience_s
from starburst.errors import CorruptObject, SessionEnded, StarburstError, StoreError
from starburst.protocol.keys import Keys
from starburst.protocol.records import Failure, ResultHeader
from starburst.protocol.results import Outcome, decode_result
from starburst.protocol.sessions import EventLog, read_done
from starburst.protocol.state import SessionState
from starburst.store.base import Store

__all__ = ["Collector", "Run", "Watched"]

log = logging.getLogger(__name__)

_AT_ONCE = 8
OnRun = Callable[["Run"], None]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tasks of a submission with their outcomes, as they came."""

    batch: int
    first: int
    outcomes: Sequence[Outcome]
    worker: str
    task_s: float = 0.0
    retried: int = 0


@dataclass(slots=True)
class Watched:
    """A submission that somebody waits for.

    Attributes:
        seq: Its number.
        n_tasks: How many tasks it has.
        on_run: Called in the event loop with each run of results.
        on_error: Called once if the rest cannot come any more.
    """

    seq: int
    n_tasks: int
    on_run: OnRun
    on_error: Callable[[StarburstError], None]
    seen: set[str] = field(default_factory=set)
    damaged: dict[int, CorruptObject] = field(default_factory=dict)
    covered: bytearray = field(default_factory=bytearray)
    missing: int = 0
    size_bytes: int = 0

    def __post_init__(self) -> None:
        self.missing = self.n_tasks
        self.covered = bytearray(self.n_tasks)

    def cover(self, first: int, count: int) -> None:
        """These tasks have an outcome now."""
        self.covered[first : first + count] = b"\1" * count
        self.missing -= count

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Runs (first, count) of tasks without an outcome."""
        first = self.covered.find(0)
        while first >= 0:
            end = self.covered.find(1, first)
            end = self.n_tasks if end < 0 else end
            yield first, end - first
            first = self.covered.find(0, end)


class Collector:
    """Looks for results of the watched submissions, often while they come and seldom while they do not.

    Every task has exactly one result (docs/protocol.md), so results are taken as they are found.

    Args:
        store: The session's store.
        keys: The session's keys.
        state: Its state; kept up to date here.
        clock: Time.
        news_s: Seconds between two looks at the session's events.
    """

    def __init__(self, store: Store, keys: Keys, state: SessionState, clock: Clock, *, news_s: float) -> None:
        self._store = store
        self._keys = keys
        self.state = state
        self._clock = clock
        self._news_s = news_s
        self._events = EventLog(store, keys)
        self._watched: dict[int, Watched] = {}
        self._fresh = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._details: dict[str, str] = {}

    def watch(self, watched: Watched) -> None:
        """Bring the results of a submission from now on."""
        if watched.missing == 0:
            return
        self._watched[watched.seq] = watched
        self._fresh.set()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.ensure_future(self._collect())

    def unwatch(self, seq: int) -> None:
        """Nobody waits for it any more."""
        self._watched.pop(seq, None)

    async def pause(self, seconds: float) -> None:
        """Wait so long, or less if meanwhile nothing is watched any more."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        looking = () if self._loop is None or self._loop.done() else (self._loop,)
        try:
            await asyncio.wait({sleeping, *looking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            await asyncio.gather(sleeping, return_exceptions=True)

    async def close(self) -> None:
        """Stop looking."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def fail_all(self, error: StarburstError) -> None:
        """No result will come any more."""
        waiting = list(self._watched.values())
        self._watched.clear()
        for watched in waiting:
            watched.on_error(error)

    async def sweep(self, watched: Watched) -> int:
        """Bring what is there now of one submission; the number of tasks that came."""
        listed = await self._store.list(self._keys.results(watched.seq))
        fresh = [info.key for info in listed if info.key not in watched.seen]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def fetch(key: str) -> int:
            async with gate:
                watched.seen.add(key)
                return await self._bring(watched, key)

        came = sum(await asyncio.gather(*map(fetch, fresh)))
        if watched.damaged and watched.missing:
            came += await self._fill_gaps(watched)
        if watched.missing <= 0:
            self._watched.pop(watched.seq, None)
            watched.on_run = watched.on_error = (
                _nothing  # they hold the results, which nobody may want any more
            )
        return came

    async def read_news(self) -> None:
        """Bring the session's state up to date."""
        for event in await self._events.news():
            self.state.apply(event)
            if event.what == "terminated":
                self._details[self.state.ended or ""] = str(event.data.get("detail", ""))
            elif event.what == "damaged" and (watched := self._watched.pop(event.data["batch"], None)):
                watched.on_error(CorruptObject(str(event.data["error"])))
            elif event.what == "cancelled":
                for seq in event.data.get("batches", ()):
                    if (
                        cancelled := self._watched.pop(seq, None)
                    ) is not None:  # not by us, we have unwatched
                        cancelled.on_error(SessionEnded(f"submission {seq} was cancelled by another client"))

    async def _collect(self) -> None:
        """Look at once after news, but not much more often than a fiftieth of the time that it takes anyway."""
        news_at = fresh_at = self._clock.monotonic()
        pause_s = self._store.poll.min_s
        failing_since: float | None = None
        while self._watched:
            try:
                came = sum([await self.sweep(watched) for watched in list(self._watched.values())])
                if self._clock.monotonic() - news_at >= self._news_s:
                    news_at = self._clock.monotonic()
                    await self._end_if_over()
                failing_since = None
            except StoreError as error:
                came = 0
                failing_since = failing_since or self._clock.monotonic()
                log.warning("results cannot be read just now: %s", error)
                if self._clock.monotonic() - failing_since >= patience_s():
                    self.fail_all(error)
            except Exception as error:
                log.exception("the collector failed")
                self.fail_all(StarburstError(f"results cannot be read: {type(error).__name__}: {error}"))
            if not self._watched:
                return
            now = self._clock.monotonic()
            if self._fresh.is_set():
                self._fresh.clear()
                fresh_at, pause_s = now, self._store.poll.min_s
            elif came:
                pause_s = max(self._store.poll.min_s, (now - fresh_at) / 50)
            pause_s = min(pause_s, self._store.poll.max_s)
            await self._clock.sleep(pause_s)
            pause_s *= 1.2

    async def _end_if_over(self) -> None:
        await self.read_news()
        name = self.state.name(self._clock.time())
        if name == "open":
            return
        for watched in list(self._watched.values()):
            await self.sweep(watched)  # the last results may have come after the last look
        named = address(self._store.url, self._keys.session_id)
        self.fail_all(ended(named, name, self._details.get(name, "")))

    async def _bring(self, watched: Watched, key: str) -> int:
        _, first = self._keys.parse_result(key)
        try:
            data = await self._store.get(key)
            watched.size_bytes += data.nbytes
            header, outcomes = decode_result(data, key)
        except CorruptObject as error:
            watched.damaged[first] = error
            return 0
        run = Run(
            watched.seq, first, _complete(header, outcomes), header.worker, header.task_s, header.retried
        )
        watched.cover(first, header.count)
        watched.on_run(run)
        return header.count

    async def _fill_gaps(self, watched: Watched) -> int:
        """Tasks whose result object is damaged fail once everything else is there."""
        marks = await read_done(self._store, self._keys, watched.seq)
        if sum(mark.ok + mark.failed for mark in marks) < watched.n_tasks:
            return 0
        came = 0
        for gap, length in list(watched.gaps()):
            # Each link hides what is between it and the next one.
            starts = [gap, *(first for first in sorted(watched.damaged) if gap < first < gap + length)]
            for first, end in zip(starts, [*starts[1:], gap + length], strict=True):
                error = watched.damaged[max((f for f in watched.damaged if f <= first), default=starts[-1])]
                failure = Failure(kind="load", message=error.message, type_name="CorruptObject")
                watched.cover(first, end - first)
                outcomes = [Outcome(failure=failure, error=error)] * (end - first)
                watched.on_run(Run(watched.seq, first, outcomes, ""))
                came += end - first
        return came


def ended(session: str, name: str, detail: str = "") -> SessionEnded:
    """The error for work on a session that has ended."""
    why = {
        "expired": "its absolute_timeout has passed",
        "idle": "it had nothing to do for its session_timeout",
        "cancelled": "it was cancelled",
        "closed": "it was closed",
        "left": "it was left by the program that made it",
        "failed": "its workers could not do their work",
    }.get(name, name)
    more = f": {detail}" if detail else ""
    return SessionEnded(
        f"session {session} takes no more work, {why}{more}",
        hint=f"finished results are kept: starburst collect {session} -o results.pickle"
        + ("" if name in ("cancelled", "closed", "left") else f"; to go on: starburst extend {session} 2h"),
    )


def _nothing(_: object) -> None:
    """For what needs no answer any more."""


def _complete(header: ResultHeader, outcomes: Iterator[Outcome]) -> list[Outcome]:
    """The outcomes of an object, all of them: a damaged frame takes its object's other tasks with it."""
    found: list[Outcome] = []
    try:
        found.extend(outcomes)
    except CorruptObject as error:
        failure = Failure(kind="load", message=error.message, type_name="CorruptObject")
        found += [Outcome(failure=failure, error=error)] * (header.count - len(found))
    return found
