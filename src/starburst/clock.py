"""Time as an argument: a clock that loops wait on, deadlines, and back-off."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

__all__ = ["Clock", "Deadline", "SystemClock", "backoff_s"]


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
