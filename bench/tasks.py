"""Many small tasks: what one task costs in time and in store requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import numeric, workloads
from bench.model import OURS, Figure, Limit, Probe, timed

if TYPE_CHECKING:
    from bench.contenders import Pool

TASKS = 10_000


def noop(pool: Pool) -> dict[str, float]:
    seconds, results = timed(lambda: pool.map(workloads.noop, range(TASKS)))
    assert results == list(range(TASKS))
    return {"noop": seconds}


def sweep(pool: Pool) -> dict[str, float]:
    points = numeric.grid(TASKS)
    seconds, results = timed(lambda: pool.map(numeric.oscillation, points))
    assert results[-1] == numeric.oscillation(points[-1])
    assert len(results) == TASKS
    return {"sweep": seconds}


def submit(pool: Pool) -> dict[str, float]:
    seconds, results = timed(lambda: pool.submit(workloads.noop, range(TASKS)))
    assert results == list(range(TASKS))
    return {"submit": seconds}


def requests(pool: Any) -> dict[str, float]:
    return {"requests": pool.requests(workloads.noop, range(TASKS)) / TASKS}


PROBES = (
    Probe(
        (Figure("noop", "10,000 no-op tasks, map", limit=Limit(0.3, "ppe"), aim="joblib's"),),
        noop,
        (OURS, "ppe", "ppe-best", "joblib", "ray", "dask"),
    ),
    Probe(
        (Figure("sweep", "10,000-point sweep, map", limit=Limit(2, "joblib"), aim="joblib's"),),
        sweep,
        (OURS, "ppe", "ppe-best", "joblib"),
    ),
    Probe(
        (Figure("submit", "10,000 x submit + results", limit=Limit(1, "ppe")),),
        submit,
        (OURS, "ppe"),
    ),
    Probe(
        (Figure("requests", "store requests per task, 10,000 tasks", "requests", Limit(0.2)),),
        requests,
        (OURS,),
        warmups=0,
    ),
)
