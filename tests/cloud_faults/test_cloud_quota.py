"""A quota that is too small is no error: a session runs with what fits, and gets more when there is more."""

import pytest
from cloud_tasks import slow_square

import starburst
from helpers import eventually

ON_DEMAND = ("fargate", "L-3032A538")
N_TASKS = 400
LARGE = {"workers": 10, "cpu": 4, "memory": "8GB", "spot": False}


@pytest.fixture
def small_quota(site):
    """The account may run six vCPUs on Fargate, as new accounts do."""
    site.aws.set_quota(*ON_DEMAND, 6)
    yield
    site.aws.set_quota(*ON_DEMAND, 4000)


@pytest.mark.usefixtures("small_quota")
def test_a_session_runs_with_what_fits_and_tops_up(site):
    crew = site.submit("slow_square", N_TASKS, 0.04, **LARGE)
    [waiting] = eventually(lambda: crew.told("workers-waiting"), what="the event")
    assert waiting["missing"] == 9
    assert "quota" in waiting["reason"]
    assert "limit on the number of vCPUs" in waiting["reason"]
    eventually(lambda: crew.done() > 0, what="the first results")
    assert len(site.workers()) == 1

    site.aws.set_quota(*ON_DEMAND, 14)  # three workers and a supervisor
    eventually(lambda: len(site.workers()) == 3, 20, what="more workers")
    eventually(lambda: crew.done() == N_TASKS, 60, what="the end of all tasks")
    session = starburst.attach(crew.session_id)
    assert session.collect(timeout=30) == [i * i for i in range(N_TASKS)]
    crew.assert_each_exactly_once()
    assert session.status().failed == 0
    assert crew.told("worker-lost") == []
    assert crew.told("terminated") in ([], [{"reason": "idle"}])


@pytest.mark.usefixtures("small_quota")
def test_map_finishes_with_what_fits(site):
    assert starburst.map(slow_square, range(40), [0.01] * 40, progress=False, **LARGE) == [
        i * i for i in range(40)
    ]
    assert len(site.workers()) == 1
