"""One of several clients of a session: URL SESSION NAME. Prints the results of what it submitted as JSON."""

import json
import sys

import fault_tasks

import starburst

url, session_id, name = sys.argv[1:]

if __name__ == "__main__":
    session = starburst.attach(session_id, store=url)
    submissions = [session.map(fault_tasks.tagged, [name] * 20, range(20), chunksize=3) for _ in range(10)]
    futures = [session.submit(fault_tasks.tagged, name, -1 - i) for i in range(30)]
    singles = [future.result(60) for future in futures]
    session.collect(timeout=60)
    found = dict(session.results())
    ours = [found[task_id] for submission in submissions for task_id in submission.task_ids]
    sys.stdout.write(json.dumps([ours, singles, [submission.seq for submission in submissions]]))
