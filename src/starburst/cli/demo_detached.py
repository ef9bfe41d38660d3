"""The process that submits the demo's detached session, says its id and ends: ``python -m`` this module."""

from __future__ import annotations

import json
import sys

import starburst
from starburst.cli.demo_workloads import portfolio_year


def submit(first_seed: int, end_seed: int, *, workers: int, store: str) -> dict[str, object]:
    """Submit one task per seed in a detached session.

    Returns:
        Its id, and the requests that it took to submit.
    """
    session = starburst.session(workers=workers, launch_type="LOCAL", store=store, absolute_timeout="10m")
    session.map(portfolio_year, range(first_seed, end_seed))
    return {"session_id": session.session_id, "requests": session.requests.total}


if __name__ == "__main__":
    first, end, workers, store = sys.argv[1:]
    print(json.dumps(submit(int(first), int(end), workers=int(workers), store=store)))
