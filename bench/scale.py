"""Very many tasks: submitting a million, and looking at a finished session of 100,000."""

from __future__ import annotations

import tempfile

from bench.fresh import run_fresh
from bench.model import OURS, Figure, Limit, Probe


def million(_contender: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        inside, _ = run_fresh("submit_million", folder)
    return {"million": inside["submit_s"], "million-rss": inside["peak_rss_mb"]}


def status(_contender: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        prepared, _ = run_fresh("finish_session", folder)
        inside, total_s = run_fresh("session_status", folder, prepared["session_id"])
    assert inside["completed"] == 100_000
    return {"status": inside["status_s"], "status-total": total_s}


PROBES = (
    Probe(
        (
            Figure("million", "1,000,000 tasks by one map call: submit", limit=Limit(10)),
            Figure("million-rss", "the same, peak memory of the client", "MB", Limit(1_500)),
        ),
        million,
        (OURS,),
        pooled=False,
        warmups=0,
    ),
    Probe(
        (
            Figure("status", "status() of a finished 100,000-task session", limit=Limit(1)),
            Figure("status-total", "the same, whole process"),
        ),
        status,
        (OURS,),
        pooled=False,
        warmups=0,
    ),
)
