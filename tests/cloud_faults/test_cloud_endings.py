"""What is left after cleanup, cancel, idle timeouts and clients that die: nothing."""

import signal

from cloud_tasks import slow_square

import starburst
from helpers import eventually


def working(site, n_tasks=2000, seconds=0.05, **options):
    session = starburst.session(workers=2, **options)
    session.map(slow_square, range(n_tasks), [seconds] * n_tasks)
    crew = site.crew(session.session_id)
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 2 and crew.flushed(), what="work")
    return session, crew


def test_cleanup_waits_until_all_tasks_have_stopped(site):
    session, crew = working(site)
    assert len(site.alive()) == 3
    session.cleanup(stop_workers=True)
    assert site.alive() == []
    assert session.status().state == "closed"
    [left] = crew.told("workers-left")
    assert {worker["stop_code"] for worker in left["workers"].values()} <= {
        "UserInitiated",
        "EssentialContainerExited",
    }
    assert len(left["workers"]) == 3
    assert all(worker["stopped_at"] and worker["zone"] for worker in left["workers"].values())
    kept = session.collect(wait=False)
    assert kept
    assert kept == [i * i for i in range(2000) if i * i in set(kept)]
    session.cleanup(force=True)
    assert crew.list(crew.keys.prefix) == []


def test_cancel_leaves_no_task(site):
    session, crew = working(site)
    session.cancel()
    eventually(lambda: not site.alive(), what="the end of all tasks")
    assert session.status().state == "cancelled"
    assert crew.done() < 2000


def test_an_idle_session_leaves_no_task(site):
    """Nobody ends it: workers go after the idle timeout, the supervisor after that of the session."""
    crew = site.submit("slow_square", 40, 0.01, workers=2)
    eventually(lambda: crew.done() == 40, what="the end of all tasks")
    eventually(lambda: not site.alive(), 30, what="the end of all tasks on AWS")
    reasons = [data["reason"] for data in crew.told("worker-stopped")]
    assert reasons == ["nothing to do for the idle timeout"] * 2 or crew.told("terminated")
    told = {data["worker"] for data in crew.told("worker-stopped")}
    told.update(name for data in crew.told("workers-left") for name in data["workers"])
    assert len(told) == 2, "the outcome of every worker is in the events"
    assert starburst.attach(crew.session_id).collect() == [i * i for i in range(40)]
    assert site.alive() == []  # all is there: attach wakes nobody


def test_a_client_that_is_killed_in_the_middle_of_map_leaves_no_task(site):
    """A closed laptop: what it submitted is finished, and then the workers go by themselves."""
    client = site.start("client_maps.py", 300, 0.03)
    crew = site.crew()
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 2 and crew.flushed(), 30, what="work")
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert crew.done() < 300
    eventually(lambda: not site.alive(), 60, what="the end of all tasks")
    assert starburst.attach(crew.session_id).collect(timeout=30) == [i * i for i in range(300)]
    crew.assert_each_exactly_once()


def test_a_client_that_is_interrupted_stops_its_tasks(site):
    client = site.start("client_maps.py", 2000, 0.05)
    crew = site.crew()
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 2 and crew.flushed(), 30, what="work")
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    eventually(lambda: not site.alive(), 30, what="the end of all tasks")
    assert crew.done() < 2000


def test_a_client_that_is_interrupted_does_not_let_long_tasks_go_on(site):
    """ECS would give them two minutes, and Spot's notice 90 seconds."""
    client = site.start("client_maps.py", 4, 300)
    eventually(lambda: len(site.workers(last_status="RUNNING")) == 2, 30, what="workers")
    eventually(lambda: site.crew().claimed() == 2, 30, what="work")
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    eventually(lambda: not site.alive(), 30, what="the end of all tasks")
