"""Spot takes workers back while nobody looks: a detached session loses nothing, and its events tell the story."""

import starburst
from helpers import eventually

N_TASKS = 500
RESULTS = [i * i for i in range(N_TASKS)]


def names_started(crew):
    return [name for data in crew.told("worker-started") for name in data["workers"]]


def collect(crew):
    """What a client that comes later finds."""
    session = starburst.attach(crew.session_id)
    assert session.collect(timeout=30) == RESULTS
    crew.assert_each_exactly_once()
    session.cleanup()


def test_half_of_the_workers_are_interrupted_with_no_client(site):
    crew = site.submit("slow_square", N_TASKS, 0.03, workers=4)
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 4 and crew.done() >= 20, what="work")
    victims = {task.task_id: task for task in site.workers()[:2]}
    for task_id in victims:
        site.aws.interrupt(task_id)
    eventually(lambda: crew.done() == N_TASKS, 60, what="the end of all tasks")
    collect(crew)

    gone = [data for data in crew.gone() if data.get("stop_code") == "SpotInterruption"]
    assert {data["task"] for data in gone} == set(victims)
    assert {data["zone"] for data in gone} == {task.zone for task in victims.values()}
    assert {data["capacity"] for data in gone} == {"FARGATE_SPOT"}
    started = names_started(crew)
    assert len(started) == len(set(started)) == 6  # two replacements, and not more
    assert len(site.started_for(crew)) == 6


def test_an_interrupted_host_is_left_before_it_is_gone(site):
    """ECS tells tasks on EC2 nothing of it: they watch for the notice themselves, every five seconds."""
    crew = site.submit("slow_square", N_TASKS, 0.06, workers=4, launch_type="EC2", cpu=2, memory="2GB")
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 4 and crew.done() >= 20, 30, what="work")
    [victim, *others] = [host for host in site.aws.hosts() if host.tasks]
    assert len(others) == 1
    site.aws.interrupt_host(victim.instance_id)
    eventually(lambda: crew.done() == N_TASKS, 60, what="the end of all tasks")
    collect(crew)

    left = [data for data in crew.told("worker-stopped") if data["task"] in victim.tasks]
    assert {data["task"] for data in left} == set(victim.tasks)
    for data in left:
        assert "interrupted (Spot)" in data["reason"]
        assert data["stop_code"] == "EssentialContainerExited"  # by itself: the host was still there
        assert data["capacity"] == "starburst-c7g-xlarge-spot"
        assert data["zone"] == victim.zone
    assert crew.told("worker-lost") == []
    assert len(set(names_started(crew))) == 6
    assert all(task.exit_code == 0 for task in site.started_for(crew) if task.task_id in victim.tasks)


def test_on_demand_is_taken_when_spot_takes_workers_before_they_run(make_site):
    site = make_site(pull_s=2.0)
    crew = site.submit("slow_square", 20, 0.01, workers=2)

    def runs():
        for task in site.workers(capacity_provider="FARGATE_SPOT"):
            site.aws.interrupt(task.task_id)
        return crew.done() == 20

    eventually(runs, 90, what="the end of all tasks")
    assert starburst.attach(crew.session_id).collect(timeout=30) == [i * i for i in range(20)]
    tasks = site.started_for(crew)
    assert [task.capacity_provider for task in tasks].count("FARGATE_SPOT") == 6  # three rounds of two
    [waiting] = crew.told("workers-waiting")
    assert waiting["missing"] == 2
    assert "3 times in a row" in waiting["reason"]
    assert "on-demand" in waiting["reason"]
