"""A worker's sign of life, and what it tells about itself with it."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from typing import Any, Literal

from starburst.clock import Clock
from starburst.protocol.keys import Keys
from starburst.protocol.records import Heartbeat, encode_json
from starburst.protocol.results import Run
from starburst.store.base import Store

__all__ = ["ProcessUsage", "Pulse", "Usage"]

Usage = Callable[[], tuple[float, int]]
"""Gives CPU in percent of one core since it was asked last, and memory in bytes."""

State = Literal["starting", "idle", "running", "draining", "stopped", "refused"]


class ProcessUsage:
    """What this process and all that it started use."""

    def __init__(self) -> None:
        self._processes: dict[int, Any] = {}

    def __call__(self) -> tuple[float, int]:
        """CPU in percent of one core since the last call, and memory in bytes."""
        import psutil

        cpu, memory = 0.0, 0
        try:
            me = psutil.Process()
            alive = {p.pid: self._processes.get(p.pid, p) for p in (me, *me.children(recursive=True))}
        except psutil.Error:
            return cpu, memory
        self._processes = alive
        for process in alive.values():
            try:
                cpu += process.cpu_percent()
                memory += process.memory_info().rss
            except psutil.Error:
                continue
        return round(cpu, 1), memory


class Pulse:
    """Keeps and writes one worker's heartbeat.

    Args:
        store: The session's store.
        keys: The session's keys.
        worker: The worker's name.
        slots: How many tasks it runs at a time.
        clock: Time.
        running: Gives the ids of the tasks that run now.
        usage: Measures CPU and memory; None for those of this process and what it started.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        worker: str,
        slots: int,
        clock: Clock,
        running: Callable[[], tuple[str, ...]],
        usage: Usage | None = None,
    ) -> None:
        self._store = store
        self._key = keys.worker(worker)
        self._worker = worker
        self._slots = slots
        self._clock = clock
        self._running = running
        self._usage = usage or ProcessUsage()
        self._started_at = clock.time()
        self._beats = 0
        self._state: State | None = None
        self._reason = ""
        self._done = self._failed = self._retried = 0
        self._task_s = 0.0

    def say(self, state: State, reason: str = "") -> None:
        """Report this state from now on, instead of what the running tasks tell."""
        self._state = state
        self._reason = reason

    def count(self, run: Run) -> None:
        """Finished tasks."""
        self._done += run.ok
        self._failed += run.failed
        self._retried += run.retried
        self._task_s += run.task_s

    async def beat(self) -> None:
        """Write the heartbeat.

        Raises:
            StoreError: It could not be written.
        """
        running = self._running()
        self._beats += 1
        cpu, memory = self._usage()
        counts = self._store.counts
        record = Heartbeat(
            worker=self._worker,
            beat=self._beats,
            state=self._state or ("running" if running else "idle" if self._beats > 1 else "starting"),
            started_at=self._started_at,
            at=self._clock.time(),
            slots=self._slots,
            host=socket.gethostname(),
            pid=os.getpid(),
            python=platform.python_version(),
            running=running,
            tasks_done=self._done,
            tasks_failed=self._failed,
            tasks_retried=self._retried,
            task_s=round(self._task_s, 6),
            cpu_percent=cpu,
            memory_bytes=memory,
            requests=counts.total,
            bytes_in=counts.bytes_in,
            bytes_out=counts.bytes_out,
            reason=self._reason,
        )
        await self._store.overwrite(self._key, encode_json(record))
