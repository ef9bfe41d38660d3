"""A clock that stands still until it is told to move, and an event loop that moves it when all are waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

__all__ = ["ManualClock"]

T = TypeVar("T")


class ManualClock:
    """A :class:`~starburst.clock.Clock` for tests: hours pass in milliseconds, always in the same order.

    :meth:`run` is the usual way: whenever every coroutine waits, time jumps to the next one that sleeps.

        clock = ManualClock()
        clock.run(main(clock))

    Under any other event loop, move it by hand with :meth:`advance`.

    Args:
        start_s: What :meth:`monotonic` says first.
        wall_s: What :meth:`time` says first, seconds since 1970.
    """

    def __init__(self, start_s: float = 1000.0, wall_s: float = 1_800_000_000.0) -> None:
        self._now_s = start_s
        self._wall_offset_s = wall_s - start_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Seconds, as far as the clock was moved."""
        return self._now_s

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC, as far as the clock was moved."""
        return self._now_s + self._wall_offset_s

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved by ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move the clock and wake all that sleep until then; they run when the caller waits next."""
        until_s = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= until_s:
            self.jump()
        self._now_s = until_s

    def jump(self) -> bool:
        """Move the clock to the next moment at which somebody wakes, and wake them; False if nobody sleeps."""
        while self._sleepers:
            at_s, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._now_s = max(self._now_s, at_s)
                woken.set_result(None)
                return True
        return False

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Like ``asyncio.run``, on a loop that jumps whenever nothing else is left to do.

        Threads and processes of the real world are not waited for: what sleeps on this clock goes first.
        """
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_JumpingSelector(self))) as runner:
            return runner.run(main)


class _JumpingSelector(selectors.BaseSelector):
    """Asks the system for events as any selector, but where it would wait it moves the clock instead."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0) or self._clock.jump():
            return ready
        return self._real.select(timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()
