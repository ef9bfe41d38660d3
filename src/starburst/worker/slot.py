"""A slot: one runner and the chunk that it works on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from starburst.errors import CorruptObject, StarburstError
from starburst.protocol.chunking import split_evenly
from starburst.protocol.pack import decode_pack
from starburst.protocol.records import BatchHeader, Failure, Manifest
from starburst.protocol.results import Run
from starburst.protocol.state import SessionState
from starburst.worker.batch import Held
from starburst.worker.gate import Gate
from starburst.worker.heartbeat import Pulse
from starburst.worker.holding import Holding, Office
from starburst.worker.ipc import Job
from starburst.worker.runner_process import Crash, RunnerPort

__all__ = ["Foreman", "Slot"]

log = logging.getLogger(__name__)

_FLUSH_BYTES = 8 * 2**20
_MAX_CLOSING = 4
_WORTH_SHARING = 4.0
"""What is shared out must take this many times as long as a look into the store."""


class Foreman(Office, Protocol):
    """What a slot needs of its agent."""

    manifest: Manifest
    state: SessionState
    pulse: Pulse
    stopping: str
    flush_s: float
    gate: Gate
    runner_memory_bytes: int | None

    async def next_held(self, *, fresh_only: bool = False) -> Held | None:
        """A chunk to work on."""
        ...

    async def rest(self) -> None:
        """Wait for work."""
        ...

    async def askers(self) -> int:
        """How many workers ask for a share."""
        ...

    async def new_runner(self) -> RunnerPort:
        """Start a runner."""
        ...

    async def code_folders(self, layer: str) -> tuple[str, ...]:
        """Where a code layer's modules are."""
        ...

    async def settle(self) -> None:
        """Wait until the last writes of all chunks that are not worked on any more are done."""
        ...


