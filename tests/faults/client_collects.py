"""Makes a session or a plain map of slow tasks and waits for the results, until it is killed: URL KIND TASKS."""

import sys

import fault_tasks

import starburst

url, kind, n_tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])

if __name__ == "__main__":
    starburst.plan(store=url, workers=2, lease=2.0, idle_timeout=20)
    if kind == "session":
        session = starburst.session()
        session.map(fault_tasks.slow_square, range(n_tasks), [0.02] * n_tasks)
        sys.stdout.write(f"{len(session.collect())}\n")
    else:
        sys.stdout.write(f"{len(starburst.map(fault_tasks.slow_square, range(n_tasks), [0.02] * n_tasks))}\n")
