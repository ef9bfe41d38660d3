"""The supervisor: looks, decides and acts, again and again, until the session is over or it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starburst.clock import Clock, Deadline
from starburst.compute.base import LaunchSpec, Provider, outcomes_of
from starburst.config import patience_s
from starburst.errors import ProviderError, StarburstError, StoreError
from starburst.protocol.keys import Keys, new_worker_id, session_url
from starburst.protocol.records import Manifest
from starburst.protocol.sessions import append_event
from starburst.store.base import Store
from starburst.supervisor.decide import (
    Action,
    GiveUp,
    Launch,
    RecordLost,
    RecordStopped,
    Snapshot,
    Stop,
    Terminate,
    decide,
    runs_of,
)
from starburst.supervisor.leader import Identity, Term, lead
from starburst.supervisor.observer import Observer
from starburst.supervisor.start import launch_place
from starburst.supervisor.tending import Tender
from starburst.supervisor.waiting import cancelled, unless

__all__ = ["Report", "Supervisor"]

log = logging.getLogger(__name__)

_LOCAL_TICK_S = 0.25
_DRAIN_S = 35.0
"""Running tasks get half a minute to finish when their worker is sent away; this is a little more."""
_GRACE_S = 10.0
_LOST_GRACE_S = 1.0
_WIND_DOWN_S = 240.0
"""A container has up to two minutes to end, and its outcome is still to be recorded then."""
_LAST_TEND_S = 30.0
_LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a supervisor saw and did last.

    Attributes:
        live: Workers that there are.
        starting: Of these, those that are on their way, and have somewhere to run.
        waiting: Of these, those that there is no machine for yet.
        open_tasks: Tasks that are not known to be finished.
        state: ``open``, ``expired`` or why the session ended.
        gave_up: Why no worker gets to work; None while there is hope.
        launched: Workers started since the supervisor began.
        lost: Workers lost since then.
        over: The session has ended and none of its workers is left.
    """

    live: int = 0
    starting: int = 0
    waiting: int = 0
    open_tasks: int = 0
    state: str = "open"
    gave_up: str | None = None
    launched: int = 0
    lost: int = 0
    over: bool = False


