"""A runner without a process: tasks take virtual time, and end, fail, hang or crash as a script says.

With it, :class:`~starburst.testing.ManualClock` and a store in memory, hundreds of the real agents run in one process.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starburst.clock import Clock
from starburst.protocol.payload import CallBlock, load_function
from starburst.protocol.records import Failure
from starburst.protocol.results import Run
from starburst.worker.ipc import Job
from starburst.worker.runner_process import Crash, OnRun, RunnerLauncher, RunnerPort

__all__ = ["Act", "Behaviour", "SimulatedRunner", "simulated_runners"]

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Act:
    """What happens when a task is run.

    Attributes:
        duration_s: How long it takes; infinite for one that hangs.
        crash: The reason for which its process dies at the end of that time; None for a task that returns.
    """

    duration_s: float = 0.0
    crash: str | None = None


Behaviour = Callable[[Job, int, tuple[Any, ...]], Act]
"""Asked at each start of a task: the job, the task's number in its submission, its positional arguments."""


class SimulatedRunner:
    """Runs the session's real functions on real packed arguments; only process and time are make-believe.

    Args:
        behaviour: What tasks do besides returning their value.
        clock: What tasks spend their time on.
        agent_clock: The clock of the agent; what the runner reports waits on it, so that a frozen agent hears nothing.
        report_s: Finished tasks are reported together, at most this late.
        hop_s: How long a message to the runner is under way.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        clock: Clock,
        *,
        agent_clock: Clock | None = None,
        report_s: float = 0.05,
        hop_s: float = 0.001,
    ) -> None:
        self._behaviour = behaviour
        self._clock = clock
        self._agent_clock = agent_clock or clock
        self._report_s = report_s
        self._hop_s = hop_s
        self._functions: dict[str, Callable[..., Any]] = {}
        self._job = -1
        self._end = 0
        self._answering = 0
        self._current = (-1, 0.0)
        self._killed = ""
        self._sleeping: asyncio.Future[None] | None = None

    async def run(self, job: Job, frame: Buffer, on_run: OnRun) -> Crash | None:
        """See :class:`~starburst.worker.runner_process.RunnerPort`."""
        calls = CallBlock(job.layout, frame, job.count, _no_large_objects)  # type: ignore[arg-type]
        self._job, self._end = job.job, job.end
        finished, task = Run(), job.start
        reported_at = self._clock.monotonic()
        while task < self._end:
            self._current = (task, self._clock.monotonic())
            args, kwargs = calls.call(task - job.first)
            act = self._behaviour(job, task, args)
            if finished.count and self._clock.monotonic() + act.duration_s - reported_at > self._report_s:
                finished, reported = Run(), finished
                reported_at = self._clock.monotonic()
                await self._in_turn()
                on_run(reported)
            await self._spend(act.duration_s)
            if act.crash is not None:
                self.kill(act.crash)
            if self._killed:
                break
            _add_outcome(finished, self._functions[job.function], args, kwargs)
            finished.task_s += act.duration_s
            task += 1
        task, _ = self._current
        self._job = -1
        await self._in_turn()
        if self._killed:
            return Crash(task, self._killed, "")
        self._current = (-1, 0.0)
        if finished.count:
            on_run(finished)
        return None

    async def use_code(self, folders: Sequence[str]) -> None:
        """Nothing: functions are loaded by this program itself."""

    async def give_function(self, sha256: str, data: Buffer) -> None:
        """See :class:`~starburst.worker.runner_process.RunnerPort`."""
        self._functions[sha256] = load_function(data, _no_large_objects)

    async def trim(self, job: int, end: int) -> int:
        """See :class:`~starburst.worker.runner_process.RunnerPort`."""
        await self._clock.sleep(self._hop_s)
        answer = -1
        if job == self._job and not self._killed:
            self._end = max(min(end, self._end), min(self._current[0] + 1, self._end))
            answer = self._end
        self._answering += 1
        try:
            await self._agent_clock.sleep(self._hop_s)
        finally:
            self._answering -= 1
        return answer

    def current(self) -> tuple[int, float]:
        """See :class:`~starburst.worker.runner_process.RunnerPort`."""
        return self._current

    def kill(self, why: str) -> None:
        """See :class:`~starburst.worker.runner_process.RunnerPort`."""
        self._killed = self._killed or why
        if self._sleeping is not None:
            self._sleeping.cancel()

    def memory_bytes(self) -> int:
        """None to speak of."""
        return 0

    async def close(self) -> None:
        """See :class:`~starburst.worker.runner_process.RunnerPort`."""
        self.kill("closed")

    async def _in_turn(self) -> None:
        """Wait until the agent has heard all that was said before, as on a socket."""
        await self._agent_clock.sleep(0)
        while self._answering:
            await self._agent_clock.sleep(self._hop_s)

    async def _spend(self, seconds: float) -> None:
        """Let time pass, until the end of it or of this runner."""
        if seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        self._sleeping = (
            loop.create_future() if math.isinf(seconds) else asyncio.ensure_future(self._clock.sleep(seconds))
        )
        try:
            await self._sleeping
        except asyncio.CancelledError:
            if not self._killed:
                raise
        finally:
            self._sleeping = None


def simulated_runners(behaviour: Behaviour, clock: Clock, **options: Any) -> RunnerLauncher:
    """What :class:`~starburst.worker.agent.Agent` takes as ``launch_runner``; the options are the runner's."""

    async def launch(locate: Callable[[str], Awaitable[str]]) -> RunnerPort:
        del locate
        return SimulatedRunner(behaviour, clock, **options)

    return launch


def _add_outcome(
    run: Run, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        value = function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - a task may raise anything
        failure = Failure(
            kind="raised", message=f"{type(error).__name__}: {error}", type_name=type(error).__name__
        )
        run.add_failure(failure, error)
    else:
        run.add_values([value])


def _no_large_objects(sha256: str) -> Any:
    raise NotImplementedError(f"simulated runners load no large objects, such as {sha256}")
