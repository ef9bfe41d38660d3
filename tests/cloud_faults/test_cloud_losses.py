"""Tasks that die at once, without a warning: all workers, the supervisor, both."""

import starburst
from helpers import eventually

N_TASKS = 300
RESULTS = [i * i for i in range(N_TASKS)]


def working(site, n_tasks=N_TASKS, seconds=0.04):
    crew = site.submit("slow_square", n_tasks, seconds, workers=3)
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 3 and crew.done() >= 10, what="work")
    return crew


def test_all_workers_lost_at_once_are_brought_back(site):
    crew = working(site)
    victims = site.workers()
    site.kill(victims)
    eventually(lambda: crew.done() == N_TASKS, 60, what="the end of all tasks, with no client")
    assert starburst.attach(crew.session_id).collect(timeout=30) == RESULTS
    crew.assert_each_exactly_once()

    lost = crew.told("worker-lost")
    assert {data["task"] for data in lost} == {task.task_id for task in victims}
    assert {data["reason"] for data in lost} == {"killed by SIGKILL"}
    assert {data["stop_code"] for data in lost} == {"EssentialContainerExited"}
    assert len(site.started_for(crew)) == 6
    assert crew.told("terminated") in ([], [{"reason": "idle"}])


def test_workers_go_on_without_supervisor_and_attach_brings_it_back(site):
    crew = working(site)
    site.kill(site.supervisors())
    done = crew.done()
    assert done < N_TASKS
    eventually(lambda: crew.done() >= done + 20, what="work without a supervisor")
    assert site.supervisors() == []
    victims = site.workers()
    site.kill(victims)
    assert crew.done() < N_TASKS

    session = starburst.attach(crew.session_id)
    assert eventually(site.supervisors, what="a new supervisor")
    assert session.collect(timeout=60) == RESULTS
    crew.assert_each_exactly_once()
    lost = {data["task"] for data in crew.told("worker-lost")}
    assert lost == {task.task_id for task in victims}


def test_collect_brings_back_a_supervisor_that_dies_meanwhile(site):
    crew = working(site)
    session = starburst.attach(crew.session_id)
    site.kill(site.supervisors())
    site.kill(site.workers())
    assert session.collect(timeout=60) == RESULTS
    crew.assert_each_exactly_once()
