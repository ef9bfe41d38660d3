"""The agent: one per worker. It claims chunks, keeps runners busy, flushes results and shows that it lives.

    board ──claim──▶ slot ──job──▶ runner (process)
                      │ ◀─runs────
                      └─flush──▶ results/<chunk>/<first>, done/<chunk>…

It takes store, clock and runner launcher as arguments, so that a whole system of agents can run in one process on a
virtual clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from starburst.clock import Clock
from starburst.errors import AccessDenied, StoreError, StoreFull
from starburst.protocol.keys import Keys
from starburst.protocol.records import Manifest
from starburst.protocol.sessions import EventLog, append_event
from starburst.protocol.state import SessionState
from starburst.store.base import Store
from starburst.worker.batch import Held
from starburst.worker.board import Board
from starburst.worker.code_layer import CodeLayers
from starburst.worker.gate import Gate
from starburst.worker.heartbeat import Pulse, State, Usage
from starburst.worker.objects_cache import ObjectCache
from starburst.worker.runner_process import RunnerLauncher, RunnerPort
from starburst.worker.slot import Slot

__all__ = ["Agent", "AgentOptions"]

log = logging.getLogger(__name__)
_DRAIN_S = 30.0
_CHECK_S = 0.05
_IDLE_CHECK_S = 0.25
_SURVEY_S = 0.04
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What one worker is told when it starts.

    Attributes:
        worker: Its name.
        ordinal: Its number among the workers.
        slots: How many tasks it runs at a time.
        memory_bytes: Memory that its runners may use together, or None.
        drain_s: Seconds that running tasks get to finish when it is asked to stop.
    """

    worker: str
    ordinal: int = 0
    slots: int = 1
    memory_bytes: int | None = None
    drain_s: float = _DRAIN_S