class Supervisor:
    """Keeps a session's workers alive, right in number and within their limits.

    Args:
        store: The session's store.
        manifest: Its manifest.
        provider: Who starts its workers.
        clock: Time.
        root_url: The store's URL, as workers are to open it.
        detached: Whether this supervisor outlives the client that started it.
        cwd: Folder for workers to start in; None for the one that the session was created in.
        env: Environment variables for workers.
        python: Their interpreter; None for the one that created the session.
        me: Who this supervisor is among those that want to lead.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        provider: Provider,
        clock: Clock,
        *,
        root_url: str,
        detached: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        python: str | None = None,
        me: Identity | None = None,
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._provider = provider
        self._clock = clock
        self._url = session_url(root_url, manifest.session_id)
        self._keys = Keys(manifest.session_id)
        self._me = me or Identity(detached=detached)
        place = launch_place(manifest, self._me.host)
        self._cwd = cwd or place[0]
        self._python = python or place[1]
        self._env = dict(env or {})
        self._observer = Observer(store, manifest, provider, clock)
        self._tender = Tender(provider, manifest.session_id, clock)
        self._ordinals: dict[str, int] = {}
        self._stops: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._term: Term | None = None
        self._complaint = ""
        self._gave_up: str | None = None
        self._waits_for = ""
        self._fell_back = False
        self._failing_since: float | None = None
        local = store.poll.max_s < _LOCAL_TICK_S
        self._tick_s = min(manifest.heartbeat_s, _LOCAL_TICK_S) if local else manifest.heartbeat_s
        self.report = Report()

    @property
    def deadline_at(self) -> float:
        """When the session ends, seconds since 1970, as far as we know."""
        return self._observer.state.deadline_at

    def wake(self) -> None:
        """Something was submitted: look now. To be called in the event loop that runs the supervisor."""
        self._changed.set()

    async def run(self, stop: asyncio.Event, *, wait: bool = False) -> Report | None:
        """Supervise until the session is over, ``stop`` is set, or another supervisor takes over.

        Workers are stopped when the session is over, and only then.

        Args:
            stop: Ends this supervisor; the workers go on.
            wait: Stand by while another supervisor is at work.

        Returns:
            The last report; None if another supervisor is at work and we did not wait, or the session was over.

        Raises:
            StarburstError: The store did not answer when we tried to become the supervisor; or the store or the
                provider did not do what was asked for longer than :func:`~starburst.config.patience_s`.
        """
        leading = asyncio.ensure_future(
            lead(self._store, self._manifest, self._clock, me=self._me, wait=wait, is_over=self._is_over)
        )
        self._term = term = await unless(stop, leading)
        if term is None:
            return None
        self._observer.begin_term()
        self._failing_since = None
        log.info("supervising session %s in term %d", self._manifest.session_id, term.number)
        keeping = asyncio.ensure_future(term.keep(self.wake))
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self.wake())
        try:
            await self._supervise(term, stop)
        finally:
            # Stops that still wait for their worker to go are not waited for: the next supervisor stops it again.
            await cancelled([keeping, stopping, *self._stops])
            await self._tender.cancel()
            await term.resign()
        return self.report

    async def tick(self) -> Report:
        """Look, decide and act once; what fails for now is logged and tried again at the next tick."""
        try:
            snapshot = await self._observer.look()
            if self._term is not None and not await self._term.confirm():
                return self.report
            actions = decide(snapshot)
            over = snapshot.over
            self._gave_up = None if snapshot.ended is None else self._gave_up
            for action in actions:
                over = await self._act(action, snapshot) and over
            await self._tell_who_waits()
            self._tender.begin()
            self._complaint = ""
            self._failing_since = None
        except StarburstError as error:
            if str(error) != self._complaint:
                log.warning("trying again: %s", error)
            self._complaint = str(error)
            if isinstance(error, StoreError):
                self._observer.excuse_silence()
            now = self._clock.monotonic()
            self._failing_since = now if self._failing_since is None else self._failing_since
            if now - self._failing_since >= patience_s():
                raise
            return self.report
        name = self._observer.state.name(self._clock.time())
        self.report = replace(
            self.report,
            live=snapshot.live,
            starting=snapshot.starting,
            waiting=snapshot.waiting,
            open_tasks=snapshot.open_tasks,
            state=name,
            gave_up=self._gave_up,
            over=over,
        )
        return self.report

    async def _supervise(self, term: Term, stop: asyncio.Event) -> None:
        wind_down: Deadline | None = None
        pause_s = self._tick_s
        while not stop.is_set() and not term.deposed:
            self._changed.clear()
            report = await self.tick()
            if report.over:
                await self._record_outcomes()
                await self._tender.finish(_LAST_TEND_S)
                return
            if report.state == "open":
                wind_down = None
            elif wind_down is None:
                wind_down = Deadline(self._clock, _WIND_DOWN_S)
            elif wind_down.passed:
                log.error("the session is %s, but its workers do not go; leaving", report.state)
                return
            quiet = not report.open_tasks and report.state == "open"
            pause_s = min(pause_s * 1.5, self._manifest.heartbeat_s) if quiet else self._tick_s
            if not stop.is_set() and not term.deposed:
                await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        began_s = self._clock.monotonic()
        await unless(self._changed, asyncio.ensure_future(self._clock.sleep(seconds)))
        # Many submissions in a row wake us once, not once each.
        await self._clock.sleep(self._tick_s / 5 - (self._clock.monotonic() - began_s))

    async def _is_over(self) -> bool:
        await self._observer.news()
        return self._observer.state.name(self._clock.time()) != "open"

    async def _act(self, action: Action, snapshot: Snapshot) -> bool:
        """Do it; False if it has to be tried again before the session may be left."""
        match action:
            case Launch(count):
                await self._launch(count, snapshot)
            case Stop(workers, reason, drain):
                self._stop(workers, reason, drain=drain)
            case RecordLost(worker, reason):
                log.warning("worker %s is lost: %s", worker, reason)
                details = self._observer.details_of(worker)
                if await self._note("worker-lost", worker=worker, reason=reason, **details):
                    self.report = replace(self.report, lost=self.report.lost + 1)
            case RecordStopped(worker, reason):
                details = self._observer.details_of(worker)
                if await self._note("worker-stopped", worker=worker, reason=reason, **details):
                    self._observer.left(worker)
            case Terminate(reason):
                if snapshot.ended is None:
                    if not await self._note("terminated", reason=reason):
                        return False
                    await self._observer.news()  # so that this tick's report, which may be the last, says so
            case GiveUp(reason):
                await self._give_up(reason)
        return True

    async def _launch(self, count: int, snapshot: Snapshot) -> None:
        counting = [view.name for view in snapshot.workers if view.counts]
        self._ordinals = {name: self._ordinals[name] for name in counting if name in self._ordinals}
        taken = {self._ordinal_of(name) for name in counting}
        free = [number for number in range(count + len(taken)) if number not in taken][:count]
        for first, length in runs_of(free):
            names = tuple(new_worker_id() for _ in range(length))
            spec = LaunchSpec(
                session_url=self._url,
                session_id=self._manifest.session_id,
                workers=names,
                first_ordinal=first,
                slots=self._manifest.slots,
                cwd=self._cwd,
                env=self._env,
                python=self._python,
                deadline_at=snapshot.deadline_at,
            )
            try:
                launched = await self._provider.launch(spec)
            except ProviderError as error:
                log.warning("%d workers could not be started: %s", length, error)
                self._observer.launch_failed(str(error))
                return
            names = tuple(status.worker for status in launched.workers)
            if names:
                self._observer.launched(names)
                self._ordinals.update(zip(names, range(first, first + len(names)), strict=True))
                self.report = replace(self.report, launched=self.report.launched + len(names))
                log.info("started %s", ", ".join(names))
                await self._note("worker-started", workers=names, first=first)
            if launched.fallback and not self._fell_back:
                await self._tell_waiting(count, launched.fallback)
            self._fell_back = bool(launched.fallback)
            if launched.shortfall:
                await self._fell_short(length - len(names), launched.shortfall)
                return

    async def _fell_short(self, missing: int, why: str) -> None:
        """There is no room for more workers just now: go on with those that there are, and try again later."""
        if self._observer.launch_short(why):
            await self._tell_waiting(missing, why)

    async def _tell_who_waits(self) -> None:
        """Workers that were taken on may have to wait, too; it is told once, and again if the reason changes."""
        missing, why = self._observer.waits
        if why and why != self._waits_for:
            await self._tell_waiting(missing, why)
        self._waits_for = why

    async def _tell_waiting(self, missing: int, why: str) -> None:
        log.warning("%d workers have to wait: %s", missing, why)
        await self._note("workers-waiting", missing=missing, reason=why)

    async def _record_outcomes(self) -> None:
        """Of those that left with the session: their provider may forget them within the hour."""
        if outcomes := outcomes_of(self._observer.unrecorded()):
            await self._note("workers-left", workers=outcomes)

    def _ordinal_of(self, worker: str) -> int:
        """The number of a worker; those that others started get the lowest that is free."""
        if worker not in self._ordinals:
            used = set(self._ordinals.values())
            self._ordinals[worker] = next(n for n in range(len(used) + 1) if n not in used)
        return self._ordinals[worker]

    def _stop(self, workers: Sequence[str], reason: str, *, drain: bool) -> None:
        """Stop workers while the loop goes on: they may take their time."""
        log.info("stopping %s: %s", ", ".join(workers), reason)
        self._observer.stopping.update(workers)
        self._observer.asked.update(workers)
        grace_s = _DRAIN_S if drain else _LOST_GRACE_S if reason == "lost" else _GRACE_S
        task = asyncio.ensure_future(self._stop_now(workers, grace_s))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _stop_now(self, workers: Sequence[str], grace_s: float) -> None:
        try:
            await self._provider.stop(self._manifest.session_id, workers, grace_s=grace_s)
        except ProviderError as error:
            log.warning("%s", error)
        finally:
            self._observer.stopping.difference_update(workers)
            self.wake()

    async def _give_up(self, reason: str) -> None:
        worker = self._observer.last_early_death
        if worker is not None:
            with contextlib.suppress(ProviderError):
                tail = await self._provider.logs(
                    self._manifest.session_id, worker, offset_bytes=-_LOG_TAIL_BYTES
                )
                if tail.strip():
                    reason = f"{reason}\nLast lines of {worker}:\n{tail.decode(errors='replace').strip()}"
        log.error("giving up: %s", reason)
        self._gave_up = reason
        await self._note("terminated", reason="failed", detail=reason)

    async def _note(self, what: str, **data: Any) -> bool:
        """Write an event; one that cannot be written now is written when the same is decided again."""
        try:
            await append_event(self._store, self._keys, self._clock, what, by="supervisor", data=data)
        except StoreError as error:
            log.warning("the event %r was not recorded: %s", what, error)
            return False
        return True
