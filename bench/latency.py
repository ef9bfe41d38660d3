"""Few tasks: how long a person waits for them, on a warm pool and from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import workloads
from bench.fresh import run_fresh
from bench.model import OURS, Figure, Limit, Probe, timed

if TYPE_CHECKING:
    from bench.contenders import Pool


def sleeps(pool: Pool) -> dict[str, float]:
    seconds, results = timed(lambda: pool.map(workloads.sleep_1s, range(30)))
    assert results == list(range(30))
    return {"sleep": seconds}


def single(pool: Pool) -> dict[str, float]:
    seconds, results = timed(lambda: pool.map(workloads.noop, [7]))
    assert results == [7]
    return {"warm": seconds}


def cold(contender: str) -> dict[str, float]:
    inside, total_s = run_fresh("first_task", contender)
    return {"cold": inside["first_task_s"], "cold-total": total_s}


PROBES = (
    Probe(
        (Figure("sleep", "30 x 1 s of sleep, 10 workers", limit=Limit(3.5)),),
        sleeps,
        (OURS, "ppe", "joblib"),
        workers=10,
    ),
    Probe(
        (Figure("warm", "1 trivial task, warm pool", limit=Limit(0.25)),),
        single,
        (OURS, "ppe", "joblib", "ray", "dask"),
    ),
    Probe(
        (
            Figure("cold", "1 trivial task, cold: open a pool and map", limit=Limit(1.5)),
            Figure("cold-total", "the same, whole process"),
        ),
        cold,
        (OURS, "ppe", "joblib", "ray", "dask"),
        pooled=False,
        warmups=0,
    ),
)
