"""How a session is: one frozen snapshot, read from the store alone."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from starburst.client.abandoned import is_abandoned
from starburst.clock import Clock
from starburst.errors import CorruptObject, StoreError
from starburst.protocol.keys import ChunkId, Keys
from starburst.protocol.pack import PackIndex
from starburst.protocol.records import BatchHeader, Event, Heartbeat, Manifest, ResultHeader
from starburst.protocol.results import read_index
from starburst.protocol.sessions import EventLog, read_done, read_heartbeats
from starburst.protocol.state import SessionState
from starburst.store.base import RequestCounts, Store

__all__ = ["SessionStatus", "SessionSummary", "WorkerView", "read_batches", "read_status", "summary_of"]

_GONE = ("stopped", "refused")
_AT_ONCE = 16
_LASTING = ("session", "resume")


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as its last heartbeat shows it.

    Attributes:
        state: ``starting``, ``idle``, ``running``, ``draining``, ``stopped``, ``refused`` or ``lost``.
        task: A task that it runs, or None.
        cpu_percent: Of one core, since the heartbeat before.
        age_s: Seconds since its last heartbeat, by the clocks of both machines.
    """

    worker: str
    state: str
    task: str | None
    tasks_done: int
    tasks_failed: int
    cpu_percent: float
    memory_bytes: int
    age_s: float
    host: str
    pid: int
    reason: str


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of :func:`starburst.list_sessions`.

    Attributes:
        state: ``open``, ``finished`` (all done, and still open), ``expired``, ``idle``, ``cancelled``, ``closed``
            or ``failed``.
        created_at: Seconds since 1970.
        pending: Tasks that wait or run.
        workers: Workers that show signs of life.
        abandoned: It is open, but nobody looks after it and no worker lives: its program was killed or interrupted.
            ``collect`` goes on with it, ``cleanup`` ends it.
    """

    session_id: str
    kind: str
    state: str
    created_at: float
    total: int
    completed: int
    failed: int
    pending: int
    workers: int
    url: str
    abandoned: bool = False


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a session is.

    Attributes:
        state: As in :class:`SessionSummary`.
        deadline_at: When it ends whatever runs, seconds since 1970.
        total: Tasks submitted.
        pending: Of these, those that wait.
        running: Those that run now.
        completed: Those with a value.
        failed: Those without one.
        workers: Workers that show signs of life.
        worker_list: Every worker that ever was.
        events: What happened, in order.
        requests: Requests of the workers so far.
        abandoned: As in :class:`SessionSummary`.
    """

    session_id: str
    kind: str
    state: str
    launch_type: str
    created_at: float
    deadline_at: float
    total: int
    pending: int
    running: int
    completed: int
    failed: int
    workers: int
    worker_list: tuple[WorkerView, ...] = ()
    events: tuple[Event, ...] = ()
    requests: int = 0
    reason: str = ""
    abandoned: bool = False

    @property
    def failed_tasks(self) -> int:
        """Tasks without a value; another name of :attr:`failed`."""
        return self.failed

    def __repr__(self) -> str:
        return (
            f"<session {self.session_id}: {self.state}, {self.completed} of {self.total} tasks done, "
            f"{self.failed} failed, {self.running} running, {self.pending} pending, {self.workers} workers>"
        )

    def _repr_html_(self) -> str:
        cells = ("state", "total", "completed", "failed", "running", "pending", "workers")
        head = "".join(f"<th>{name}</th>" for name in cells)
        row = "".join(f"<td>{getattr(self, name)}</td>" for name in cells)
        return f"<table><caption>{self.session_id}</caption><tr>{head}</tr><tr>{row}</tr></table>"