class Slot:
    """Runs one task at a time.

    Args:
        agent: Whose slot it is.
    """

    def __init__(self, agent: Foreman) -> None:
        self._agent = agent
        self.holding: Holding | None = None
        self.busy = False
        self._next: Held | None = None
        self._runner: RunnerPort | None = None
        self._known: set[str] = set()
        self._code: str | None = None
        self._job = 0
        self._running = False
        self._kill_at: float | None = None
        self._shared_at = 0.0
        self._crashes: dict[int, int] = {}
        self._one_by_one = False
        self._verdict: tuple[int, Failure] | None = None
        self.closing: list[asyncio.Task[None]] = []
        self._sharing: asyncio.Task[None] | None = None
        self._prefetching: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until the agent stops."""
        agent = self._agent
        starting = asyncio.ensure_future(agent.new_runner())
        try:
            while True:
                held = await self._take_next() or await agent.next_held()
                if held is None:
                    await self._settle(0)
                    if agent.stopping:
                        break
                    await agent.rest()
                    continue
                self.busy = True  # while its runner starts, too
                if self._runner is None:
                    self._runner = await starting
                await self._hold(Holding(agent, held))
                self.busy = False
        finally:
            # After an error something may still be under way: it ends here, nobody is left to hear of it.
            left = [work for work in (*self.closing, self._sharing, self._prefetching) if work is not None]
            for work in left:
                work.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.wait([starting])
            if self._runner is None and not starting.exception():
                self._runner = starting.result()
            if self._runner is not None:
                await self._runner.close()

    def drain(self, seconds: float) -> None:
        """Stop after the present task, which gets ``seconds`` to finish."""
        at = self._agent.clock.monotonic() + seconds
        if self._kill_at is None and self._running and self._runner is not None:
            asyncio.ensure_future(self._runner.trim(self._job, 0))  # noqa: RUF006 - its answer does not matter
        self._kill_at = at if self._kill_at is None else min(at, self._kill_at)

    def running(self) -> str | None:
        """The id of the task that runs now."""
        if not self._running or self._runner is None or self.holding is None:
            return None
        task, _ = self._runner.current()
        return f"{self.holding.held.batch.seq:06d}-{task:08d}" if task >= 0 else None

    def check(self, now: float) -> None:
        """Enforce what must hold while user code runs: timeout, memory, cancelling, the end of draining."""
        runner, holding = self._runner, self.holding
        if runner is None or holding is None or not self._running:
            return
        task, since = runner.current()
        limit_s = holding.held.batch.header.timeout_s
        memory = self._agent.runner_memory_bytes
        if self._is_cancelled(holding):
            runner.kill("cancelled")
        elif self._kill_at is not None and now >= self._kill_at:
            runner.kill("stopped")
        elif task >= 0 and limit_s is not None and now - since >= limit_s:
            runner.kill("timeout")
        elif memory is not None and (used := runner.memory_bytes()) > memory:
            runner.kill(f"out of memory: it held {used / 2**20:.0f} MB of {memory / 2**20:.0f} MB")
        if now - holding.flushed_at >= self._agent.flush_s:
            holding.start_flush(lambda: runner.kill("superseded") if self._running else None)
        if now - self._shared_at >= self._agent.flush_s and (self._sharing is None or self._sharing.done()):
            self._shared_at = now
            self._sharing = asyncio.ensure_future(self._share_out(holding, runner))

    async def _hold(self, holding: Holding) -> None:
        """Work on a chunk; its last results are written while the next chunk runs."""
        self.holding = holding
        self._crashes.clear()
        self._one_by_one = False
        self._verdict = None
        attempt, last = holding.held.attempt, self._agent.manifest.max_attempts
        # A chunk that has cost workers may cost this one: nothing else must be lost with it.
        suspect = attempt > 1
        if suspect:
            await self._settle(0)
        async with self._agent.gate.enter(alone=suspect and attempt >= last):
            if attempt >= last:
                await self._agent.settle()
            if attempt > last:
                await self._single_out(holding)
            else:
                await self._work(holding)
            if suspect:
                await holding.flush_all()
        self.holding = None
        await self._settle(_MAX_CLOSING)
        self.closing.append(asyncio.ensure_future(holding.close()))

    async def _take_next(self) -> Held | None:
        """The chunk in reserve; given back if we stop.

        To claim it may take a while in a crowd. What is finished is on its way to the store meanwhile.
        """
        if self._prefetching is not None:
            prefetching, self._prefetching = self._prefetching, None
            await prefetching
        held, self._next = self._next, None
        if held is not None and self._agent.stopping:
            await Holding(self._agent, held).close()
            return None
        return held

    async def _settle(self, at_most: int) -> None:
        """Wait until at most so many chunks wait for their last writes; errors of those come up here."""
        while len(self.closing) > at_most or (self.closing and self.closing[0].done()):
            await self.closing[0]
            del self.closing[0]

    async def _work(self, holding: Holding, *, until: int | None = None) -> None:
        """Run the chunk's tasks, or those before ``until``, past every crash of the runner."""
        agent, held = self._agent, holding.held
        header = held.batch.header
        self._shared_at = agent.clock.monotonic()
        _, first, count = held.batch.frame_of(held.chunk.first)
        try:
            frame = await agent.board.fetch(held)
            await self._use_code(header)
            await self._give_function(header.function)
        except StarburstError as error:
            while not holding.done:
                self._fail(holding, Failure(kind="load", message=str(error), type_name=type(error).__name__))
            return
        self._prefetching = asyncio.ensure_future(self._prefetch(held))
        while True:
            await holding.resume()
            self._apply_verdict(holding)
            if holding.position >= (until or held.end) or self._is_over(holding):
                break
            self._job += 1
            end = self._verdict[0] if self._verdict is not None else (until or held.end)
            if self._one_by_one:
                end = holding.position + 1
            job = Job(
                job=self._job,
                batch=held.batch.seq,
                first=first,
                count=count,
                start=holding.position,
                end=end,
                function=header.function,
                layout=header.layout,
                retries=header.retries,
                attempt=held.attempt + self._crashes.get(holding.position, 0),
            )
            assert self._runner is not None
            self._running = True
            crash = await self._runner.run(job, frame, lambda run: self._take(holding, run))
            self._running = False
            if crash is not None:
                await self._after_crash(holding, crash, end)
        if self._sharing is not None:
            await self._sharing

    def _is_cancelled(self, holding: Holding) -> bool:
        return holding.held.batch.seq in self._agent.state.cancelled_batches

    def _is_over(self, holding: Holding) -> bool:
        """Whether no further job may start."""
        return self._kill_at is not None or holding.superseded or self._is_cancelled(holding)

    def _take(self, holding: Holding, run: Run) -> None:
        """The runner finished some tasks."""
        holding.take(run)
        self._agent.pulse.count(run)
        if holding.unflushed_bytes >= _FLUSH_BYTES:
            runner = self._runner
            holding.start_flush(lambda: runner.kill("superseded") if runner and self._running else None)

    def _fail(self, holding: Holding, failure: Failure) -> None:
        self._agent.pulse.count(holding.fail(failure))

    async def _after_crash(self, holding: Holding, crash: Crash, end: int) -> None:
        """Start another runner, and judge the task that the old one died on.

        Tasks before it that were finished but not reported yet run again first.
        """
        agent, held = self._agent, holding.held
        assert self._runner is not None
        if crash.reason == "timeout":
            limit_s = held.batch.header.timeout_s
            message = f"it ran longer than its timeout of {limit_s:g} s and was stopped"
            self._verdict = (crash.task, Failure(kind="timeout", message=message, output=crash.output))
        elif crash.task < 0 and end - holding.position > 1:
            # It died between two tasks: which of them did it shows when each has a process to itself.
            self._one_by_one = True
        elif crash.reason not in ("stopped", "cancelled", "superseded"):
            task = crash.task if crash.task >= 0 else holding.position
            n = self._crashes[task] = self._crashes.get(task, 0) + 1
            attempts = n + (held.attempt - 1 if task == held.log[-1].position else 0)
            log.warning("task %06d-%08d took its process down: %s", held.batch.seq, task, crash.reason)
            if attempts >= agent.manifest.max_attempts:
                message = f"its process died each time it ran, {attempts} times: {crash.reason}"
                failure = Failure(kind="lost", message=message, output=crash.output, attempt=attempts)
                self._verdict = (task, failure)
        await self._renew_runner()
        await self._use_code(held.batch.header)
        await self._give_function(held.batch.header.function)

    async def _renew_runner(self) -> None:
        assert self._runner is not None
        await self._runner.close()
        self._known.clear()
        self._code = None
        self._runner = await self._agent.new_runner()

    async def _use_code(self, header: BatchHeader) -> None:
        """See that the runner imports the submission's code: one that has imported other code cannot unlearn it."""
        code = header.layer or header.edition
        if code == self._code:
            return
        if self._code is not None:
            await self._renew_runner()
        assert self._runner is not None
        if header.layer:
            await self._runner.use_code(await self._agent.code_folders(header.layer))
        self._code = code

    def _apply_verdict(self, holding: Holding) -> None:
        """The task that was judged fails when its turn comes, unless another worker was not dead and finished it."""
        if self._verdict is not None and holding.position >= self._verdict[0]:
            task, failure = self._verdict
            self._verdict = None
            if holding.position == task:
                self._fail(holding, failure)

    async def _give_function(self, sha256: str) -> None:
        agent = self._agent
        if sha256 in self._known:
            return
        key = agent.keys.function(sha256)
        pack = decode_pack(await agent.store.get(key), key)
        assert self._runner is not None
        await self._runner.give_function(sha256, pack.frame(0))
        self._known.add(sha256)

    async def _prefetch(self, present: Held) -> None:
        """Claim the next chunk, and fetch its arguments, while the present one runs, unless that is suspect."""
        if present.attempt > 1:
            return
        held = self._next = await self._agent.next_held(fresh_only=True)
        if held is not None:
            with contextlib.suppress(CorruptObject):  # it is met again, and told, when the chunk's turn comes
                await self._agent.board.fetch(held)

    async def _single_out(self, holding: Holding) -> None:
        """The chunk has cost too many workers: each of its tasks becomes a chunk of its own, one after another lost.

        The first one left runs alone; if it was alone already, or is the only one, it fails. Its flush shuts out
        all earlier holders, so that the others may be shared out.
        """
        agent, held = self._agent, holding.held
        attempts = held.attempt - 1
        if held.end - held.position == 1 or attempts > agent.manifest.max_attempts:
            lost = [agent.state.lost[r.worker] for r in held.log if r.worker in agent.state.lost]
            why = lost[-1] if lost else "it gave no sign of life any more"
            message = f"its worker was lost each time it ran, {attempts} times; the last time: {why}"
            self._fail(holding, Failure(kind="lost", message=message, attempt=attempts))
        else:
            await self._work(holding, until=held.position + 1)
        await holding.flush_all()
        if held.fenced and held.position < held.end and not self._is_over(holding):
            await holding.give_away([(task, task + 1) for task in range(held.position, held.end)])

    async def _share_out(self, holding: Holding, runner: RunnerPort) -> None:
        """Give idle workers what they could do sooner: the chunk in reserve, else the rest of this one."""
        agent, held = self._agent, holding.held
        rest = held.end - holding.position - 1
        if agent.stopping or (self._next is None and rest < 1):
            return
        askers = await agent.askers()
        if askers and self._next is not None:
            given, self._next = self._next, None
            await Holding(agent, given).release()
        elif askers and held.fenced and self._verdict is None and self._is_worth_sharing(holding, runner):
            task, _ = runner.current()
            keep = task + 1 + (held.end - task - 1) // (askers + 1)
            end = await runner.trim(self._job, keep) if self._running else -1
            if 0 <= end < held.end:
                parts = split_evenly(end, held.end, askers)
                log.info("%s: tasks from %d on shared out in %d parts", held.chunk, end, len(parts))
                if not await holding.give_away(parts):
                    runner.kill("superseded")

    def _is_worth_sharing(self, holding: Holding, runner: RunnerPort) -> bool:
        """Whether the rest takes long enough, going by the present task and those before it."""
        task, since = runner.current()
        rest = holding.held.end - holding.position - 1
        if task < 0 or rest < 1 or not self._running:
            return False
        now = self._agent.clock.monotonic()
        done = holding.position - holding.held.position
        each_s = max(now - since, (now - holding.started_at) / done if done else 0.0)
        return each_s * rest > _WORTH_SHARING * self._agent.store.poll.max_s
