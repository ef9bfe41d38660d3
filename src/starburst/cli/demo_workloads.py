"""The work that the demo does: functions of a few lines that anyone could have written, and their arguments.

They are the workloads that the R package measures itself by (a sweep of one point per task, portfolios by
Monte Carlo, a bootstrap over one data set, heavy linear algebra), and a hyper-parameter grid on a real data
set. Every task that draws random numbers has its own seed, so that a run can be compared with any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Workload",
    "american_put",
    "bootstrap_slopes",
    "cross_validate",
    "mapped_workloads",
    "portfolio_year",
    "regression_data",
    "search_grid",
    "spectrum",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A function, its arguments, and how exactly two runs must agree.

    Attributes:
        name: Short name, for tables.
        function: What one task calls.
        columns: One sequence per argument, all of one length.
        rtol: Relative tolerance of the comparison; 0 means bit for bit.
    """

    name: str
    function: Callable[..., Any]
    columns: tuple[Sequence[Any], ...]
    rtol: float = 0.0

    def calls(self) -> list[tuple[Any, ...]]:
        """The arguments of each task."""
        return list(zip(*self.columns, strict=True))


def american_put(strike: float, volatility: float, steps: int = 96) -> float:
    """The price of an American put on a share at 100, one year, 3% interest, by a binomial tree."""
    interest, step = 0.03, 1.0 / steps
    up = np.exp(volatility * np.sqrt(step))
    chance = (np.exp(interest * step) - 1 / up) / (up - 1 / up)
    discount = np.exp(-interest * step)
    share = 100.0 * up ** (2.0 * np.arange(steps + 1) - steps)
    value = np.maximum(strike - share, 0.0)
    for _ in range(steps):
        share = share[1:] / up
        value = discount * (chance * value[1:] + (1 - chance) * value[:-1])
        value = np.maximum(value, strike - share)
    return float(value[0])


def portfolio_year(seed: int, assets: int = 20, days: int = 252) -> tuple[float, float, float]:
    """Return, volatility and 95% value at risk of a random portfolio over one simulated year."""
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(assets))
    correlation = 0.3 + 0.7 * np.eye(assets)
    volatility = np.linspace(0.08, 0.40, assets) / np.sqrt(252)
    factor = np.linalg.cholesky(correlation * np.outer(volatility, volatility))
    drift = np.linspace(0.02, 0.11, assets) / 252
    daily = (random.standard_normal((days, assets)) @ factor.T + drift) @ weights
    return float(np.prod(1 + daily) - 1), float(daily.std() * np.sqrt(252)), float(-np.quantile(daily, 0.05))


def regression_data(rows: int, columns: int = 16, seed: int = 7) -> Array:
    """A made-up data set: ``columns`` measurements per row, and in the last column what they lead to."""
    random = np.random.default_rng(seed)
    measured = random.standard_normal((rows, columns))
    outcome = measured @ np.linspace(-1.0, 1.0, columns) + random.standard_normal(rows)
    return np.column_stack([measured, outcome])


def bootstrap_slopes(data: Array, seed: int) -> Array:
    """Regression coefficients of one bootstrap sample: rows drawn with replacement, least squares."""
    rows = np.random.default_rng(seed).integers(0, len(data), len(data))
    sample = data[rows]
    measured, outcome = sample[:, :-1], sample[:, -1]
    return np.asarray(np.linalg.solve(measured.T @ measured, measured.T @ outcome), dtype=np.float64)


def spectrum(seed: int, size: int) -> Array:
    """The eigenvalues of a random symmetric matrix, and the sum of its inverse: linear algebra that takes a while."""
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    symmetric = matrix + matrix.T
    values = np.linalg.eigvalsh(symmetric)
    inverse = np.linalg.inv(symmetric + 4 * np.sqrt(size) * np.eye(size))
    return np.append(values, inverse.sum())


def search_grid(*, quick: bool) -> list[dict[str, float]]:
    """The candidates of the hyper-parameter search."""
    costs = (0.5, 2.0, 8.0) if quick else (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
    gammas = (0.0005, 0.002) if quick else (0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032)
    return [{"C": cost, "gamma": gamma} for cost, gamma in itertools.product(costs, gammas)]


def cross_validate(candidate: dict[str, float]) -> Array:
    """Accuracy of a support vector machine on scikit-learn's handwritten digits, by five-fold cross-validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    images, digits = load_digits(return_X_y=True)
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)
    scores: Array = cross_val_score(SVC(**candidate), images, digits, cv=folds)
    return scores


def mapped_workloads(*, quick: bool) -> list[Workload]:
    """The four workloads that the demo gives to ``map``."""
    side = 40 if quick else 100
    points = list(
        itertools.product(np.linspace(80, 120, side).tolist(), np.linspace(0.1, 0.6, side).tolist())
    )
    strikes, volatilities = zip(*points, strict=True)
    data = regression_data(40_000 if quick else 100_000)
    samples = range(60 if quick else 300)
    matrices = range(10 if quick else 30)
    return [
        Workload(
            name=f"sweep of {len(points):,} points", function=american_put, columns=(strikes, volatilities)
        ),
        Workload(
            name="Monte Carlo portfolios",
            function=portfolio_year,
            columns=(range(2_000 if quick else 10_000),),
            rtol=1e-12,
        ),
        Workload(
            name=f"bootstrap, {data.nbytes / 1e6:.0f} MB shared",
            function=bootstrap_slopes,
            columns=([data] * len(samples), samples),
            rtol=1e-9,
        ),
        Workload(
            name="heavy linear algebra",
            function=spectrum,
            columns=(matrices, [300 if quick else 1_300] * len(matrices)),
            rtol=1e-8,
        ),
    ]
