"""What is measured: probes with figures, their limits, and the samples that a contender gave."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Cell", "Figure", "Limit", "Probe", "timed"]

OURS = "starburst"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``factor`` in the figure's unit, or ``factor`` times the figure of ``rival``."""

    factor: float
    rival: str | None = None

    def value(self, medians: Mapping[str, float]) -> float | None:
        """The limit in the figure's unit, or None if the rival was not measured."""
        if self.rival is None:
            return self.factor
        return self.factor * medians[self.rival] if self.rival in medians else None

    def __str__(self) -> str:
        return f"{self.factor:g}" if self.rival is None else f"{self.factor:g} x {self.rival}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a probe gives; less is better."""

    key: str
    title: str
    unit: str = "s"
    limit: Limit | None = None
    aim: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement, repeated.

    ``run`` gets an open pool, or the contender's name where ``pooled`` is false (then each repetition
    starts fresh processes itself), and answers with one number for each of ``figures``.
    """

    figures: tuple[Figure, ...]
    run: Callable[[Any], dict[str, float]]
    contenders: tuple[str, ...]
    pooled: bool = True
    workers: int = 2
    warmups: int = 1
    slow: frozenset[str] = frozenset()
    """Contenders that need minutes: measured only with ``--slow``, and then once."""

    @property
    def key(self) -> str:
        """Name of the probe: that of its first figure."""
        return self.figures[0].key


@dataclass(frozen=True, slots=True)
class Cell:
    """What one contender gave for one figure: samples, or why there are none."""

    figure: str
    contender: str
    samples: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float:
        """Middle of the samples."""
        return statistics.median(self.samples)

    @property
    def mad(self) -> float:
        """Median absolute deviation: the noise, insensitive to one bad sample."""
        return statistics.median(abs(sample - self.median) for sample in self.samples)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that ``call`` took, and what it returned."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value
