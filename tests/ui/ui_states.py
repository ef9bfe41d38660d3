"""States and closing figures to draw."""

from __future__ import annotations

from starburst.client.progress import Snapshot, Summary


def snapshot(**changes):
    values = {
        "session_id": "session-1",
        "title": "simulate",
        "total": 10_000,
        "done": 4_000,
        "failed": 3,
        "running": 4,
        "workers": 2,
        "elapsed_s": 1.0,
        "tasks_per_s": 4_003.0,
        "eta_s": 1.5,
    }
    return Snapshot(**values | changes)


def summary(**changes):
    values = {
        "session_id": "session-1",
        "total": 10_000,
        "ok": 10_000,
        "failed": 0,
        "retries": 0,
        "wall_s": 2.5,
        "task_s": 4.0,
        "speedup": 1.6,
        "bytes_in": 123_456,
        "bytes_out": 4_567_890,
        "requests": 800,
        "workers": 2,
    }
    return Summary(**values | changes)
