"""A plain map of slow tasks, to be interrupted: STORE (or "default") TASKS."""

import sys

import fault_tasks

import starburst

store = None if sys.argv[1] == "default" else sys.argv[1]
n_tasks = int(sys.argv[2])

if __name__ == "__main__":
    starburst.map(
        fault_tasks.slow_square, range(n_tasks), [0.02] * n_tasks, workers=2, store=store, idle_timeout=30
    )
