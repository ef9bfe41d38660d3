"""Time as an argument: a clock that loops wait on, deadlines, and back-off."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "Deadline", "SystemClock", "backoff_s", "leave_after"]


class Clock(Protocol):
    """What loops use instead of ``time`` and ``sleep``, so that tests can run them on a virtual clock."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC, as far as this machine knows."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``; other coroutines run meanwhile."""
        await asyncio.sleep(seconds)


class Deadline:
    """A moment after which a wait gives up; with ``timeout_s=None`` it never comes.

    Args:
        clock: The clock that measures it.
        timeout_s: Seconds from now, or None.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: Clock, timeout_s: float | None) -> None:
        self._clock = clock
        self._at = None if timeout_s is None else clock.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Seconds that are left, never below 0; infinite if there is no limit."""
        return float("inf") if self._at is None else max(0.0, self._at - self._clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment has come."""
        return self._at is not None and self._clock.monotonic() >= self._at


def backoff_s(attempt: int, *, base_s: float = 0.1, cap_s: float = 5.0) -> float:
    """Seconds to wait before try ``attempt + 1``: exponential with full jitter.

    Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0.0, min(cap_s, base_s * 2.0**attempt))  # noqa: S311 - not a secret


def leave_after(deadline_at: Callable[[], float], *, grace_s: float, exit_code: int) -> None:
    """End this process from a thread, should its loop be stuck past a deadline.

    A process that begins after the deadline gets the grace, too, to read whether that was extended.

    Args:
        deadline_at: Tells the deadline as it is known then, seconds since 1970.
        grace_s: So long after it the loop is given up.
        exit_code: Of the process.
    """
    began_at = time.time()

    def watch() -> None:
        while time.time() < max(deadline_at(), began_at) + grace_s:
            time.sleep(min(grace_s, max(1.0, deadline_at() - time.time())))
        os._exit(exit_code)

    threading.Thread(target=watch, daemon=True).start()
