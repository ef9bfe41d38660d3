"""What a supervisor sees: the session in the store and its workers at the provider, as a :class:`Snapshot`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from starburst.clock import Clock
from starburst.compute.base import Provider, ProviderStatus
from starburst.errors import CorruptObject, IncompatibleVersion, ObjectNotFound
from starburst.protocol.keys import Keys
from starburst.protocol.records import BatchHeader, Event, Heartbeat, Manifest
from starburst.protocol.results import read_index
from starburst.protocol.sessions import EventLog, list_batches
from starburst.protocol.state import SessionState
from starburst.store.base import Store
from starburst.supervisor.decide import Snapshot, WorkerView, early_death_limit
from starburst.supervisor.heartbeats import STARTUP_S, Heartbeats
from starburst.supervisor.ledger import Ledger

__all__ = ["Observer"]

log = logging.getLogger(__name__)


class Observer:
    """Reads what is new in a session, with few requests: two listings, two more while there is work.

    Args:
        store: The session's store.
        manifest: Its manifest.
        provider: Who starts its workers.
        clock: Time.

    Attributes:
        state: What the session's events add up to.
        stopping: Workers that we asked to stop and that are not gone yet.
        asked: All workers that we ever asked to stop.
    """

    def __init__(self, store: Store, manifest: Manifest, provider: Provider, clock: Clock) -> None:
        self._store = store
        self._manifest = manifest
        self._provider = provider
        self._clock = clock
        self._keys = Keys(manifest.session_id)
        self._events = EventLog(store, self._keys)
        self._heartbeats = Heartbeats(store, self._keys, manifest)
        self._ledger = Ledger(self._keys)
        self._last_batch = 0
        self._launched: dict[str, float] = {}
        self._known: dict[str, float] = {}
        self._left: set[str] = set()
        self._complaints: set[str] = set()
        self._activity_s = self._changed_s = clock.monotonic()
        self._bored_s = float("-inf")
        self._early: dict[str, str] = {}
        self._results = 0
        self._launch_failures = 0
        self._last_failure = ""
        self._shortfalls = 0
        self._rounds_taken = 0
        self._taken: set[str] = set()
        self._short_of = ""
        self._short_s = float("-inf")
        self._statuses: dict[str, ProviderStatus] = {}
        self._trouble_s = float("-inf")
        self.state = SessionState.of(manifest)
        self.stopping: set[str] = set()
        self.asked: set[str] = set()

    @property
    def last_early_death(self) -> str | None:
        """The last worker that died without having got to work."""
        return next(reversed(self._early), None)

    def begin_term(self) -> None:
        """We have become the supervisor, perhaps once more: what was before is not held against those to come."""
        self._launched.clear()
        self._early.clear()
        self._launch_failures = self._shortfalls = 0
        self._short_s = float("-inf")

    def excuse_silence(self) -> None:
        """We cannot write just now, so workers may not be able to either."""
        self._heartbeats.excuse(self._clock.monotonic())

    async def news(self) -> None:
        """Take the session's new events into account; what cannot be read or understood changes nothing."""
        for event in await self._events.news():
            try:
                self._apply(event)
            except (KeyError, TypeError, ValueError) as error:
                self._complain(f"event {event.what!r} makes no sense: {error!r}")

    async def look(self) -> Snapshot:
        """What there is now.

        Raises:
            StoreError: The store does not answer.
            ProviderError: The provider does not.
        """
        # In this order: a worker says good-bye before its process ends, and a chunk is announced before it is done.
        listed = await self._provider.describe(self._manifest.session_id)
        await self.news()
        await self._look_at_work()
        open_tasks = self._ledger.open_tasks(self.state.cancelled_batches)
        statuses = {status.worker: status for status in listed if not status.worker.startswith("supervisor-")}
        self._statuses = statuses
        now_s = self._clock.monotonic()
        if open_tasks or any(worker not in self._gone for worker in statuses):
            await self._heartbeats.look(now_s)
        for status in statuses.values():
            if status.state in ("running", "unknown"):
                self._heartbeats.expect(now_s, status.worker)
        views = self._views(statuses, now_s)
        await self._heartbeats.read(self._worth_reading(views))
        views = self._views(statuses, now_s)
        if self._draw_conclusions(views):
            await self._excuse_those_with_results()
            if self._in_trouble or any(view.hopeless and not view.recorded for view in views):
                # Before anybody gives up: is there one that works?
                await self._heartbeats.read([view.name for view in views if view.counts])
                views = self._views(statuses, now_s)
        return self._snapshot(tuple(views), open_tasks, now_s)

    def launched(self, workers: tuple[str, ...]) -> None:
        """The provider took these; it may not list them at once."""
        self._launched.update(dict.fromkeys(workers, self._clock.monotonic()))
        self._launch_failures = 0
        self._shortfalls = 0

    def launch_failed(self, reason: str) -> None:
        """The provider refused a launch."""
        self._launch_failures += 1
        self._last_failure = reason
        self._trouble_s = self._clock.monotonic()

    def launch_short(self, reason: str) -> bool:
        """The provider has no room for more just now; True if that is news."""
        news = not self._shortfalls or reason != self._short_of
        self._shortfalls += 1
        self._short_of, self._short_s = reason, self._clock.monotonic()
        return news

    def details_of(self, worker: str) -> Mapping[str, str]:
        """What the provider told of a worker beside its state."""
        status = self._statuses.get(worker)
        return {} if status is None else status.details

    @property
    def waits(self) -> tuple[int, str]:
        """How many workers do not start for want of quota or capacity, and what their provider says of that."""
        reasons = [status.waits_for for status in self._statuses.values() if status.waits_for]
        return len(reasons), reasons[0] if reasons else ""

    def unrecorded(self) -> list[ProviderStatus]:
        """What the provider told last of workers that no event tells of."""
        return [status for worker, status in self._statuses.items() if worker not in self._gone]

    def left(self, worker: str) -> None:
        """It was recorded that a worker left in good order."""
        self._left.add(worker)

    @property
    def _gone(self) -> set[str]:
        return self._left | self.state.lost.keys()

    def _apply(self, event: Event) -> None:
        if event.what == "worker-stopped":
            self._left.add(str(event.data["worker"]))
        elif event.what in ("extended", "scaled"):
            self._active()
            self._early.clear()
            self._launch_failures = 0
            self._short_s = float("-inf")
            if self.state.ended:  # and goes on: what kept our workers from working then may be over, too
                self._launched.clear()
        self.state.apply(event)

    async def _look_at_work(self) -> None:
        for seq, info in await list_batches(self._store, self._keys, after=self._last_batch):
            try:
                header = (await read_index(self._store, info.key)).record(BatchHeader)
            except (CorruptObject, IncompatibleVersion, ObjectNotFound) as error:
                self._complain(f"a submission is not counted: {error}")
            else:
                self._ledger.add_batch(seq, header)
                self._active()
            self._last_batch = seq
        cancelled = self.state.cancelled_batches
        if not self._ledger.open_tasks(cancelled):
            return
        before = self._ledger.done
        after = self._ledger.done_after(cancelled)
        for info in await self._store.list(self._keys.done_marks(), start_after=after):
            self._ledger.add_done(self._keys.parse_done(info.key))
        if self._ledger.done != before:
            self._activity_s = self._clock.monotonic()
            self._early.clear()

    async def _excuse_those_with_results(self) -> None:
        """A worker may have died before a heartbeat told that it had got to work; results tell it, too."""
        results = len(await self._store.list(self._keys.all_results))
        if results > self._results:
            self._results = results
            self._early.clear()

    def _active(self) -> None:
        self._activity_s = self._changed_s = self._clock.monotonic()

    def _views(self, statuses: dict[str, ProviderStatus], now_s: float) -> list[WorkerView]:
        views = [self._view(status, now_s) for status in statuses.values()]
        for worker, at_s in self._launched.items():
            if worker not in statuses and worker not in self._heartbeats.names and now_s - at_s < STARTUP_S:
                views.append(WorkerView(name=worker, provider_state="starting", age_s=now_s - at_s))
        views += [
            replace(self._base(worker, now_s), silent=self._heartbeats.is_silent(worker))
            for worker in self._heartbeats.names
            if worker not in statuses
        ]
        return views

    def _view(self, status: ProviderStatus, now_s: float) -> WorkerView:
        return replace(
            self._base(status.worker, now_s),
            provider_state=status.state,
            placed=status.placed,
            failed=status.state == "exited" and status.exit_code not in (0, None),
            exit_reason=status.reason if status.state == "exited" else "",
            taken=status.taken,
            hopeless=status.hopeless and status.state == "exited",
        )

    def _base(self, worker: str, now_s: float) -> WorkerView:
        heartbeat = self._heartbeats.get(worker)
        return WorkerView(
            name=worker,
            provider_state="foreign",
            begun=worker in self._heartbeats.names,
            heartbeat_state=None if heartbeat is None else heartbeat.state,
            lost=self._heartbeats.is_lost(worker),
            stopping=worker in self.stopping,
            recorded=worker in self._gone,
            inherited=worker not in self._launched,
            reason="" if heartbeat is None else heartbeat.reason,
            age_s=now_s - self._known.setdefault(worker, now_s),
        )

    def _worth_reading(self, views: list[WorkerView]) -> list[str]:
        """Who is gone or may be, who joined by hand, and everybody where it matters who is idle or at work."""
        live = sum(view.counts for view in views)
        everybody = live > self.state.workers or self._in_trouble
        return [
            view.name
            for view in views
            if not view.recorded
            and (
                view.provider_state == "exited"
                or view.lost
                or (
                    view.provider_state == "foreign"
                    and (view.silent or self._heartbeats.get(view.name) is None)
                )
                or (everybody and view.counts)
            )
        ]

    @property
    def _in_trouble(self) -> bool:
        return len(self._early) >= early_death_limit(self.state.workers)

    def _draw_conclusions(self, views: list[WorkerView]) -> bool:
        """From those that are newly gone: is there too little work, more work again, or something wrong?

        Returns:
            Whether one died before it got to work.
        """
        now_s = self._clock.monotonic()
        died_early = taken = False
        for view in views:
            if view.recorded or not (view.provider_state == "exited" or view.left or view.lost):
                continue
            if view.left and "idle" in view.reason:
                self._bored_s = now_s
            elif view.name not in self.asked:
                self._changed_s = now_s
                ours = view.name in self._launched and view.name not in self._early
                if _got_to_work(self._heartbeats.get(view.name)):
                    self._early.clear()
                    self._rounds_taken = 0
                elif ours and view.taken and view.name not in self._taken:
                    self._taken.add(view.name)
                    taken = True
                elif ours and not view.left and not view.taken:
                    self._early[view.name] = view.exit_reason or "no sign of life"
                    self._trouble_s = now_s
                    died_early = True
        if taken:  # before they got to work: as if there had been no room for them
            self._rounds_taken += 1
            self._short_s = now_s
        return died_early

    def _snapshot(self, views: tuple[WorkerView, ...], open_tasks: int, now_s: float) -> Snapshot:
        return Snapshot(
            now_s=now_s,
            wall_s=self._clock.time(),
            target_workers=self.state.workers,
            slots=self._manifest.slots,
            open_tasks=open_tasks,
            last_activity_s=self._activity_s,
            deadline_at=self.state.deadline_at,
            ended=self.state.ended,
            session_timeout_s=self._manifest.session_timeout_s,
            early_deaths=len(self._early),
            last_death=next(reversed(self._early.values()), ""),
            launch_failures=self._launch_failures,
            last_failure=self._last_failure,
            last_trouble_s=self._trouble_s,
            shortfalls=max(self._shortfalls, self._rounds_taken),
            short_s=self._short_s,
            sated=self._bored_s - self._changed_s >= self._manifest.idle_timeout_s,
            workers=views,
        )

    def _complain(self, message: str) -> None:
        if message not in self._complaints:
            self._complaints.add(message)
            log.error("%s", message)


def _got_to_work(heartbeat: Heartbeat | None) -> bool:
    if heartbeat is None:
        return False
    return heartbeat.state == "running" or heartbeat.tasks_done + heartbeat.tasks_failed > 0
