"""Callbacks at a later moment, all on one thread."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Timer", "Timers"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, order=True)
class Timer:
    """One callback that waits for its moment; :meth:`cancel` forgets it."""

    at: float
    number: int
    action: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Do not call it any more; harmless when it was called already."""
        self.action = None


class Timers:
    """A thread that calls what is due. Callbacks must be short and take the locks that they need."""

    def __init__(self) -> None:
        self._due: list[Timer] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self) -> None:
        """Call nothing more; returns when the last callback is through."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def after(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` in ``delay_s`` seconds; 0 is "as soon as possible, but not here"."""
        timer = Timer(time.monotonic() + delay_s, next(self._numbers), action)
        with self._changed:
            heapq.heappush(self._due, timer)
            self._changed.notify()
        return timer

    def every(self, period_s: float, action: Callable[[], None]) -> None:
        """Call ``action`` again and again, ``period_s`` after its last end."""

        def again() -> None:
            try:
                action()
            finally:
                self.after(period_s, again)

        self.after(period_s, again)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and not (self._due and self._due[0].at <= time.monotonic()):
                    self._changed.wait(self._due[0].at - time.monotonic() if self._due else None)
                if self._ended:
                    return
                action = heapq.heappop(self._due).action
            if action is not None:
                try:
                    action()
                except Exception:  # noqa: BLE001 - the others are still to be called
                    _log.exception("a timer's callback failed")
