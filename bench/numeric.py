"""Functions with real numpy work that are run remotely."""

from __future__ import annotations

from typing import Any

import numpy as np

_TIMES_S = np.linspace(0.0, 4.0, 2_500)


def oscillation(point: tuple[float, float]) -> float:
    """Energy of a damped oscillation at one parameter point (damping, frequency): about 20 µs of numpy."""
    damping, frequency = point
    response = np.exp(-damping * _TIMES_S) * np.cos(frequency * _TIMES_S)
    return float(response @ response)


def grid(points: int) -> list[tuple[float, float]]:
    """``points`` parameter points for :func:`oscillation`."""
    side = round(points**0.5)
    return [(0.1 + row / side, 1.0 + 9.0 * column / side) for row in range(side) for column in range(side)]


def array_8mb(item: int) -> np.ndarray[Any, Any]:
    """A million float64 values."""
    return np.full(1_000_000, float(item))


def slice_sum(array: np.ndarray[Any, Any], part: int) -> float:
    """Sum of one hundredth of a shared array."""
    step = len(array) // 100
    return float(array[part * step : (part + 1) * step].sum())