class Agent:
    """Works for a session until there is nothing to do, the session ends, or it is asked to stop.

    Args:
        store: The session's store.
        manifest: Its manifest.
        options: About this worker.
        clock: Time.
        launch_runner: Starts a runner.
        cache: Where large objects are kept.
        layers: Where code layers are unpacked; None where the program's own folders are used.
        usage: Measures CPU and memory for the heartbeat; None for those of this process and what it started.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        options: AgentOptions,
        *,
        clock: Clock,
        launch_runner: RunnerLauncher,
        cache: ObjectCache,
        layers: CodeLayers | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.clock = clock
        self.worker = options.worker
        self.keys = Keys(manifest.session_id)
        self.state = SessionState.of(manifest)
        self.flush_s = max(0.25, 2 * store.poll.max_s)
        self.stopping = ""
        self.gate = Gate()
        memory = options.memory_bytes
        self.runner_memory_bytes = None if memory is None else memory // options.slots
        self.board = Board(
            store,
            self.keys,
            manifest,
            worker=options.worker,
            ordinal=options.ordinal,
            clock=clock,
            state=self.state,
        )
        self.pulse = Pulse(
            store,
            self.keys,
            worker=options.worker,
            slots=options.slots,
            clock=clock,
            running=lambda: tuple(task for slot in self._slots if (task := slot.running())),
            usage=usage,
        )
        self._launch_runner = launch_runner
        self._cache = cache
        self._layers = layers
        self._drain_s = options.drain_s
        self._events = EventLog(store, self.keys)
        self._claiming = asyncio.Lock()
        self._looked_at = float("-inf")
        self._poll_s = store.poll.min_s
        self._busy_at = clock.monotonic()
        self._wanted = False
        self._slots = [Slot(self) for _ in range(options.slots)]

    async def run(self) -> str:
        """Work; returns why it stopped, in a few words."""
        await self.pulse.beat()
        await self._take_news()  # the deadline may have been extended, the session may have ended
        watches = [asyncio.ensure_future(self._pulse_loop()), asyncio.ensure_future(self._check_loop())]
        slots = [asyncio.ensure_future(slot.run()) for slot in self._slots]
        pending = {*slots}
        farewell: State = "stopped"
        try:
            while pending:
                done, pending = await asyncio.wait({*watches, *pending}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # an error of any of them ends the worker
                pending.difference_update(watches)
        except StoreFull as error:
            farewell, self.stopping = "refused", f"nothing could be written: {error.message}"
            raise
        finally:
            for task in (*watches, *slots):
                task.cancel()
            await asyncio.gather(*watches, *slots, return_exceptions=True)
            await self._withdraw_wanted()
            self.pulse.say(farewell, self.stopping or "an error of its own; see its log")
            with contextlib.suppress(StoreError):
                await self.pulse.beat()
        return self.stopping

    def stop(self, reason: str, *, at_once: bool = False) -> None:
        """Claim no more; give running tasks :attr:`AgentOptions.drain_s` (or no time) to finish."""
        if not self.stopping:
            log.info("stopping: %s", reason)
            self.stopping = reason
            self.pulse.say("draining", reason)
        for slot in self._slots:
            slot.drain(0.0 if at_once else self._drain_s)

    async def new_runner(self) -> RunnerPort:
        """Start a runner.

        Raises:
            OSError: It does not start.
        """
        return await self._launch_runner(self._cache.locate)

    async def code_folders(self, layer: str) -> tuple[str, ...]:
        """Where a code layer's modules are; nowhere if the program's own folders are used.

        Raises:
            StoreError: It cannot be had.
        """
        return () if self._layers is None else await self._layers.folders(layer)

    async def settle(self) -> None:
        """Wait until the last writes of all chunks that are not worked on any more are done."""
        writes = [write for slot in self._slots for write in slot.closing]
        if writes:
            await asyncio.wait(writes)

    async def next_held(self, *, fresh_only: bool = False) -> Held | None:
        """A chunk to work on, or None if there is none just now.

        Args:
            fresh_only: Leave chunks that others have given back or lost to idle workers.
        """
        async with self._claiming:
            if self.stopping:
                return None
            held = await self.board.claim_fresh()
            if held is None and await self._look_due() and await self.board.look_for_batches():
                held = await self.board.claim_fresh()
            if held is None and not fresh_only and self.board.open_batches:
                # Idle workers share the search for abandoned chunks, so that hundreds cost no more than a few.
                every_s = max(self._poll_s, self.manifest.workers * _SURVEY_S)
                held = await self.board.claim_abandoned(every_s=every_s)
            if held is not None:
                self._busy_at = self.clock.monotonic()
                self._poll_s = self.store.poll.min_s
                await self._withdraw_wanted()
            return held

    async def rest(self) -> None:
        """A slot has nothing to do: ask for a share if others are at work, then wait a little."""
        if not self._working and self.clock.monotonic() - self._busy_at >= self._patience_s:
            self.stop("nothing to do for the idle timeout")
            return
        if self.board.others_at_work and not self._wanted:
            self._wanted = True
            await self.store.overwrite(self.keys.wanted_by(self.worker), b"")
        elif not self.board.others_at_work:
            await self._withdraw_wanted()
        await self.clock.sleep(self._poll_s)
        self._poll_s = min(self._poll_s * 1.2, max(self.store.poll.max_s, self.manifest.workers * _POLL_S))

    async def askers(self) -> int:
        """How many other workers ask for a share."""
        listed = await self.store.list(self.keys.wanted)
        names = {info.key.rsplit("/", 1)[1] for info in listed}
        return len(names - {self.worker} - set(self.state.lost))

    async def _look_due(self) -> bool:
        now = self.clock.monotonic()
        due = now - self._looked_at >= self._poll_s * 0.9
        if due:
            self._looked_at = now
        return due

    async def _withdraw_wanted(self) -> None:
        if self._wanted:
            self._wanted = False
            with contextlib.suppress(StoreError):
                await self.store.delete([self.keys.wanted_by(self.worker)])

    async def _pulse_loop(self) -> None:
        """Beat and read events; nothing of it waits for user code."""
        beat_at, news_at = float("-inf"), self.clock.monotonic()
        while True:
            now = self.clock.monotonic()
            try:
                if now - news_at >= self.manifest.news_s:
                    news_at = now
                    await self._take_news()
                if now - beat_at >= self.manifest.heartbeat_s:
                    beat_at = now
                    await self.pulse.beat()
            except AccessDenied as error:
                log.warning("%s", error)
                self.stop(f"the store refuses this worker: {error.message}")
            except StoreError as error:
                log.warning("no heartbeat: %s", error)
            due_at = min(news_at + self.manifest.news_s, beat_at + self.manifest.heartbeat_s)
            soonest_s = min(_CHECK_S, self.manifest.heartbeat_s / 2)
            await self.clock.sleep(max(soonest_s, due_at - self.clock.monotonic()))

    async def _check_loop(self) -> None:
        """Enforce timeouts and deadlines; nothing of it waits for the store."""
        while True:
            if self.clock.time() >= self.state.deadline_at:
                self.stop("the session is expired", at_once=True)
            if self._working:
                self._busy_at = self.clock.monotonic()
            for slot in self._slots:
                slot.check(self.clock.monotonic())
            await self.clock.sleep(_CHECK_S if self._working else _IDLE_CHECK_S)

    async def _take_news(self) -> None:
        await self._read_events()
        for seq, error in self.board.damaged():
            data = {"batch": seq, "error": str(error)}
            await append_event(self.store, self.keys, self.clock, "damaged", by=self.worker, data=data)
        what = self.state.name(self.clock.time())
        if what != "open":
            self.stop(f"the session is {what}", at_once=what != "closed" or not self._working)
        elif self.worker in self.state.lost:
            self.stop("it was given up for lost and replaced", at_once=True)
        elif self.worker in self.state.dismissed:
            self.stop("it was sent away", at_once=True)

    async def _read_events(self) -> None:
        """Take new events into account; what cannot be read or understood changes nothing, as for supervisors."""
        for event in await self._events.news():
            self.state.apply(event)
        self.board.ordinal = self.state.ordinals.get(self.worker, self.board.ordinal)

    @property
    def _patience_s(self) -> float:
        """How long to stay without work: where others hold chunks, long enough to see whether they are lost."""
        idle_s = self.manifest.idle_timeout_s
        return max(idle_s, 1.5 * self.manifest.lease_s) if self.board.others_at_work else idle_s

    @property
    def _working(self) -> bool:
        return any(slot.busy for slot in self._slots)
