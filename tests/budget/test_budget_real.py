"""The same budget with real processes on a folder store; the bound leaves room for a machine that is slow."""

import pytest

import starburst
from helpers import eventually
from starburst.client.opening import find

N_TASKS = 10_000
PROMISED = 0.2
OPTIONS = {"workers": 2, "idle_timeout": 60, "progress": False}


def double(x):
    return 2 * x


def settled(pool, done):
    """All requests so far, once the workers have told of ``done`` tasks."""
    session = find(pool.session_id)

    def told():
        workers = session.status().worker_list
        return sum(worker.tasks_done for worker in workers) >= done and not any(w.task for w in workers)

    eventually(told, what=f"heartbeats that tell of {done} tasks")
    return pool.requests.total


def by_map(pool):
    return starburst.map(double, range(N_TASKS), **OPTIONS)


def by_executor_map(pool):
    return list(pool.map(double, range(N_TASKS)))


def by_submit(pool):
    return [future.result() for future in [pool.submit(double, i) for i in range(N_TASKS)]]


@pytest.mark.parametrize("call", [by_map, by_executor_map, by_submit])
def test_requests_of_ten_thousand_tasks(call):
    with starburst.Executor(**OPTIONS) as pool:
        assert list(pool.map(double, [1, 2])) == [2, 4]
        before = settled(pool, 2)
        assert call(pool) == [2 * i for i in range(N_TASKS)]
        requests = settled(pool, 2 + N_TASKS) - before
        assert find(pool.session_id).status().total == 2 + N_TASKS  # all in the one session that was counted
    assert requests <= PROMISED * N_TASKS


def test_what_is_counted_is_all_there_is():
    """The sum contains both sides: the client has written the submission, the workers the results."""
    with starburst.Executor(**OPTIONS) as pool:
        assert list(pool.map(double, range(100))) == [2 * i for i in range(100)]
        settled(pool, 100)
        ours = pool._pool.connection.store.counts.total
        theirs = find(pool.session_id).status().requests
        assert min(ours, theirs) > 0
        assert pool.requests.total >= ours + theirs