async def read_batches(store: Store, keys: Keys) -> dict[int, tuple[BatchHeader, PackIndex] | CorruptObject]:
    """The index of every submission (not of shares), by number; the error where one is damaged."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def read(key: str) -> tuple[BatchHeader, PackIndex] | CorruptObject:
        async with gate:
            try:
                index = await read_index(store, key)
                return index.record(BatchHeader), index
            except CorruptObject as error:
                return error

    listed = [info.key for info in await store.list(keys.batches)]
    found = await asyncio.gather(*map(read, listed))
    return {
        int(key.rsplit("/", 1)[1]): entry
        for key, entry in zip(listed, found, strict=True)
        if isinstance(entry, CorruptObject) or entry[0].source is None
    }


async def read_status(store: Store, manifest: Manifest, clock: Clock) -> SessionStatus:
    """The session's state, from listings, the heads of its submissions and its workers' heartbeats."""
    keys = Keys(manifest.session_id)
    batches, marks, beats, events = await asyncio.gather(
        read_batches(store, keys),
        read_done(store, keys),
        read_heartbeats(store, keys),
        EventLog(store, keys).news(),
    )
    state = SessionState.of(manifest)
    reason = ""
    for event in events:
        state.apply(event)
        if event.what == "terminated":
            reason = str(event.data.get("detail", ""))
    now = clock.time()
    headers = [entry[0] for entry in batches.values() if not isinstance(entry, CorruptObject)]
    total = sum(header.n_tasks for header in headers)
    completed = sum(mark.ok for mark in marks)
    failed = sum(mark.failed for mark in marks)
    if completed + failed < total:
        ok, bad = await _count_unmarked(store, keys, {mark.chunk for mark in marks})
        completed, failed = completed + ok, failed + bad
    views = tuple(_view(beat, state, now, manifest.lease_s) for beat in beats)
    alive = [view for view in views if view.state not in (*_GONE, "lost")]
    left = total - completed - failed
    running = min(
        left, sum(len(beat.running) for beat, view in zip(beats, views, strict=True) if view in alive)
    )
    name = state.name(now)
    if name == "open" and manifest.kind in _LASTING and total and not left:
        name = "finished"
    abandoned = False
    if name == "open" and total and not alive:
        signs: list[Event | Heartbeat | BatchHeader] = [*events, *beats, *headers]
        last_sign_at = max(manifest.created_at, *(sign.at for sign in signs))
        abandoned = await is_abandoned(store, manifest, last_sign_at=last_sign_at, now=now)
    return SessionStatus(
        session_id=manifest.session_id,
        kind=manifest.kind,
        state=name,
        launch_type=manifest.launch_type,
        created_at=manifest.created_at,
        deadline_at=state.deadline_at,
        total=total,
        pending=left - running,
        running=running,
        completed=completed,
        failed=failed,
        workers=len(alive),
        worker_list=views,
        events=tuple(events),
        requests=sum(beat.requests for beat in beats),
        reason=reason,
        abandoned=abandoned,
    )


async def _count_unmarked(store: Store, keys: Keys, marked: set[ChunkId]) -> tuple[int, int]:
    """Tasks with and without a value in chunks that are not finished: what was flushed of them."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def count(key: str) -> tuple[int, int]:
        async with gate:
            try:
                header = (await read_index(store, key)).record(ResultHeader)
            except StoreError:
                return 0, 0
        bad = sum(segment.count for segment in header.segments if segment.kind == "failure")
        return header.count - bad, bad

    listed = [info.key for info in await store.list(keys.all_results)]
    counts = await asyncio.gather(*(count(key) for key in listed if keys.parse_result(key)[0] not in marked))
    return sum(ok for ok, _ in counts), sum(bad for _, bad in counts)


def summary_of(status: SessionStatus, url: str) -> SessionSummary:
    """The row of a session in a list."""
    return SessionSummary(
        session_id=status.session_id,
        kind=status.kind,
        state=status.state,
        created_at=status.created_at,
        total=status.total,
        completed=status.completed,
        failed=status.failed,
        pending=status.pending + status.running,
        workers=status.workers,
        url=url,
        abandoned=status.abandoned,
    )


def requests_of(store: Store, beats: list[Heartbeat]) -> RequestCounts:
    """Requests of this process and of the workers; theirs are not told apart by kind."""
    theirs: dict[str, Any] = {
        "get": sum(beat.requests for beat in beats),
        "bytes_in": sum(beat.bytes_in for beat in beats),
        "bytes_out": sum(beat.bytes_out for beat in beats),
    }
    return store.counts + RequestCounts(**theirs)


def _view(beat: Heartbeat, state: SessionState, now: float, lease_s: float) -> WorkerView:
    said = beat.state
    gone = beat.worker in state.lost or (said not in _GONE and now - beat.at > 2 * lease_s)
    return WorkerView(
        worker=beat.worker,
        state="lost" if gone and said not in _GONE else said,
        task=beat.running[0] if beat.running else None,
        tasks_done=beat.tasks_done,
        tasks_failed=beat.tasks_failed,
        cpu_percent=beat.cpu_percent,
        memory_bytes=beat.memory_bytes,
        age_s=max(0.0, now - beat.at),
        host=beat.host,
        pid=beat.pid,
        reason=state.lost.get(beat.worker, beat.reason),
    )
