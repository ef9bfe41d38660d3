"""Tasks that die at once, without a warning: all workers, the supervisor, both."""

import pytest
from cloud_tasks import slow_square

import starburst
from helpers import eventually

N_TASKS = 300
RESULTS = [i * i for i in range(N_TASKS)]


@pytest.fixture
def session(site):
    """A session at work, with its auditor."""
    made = starburst.session(workers=2)
    made.map(slow_square, range(N_TASKS), [0.03] * N_TASKS)
    crew = site.crew(made.session_id)
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 2 and crew.done() >= 10, what="work")
    return made, crew


def test_all_workers_lost_at_once_are_brought_back(site, session):
    session, crew = session
    victims = site.workers()
    site.kill(victims)
    eventually(lambda: crew.done() == N_TASKS, 60, what="the end of all tasks, while nobody waits for them")
    assert session.collect(timeout=30) == RESULTS
    crew.assert_each_exactly_once()

    lost = crew.told("worker-lost")
    assert {data["task"] for data in lost} == {task.task_id for task in victims}
    assert {data["zone"] for data in lost} == {task.zone for task in victims}
    assert {data["reason"] for data in lost} == {"killed by SIGKILL"}
    assert {data["stop_code"] for data in lost} == {"EssentialContainerExited"}
    assert len(site.started_for(crew)) == 4


def test_workers_go_on_without_supervisor_and_attach_brings_it_back(site, session):
    session, crew = session
    site.kill(site.supervisors())
    done = crew.done()
    eventually(lambda: crew.done() >= done + 20, what="work without a supervisor")
    assert site.supervisors() == []
    victims = site.workers()
    site.kill(victims)
    assert crew.done() < N_TASKS

    again = starburst.attach(crew.session_id)
    assert len(site.supervisors()) == 1
    assert again.collect(timeout=60) == RESULTS
    crew.assert_each_exactly_once()
    assert {data["task"] for data in crew.told("worker-lost")} == {task.task_id for task in victims}


def test_collect_brings_back_a_supervisor_that_died_with_all_workers(site, session):
    session, crew = session
    site.kill(site.alive())
    assert session.collect(timeout=60) == RESULTS
    crew.assert_each_exactly_once()
