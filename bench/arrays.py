"""Large data: results that come back, and one array that all tasks share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bench import numeric
from bench.model import OURS, Figure, Limit, Probe, timed

if TYPE_CHECKING:
    from bench.contenders import Pool


def big_results(pool: Pool) -> dict[str, float]:
    seconds, results = timed(lambda: pool.map(numeric.array_8mb, range(64)))
    assert [array[-1] for array in results] == list(range(64))
    return {"results": seconds}


def shared_array(pool: Pool) -> dict[str, float]:
    array = np.random.default_rng().random(12_500_000)
    expected = float(array.sum())

    first_s, (shared, results) = timed(lambda: _share_and_map(pool, array))
    again_s, results_again = timed(lambda: pool.map_shared(numeric.slice_sum, shared, range(100)))
    assert math.isclose(sum(results), expected)
    assert results_again == results
    return {"shared": first_s, "shared-again": again_s}


def _share_and_map(pool: Pool, array: np.ndarray) -> tuple[object, list[float]]:
    shared = pool.share(array)
    return shared, pool.map_shared(numeric.slice_sum, shared, range(100))


PROBES = (
    Probe(
        (Figure("results", "64 tasks returning 8 MB arrays", limit=Limit(1, "ppe")),),
        big_results,
        (OURS, "ppe", "joblib", "ray", "dask"),
    ),
    Probe(
        (
            Figure("shared", "100 MB array shared by 100 tasks, new", limit=Limit(1, "dask")),
            Figure("shared-again", "the same array again, warm workers", limit=Limit(0.15)),
        ),
        shared_array,
        (OURS, "joblib", "ray", "dask", "ppe"),
        slow=frozenset({"ppe"}),
    ),
)
