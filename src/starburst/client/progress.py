"""What a progress display is told; displays themselves are in ``starburst.ui``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

__all__ = ["ProgressSink", "Silent", "Snapshot", "Summary", "open_sink", "set_renderer"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """How far a call is.

    Attributes:
        running: At the most, by the workers that work.
        workers: Those that have begun.
        starting: Workers that are on their way.
        waiting: Workers that there is no machine for yet.
        tasks_per_s: Since the start.
        eta_s: Seconds that are left at that rate; None if nothing is known yet.
    """

    session_id: str
    title: str
    total: int
    done: int = 0
    failed: int = 0
    running: int = 0
    workers: int = 0
    starting: int = 0
    waiting: int = 0
    elapsed_s: float = 0.0
    tasks_per_s: float = 0.0
    eta_s: float | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a call went.

    Attributes:
        wall_s: Seconds from the call to the last result.
        task_s: Seconds that the tasks took together.
        speedup: ``task_s / wall_s``.
        requests: Requests of this process since the call began.
    """

    session_id: str
    total: int
    ok: int
    failed: int
    retries: int
    wall_s: float
    task_s: float
    speedup: float
    bytes_in: int
    bytes_out: int
    requests: int
    workers: int


class ProgressSink(Protocol):
    """A display of one call."""

    def start(self, snapshot: Snapshot) -> None:
        """The call begins."""
        ...

    def update(self, snapshot: Snapshot) -> None:
        """News."""
        ...

    def note(self, line: str) -> None:
        """A line for the user."""
        ...

    def close(self, summary: Summary | None) -> None:
        """The call is over; None if it did not end in order."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def close(self, summary: Summary | None) -> None:
        """Nothing."""


_renderer: Callable[[], ProgressSink] = Silent


def set_renderer(factory: Callable[[], ProgressSink]) -> None:
    """From now on calls with ``progress=True`` show themselves through what ``factory`` makes."""
    global _renderer  # noqa: PLW0603 - one display per process
    _renderer = factory


def open_sink(*, progress: bool) -> ProgressSink:
    """A display for one call."""
    return _renderer() if progress else Silent()
