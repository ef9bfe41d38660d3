"""SIGKILL to workers, clients and supervisors."""

import json
import random
import threading

import pytest
from crew import Crew, kill, run_script, start_script
from fault_tasks import slow_square

import starburst
from helpers import eventually
from starburst.client.pool import close_all
from starburst.protocol.sessions import read_batch

FAST = {"lease": 2.0, "idle_timeout": 30, "progress": False}


def in_thread(work):
    """Run ``work`` beside the test; returns the thread and the list that its result or error is put into."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_random_workers_are_killed_every_second(store_url):
    n_tasks = 2000
    seconds = [0.012] * n_tasks
    thread, outcome = in_thread(
        lambda: starburst.map(slow_square, range(n_tasks), seconds, workers=4, store=store_url, **FAST)
    )
    crew = Crew.of_only_session(store_url)
    eventually(crew.flushed, what="the first results")
    chance = random.Random(4)
    killed = 0
    while thread.is_alive():
        if alive := crew.alive("w-"):
            kill(chance.choice(alive).pid)
            killed += 1
        thread.join(1.0)
        assert killed < 90, "the run does not come to an end"
    assert outcome == [[i * i for i in range(n_tasks)]]
    assert killed >= 5
    crew.assert_each_exactly_once()
    assert crew.happened().count("worker-lost") >= killed - 1


def test_all_workers_are_killed_at_once_again_and_again(store_url):
    n_tasks = 300
    thread, outcome = in_thread(
        lambda: starburst.map(
            slow_square, range(n_tasks), [0.01] * n_tasks, workers=2, store=store_url, chunksize=30, **FAST
        )
    )
    crew = Crew.of_only_session(store_url)
    for _ in range(3):
        before = len(crew.flushed())
        eventually(lambda: len(crew.flushed()) > before or not thread.is_alive(), what="further results")  # noqa: B023
        crew.kill("w-")
    thread.join(60)
    assert outcome == [[i * i for i in range(n_tasks)]]
    crew.assert_each_exactly_once()


@pytest.mark.parametrize("block_bytes", [10, 1_500_000], ids=["small", "large"])
def test_client_is_killed_while_it_submits(store_url, block_bytes):
    session = starburst.session(store=store_url, workers=2, lease=2.0, idle_timeout=20)
    try:
        crew = Crew(store_url, session.session_id)
        client = start_script("client_submits.py", store_url, session.session_id, block_bytes)
        acknowledged = [int(client.stdout.readline()) for _ in range(6)]
        client.kill()  # at once after an answer: it is at work on the next submission
        acknowledged += [int(line) for line in client.stdout.read().split("\n")[:-1]]
        client.wait()
        client.stdout.close()

        results = json.loads(run_script("client_attaches.py", store_url, session.session_id).stdout)
        batches = crew.batches()
        assert set(acknowledged) <= set(batches)
        assert len(batches) <= len(acknowledged) + 1  # the one under way is there, or is not
        assert all(header.n_tasks == 10 for header in batches.values())
        assert results == [block_bytes + i for i in range(10)] * len(batches)
        crew.assert_each_exactly_once()
        for info in crew.infos(crew.keys.batches):  # whole, to the last byte
            _, pack = crew.run(read_batch(crew.store, info))
            for i in range(len(pack)):
                if block_bytes < 1000:
                    pack.frame(i)
    finally:
        session.cleanup(force=True)


@pytest.mark.parametrize("kind", ["session", "map"])
def test_client_is_killed_while_it_collects(store_url, kind):
    client = start_script("client_collects.py", store_url, kind, 200)
    crew = Crew.of_only_session(store_url)
    eventually(lambda: len(crew.flushed()) >= 2, what="the first results")
    client.kill()
    assert client.stdout.read() == ""
    client.wait()
    client.stdout.close()
    assert crew.done() < 200

    results = json.loads(run_script("client_attaches.py", store_url, crew.session_id).stdout)
    assert results == [i * i for i in range(200)]
    crew.assert_each_exactly_once()

    session = starburst.attach(crew.session_id, store=store_url)
    assert session.collect() == results  # once more: collecting removes nothing
    session.cleanup(force=True)


def test_attach_brings_a_session_back_to_life(store_url):
    n_tasks = 200
    session = starburst.session(store=store_url, workers=2, lease=2.0, idle_timeout=20)
    try:
        crew = Crew(store_url, session.session_id)
        session.map(slow_square, range(n_tasks), [0.02] * n_tasks)
        eventually(crew.flushed, what="the first results")
        assert crew.kill("supervisor-") == 1
        assert crew.kill() == 2
        done = crew.done()
        assert done < n_tasks

        again = starburst.attach(session.session_id, store=store_url)
        assert eventually(lambda: crew.alive("supervisor-"), what="a new supervisor")
        assert again.collect(timeout=60) == [i * i for i in range(n_tasks)]
        crew.assert_each_exactly_once()
        assert crew.happened().count("worker-lost") == 2
    finally:
        session.cleanup(force=True)


def test_collect_brings_a_session_back_to_life(store_url):
    """Without attach, in the process that made it, which knows its supervisor as started."""
    n_tasks = 100
    session = starburst.session(store=store_url, workers=1, lease=2.0, idle_timeout=20)
    try:
        crew = Crew(store_url, session.session_id)
        session.map(slow_square, range(n_tasks), [0.02] * n_tasks)
        eventually(crew.flushed, what="the first results")
        crew.kill("supervisor-")
        crew.kill()
        thread, outcome = in_thread(lambda: session.collect(timeout=60))
        eventually(lambda: crew.alive("supervisor-"), what="a new supervisor")
        eventually(lambda: crew.alive("w-"), what="a new worker")
        crew.kill("supervisor-")  # and once more, while somebody waits
        crew.kill()
        thread.join(60)
        assert outcome == [[i * i for i in range(n_tasks)]]
        assert session.collect() == outcome[0]
    finally:
        session.cleanup(force=True)


def test_the_supervisor_alone_is_killed_and_workers_go_on(folder_url):
    session = starburst.session(store=folder_url, workers=2, lease=2.0, idle_timeout=20)
    try:
        crew = Crew(folder_url, session.session_id)
        session.map(slow_square, range(100), [0.02] * 100)
        eventually(crew.flushed, what="the first results")
        assert crew.kill("supervisor-") == 1
        assert len(crew.alive("w-")) == 2
        eventually(lambda: crew.done() == 100, what="all is done, by the workers alone")
        assert session.collect() == [i * i for i in range(100)]
    finally:
        session.cleanup(force=True)


def test_a_closed_pool_leaves_nothing(folder_url):
    starburst.map(slow_square, range(10), workers=2, store=folder_url, **FAST)
    crew = Crew.of_only_session(folder_url)
    assert crew.alive()
    close_all()
    assert crew.alive() == []
    assert crew.list(crew.keys.prefix) == []
