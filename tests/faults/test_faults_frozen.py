"""Workers that freeze past their lease and wake up later, when others have taken over what they held."""

import os
import signal

import psutil
import pytest
from crew import Crew, join_by_hand, kill
from fault_tasks import gated, slow_square

import starburst
from helpers import eventually

N = 4


class Stage:
    """One chunk of four tasks, two actors: Zoe, who joined by hand and will freeze, and whoever is hired then."""

    def __init__(self, folder, url, *, lease_s=1.5):
        self.folder = folder / "gates"
        self.folder.mkdir()
        self.session = starburst.session(store=url, workers=1, lease=lease_s, idle_timeout=30)
        self.crew = Crew(url, self.session.session_id)
        self.zoe = join_by_hand(self.crew, folder / "zoe.log", env={"CREW_MEMBER": "zoe"})
        eventually(lambda: self.crew.list(self.crew.keys.workers), what="Zoe's first beat")
        self.session.map(gated, range(N), [str(self.folder)] * N, chunksize=N)

    def open(self, gate):
        (self.folder / gate).touch()

    def wait_for(self, who, task):
        eventually((self.folder / f"{who}-at-{task}").exists, what=f"{who} at task {task}")

    def freeze(self):
        """Only the agent: its runner goes on with the gates that are open."""
        os.kill(self.zoe.pid, signal.SIGSTOP)

    def wake(self):
        os.kill(self.zoe.pid, signal.SIGCONT)

    def runner_of_zoe(self):
        [runner] = psutil.Process(self.zoe.pid).children()
        return runner

    def writers(self):
        """For each task, who wrote its result."""
        found = {}
        for header, _ in self.crew.links().values():
            who = "hired" if header.worker in self.hired else "zoe"
            found.update((task, who) for task in range(header.first, header.first + header.count))
        return found

    @property
    def hired(self):
        listed = self.crew.run(self.crew.provider.describe(self.crew.session_id))
        return {status.worker for status in listed}

    def claims(self):
        return self.crew.list(self.crew.keys.claims(1))

    def check(self):
        assert self.session.collect(timeout=30) == [i * i for i in range(N)]
        self.crew.assert_each_exactly_once()
        # Nor does anything change when she is gone.
        assert self.zoe.wait(timeout=30) == 0, "the one who woke up does not leave in order"
        before = self.crew.links().keys()
        assert self.session.collect(timeout=30) == [i * i for i in range(N)]
        assert self.crew.links().keys() == before

    def close(self):
        kill(self.zoe.pid)
        self.zoe.wait()
        self.session.cleanup(force=True)


@pytest.fixture
def stage(tmp_path, store_url):
    stage = Stage(tmp_path, store_url)
    yield stage
    stage.close()


def test_woken_after_its_successor_is_done(stage):
    stage.wait_for("zoe", 0)
    stage.freeze()
    stage.wait_for("hired", 0)
    stage.open("hired-all")
    eventually(lambda: stage.crew.done() == N, what="the successor is done")
    stage.open("zoe-all")  # her runner finishes all, too
    stage.wait_for("zoe", N - 1)
    stage.wake()
    stage.check()
    assert stage.writers() == dict.fromkeys(range(N), "hired")


def test_woken_and_writing_before_its_successor(stage):
    """She has finished everything, and writes it while her successor is at the first task."""
    stage.wait_for("zoe", 0)
    stage.freeze()
    stage.wait_for("hired", 0)
    assert len(stage.claims()) == 2
    stage.open("zoe-all")
    stage.wait_for("zoe", N - 1)
    stage.wake()
    eventually(stage.crew.flushed, what="her results")
    stage.open("hired-all")
    stage.check()
    assert set(stage.writers().values()) == {"zoe"}


def test_woken_between_two_writes_of_its_successor(stage):
    """Her successor has written the first half of the chunk when she brings a copy of all of it."""
    stage.wait_for("zoe", 0)
    stage.freeze()
    for task in range(2):
        stage.wait_for("hired", task)
        stage.open(f"hired-{task}")
    stage.wait_for("hired", 2)
    eventually(stage.crew.flushed, what="the successor's first half")
    stage.open("zoe-all")
    stage.wait_for("zoe", N - 1)
    stage.wake()
    assert stage.zoe.wait(timeout=30) == 0
    stage.open("hired-all")
    stage.check()
    assert stage.writers()[0] == "hired"


def test_frozen_with_a_part_written(stage):
    """What she had written before she froze is kept: her successor goes on behind it."""
    for task in range(2):
        stage.wait_for("zoe", task)
        stage.open(f"zoe-{task}")
    stage.wait_for("zoe", 2)
    eventually(stage.crew.flushed, what="her first half")
    stage.freeze()
    stage.wait_for("hired", 2)
    assert not (stage.folder / "hired-at-0").exists()
    stage.open("hired-all")
    eventually(lambda: stage.crew.done() == N, what="the successor is done")
    stage.open("zoe-all")
    stage.wake()
    stage.check()
    assert stage.writers() == {0: "zoe", 1: "zoe", 2: "hired", 3: "hired"}


def test_the_whole_worker_freezes_in_the_middle_of_a_task(stage):
    """Agent and runner, as when a laptop sleeps."""
    stage.wait_for("zoe", 0)
    runner = stage.runner_of_zoe()
    stage.freeze()
    runner.suspend()
    stage.wait_for("hired", 0)
    stage.open("hired-all")
    stage.open("zoe-all")
    eventually(lambda: stage.crew.done() == N, what="the successor is done")
    runner.resume()
    stage.wake()
    stage.check()


def test_frozen_worker_of_our_own_is_replaced_and_ended(store_url):
    """What its provider can stop does not wake up any more."""
    session = starburst.session(store=store_url, workers=2, lease=1.5, idle_timeout=30)
    try:
        crew = Crew(store_url, session.session_id)
        session.map(slow_square, range(60), [0.02] * 60, chunksize=15)
        eventually(lambda: crew.claimed() >= 2, what="two chunks are claimed")
        frozen = crew.alive("w-")[0]
        os.kill(frozen.pid, signal.SIGSTOP)
        assert session.collect(timeout=60) == [i * i for i in range(60)]
        crew.assert_each_exactly_once()
        eventually(
            lambda: frozen.worker not in {status.worker for status in crew.alive()}, what="it is ended"
        )
        assert not psutil.pid_exists(frozen.pid)
        lost = [event.data["worker"] for event in crew.events() if event.what == "worker-lost"]
        assert lost == [frozen.worker]
    finally:
        session.cleanup(force=True)


def test_frozen_supervisor_is_replaced_and_changes_nothing_when_woken(folder_url):
    session = starburst.session(store=folder_url, workers=2, lease=1.5, idle_timeout=30)
    try:
        crew = Crew(folder_url, session.session_id)
        session.map(slow_square, range(100), [0.03] * 100)
        eventually(crew.flushed, what="the first results")
        [frozen] = crew.alive("supervisor-")
        os.kill(frozen.pid, signal.SIGSTOP)
        crew.kill("w-")
        again = starburst.attach(session.session_id, store=folder_url)
        assert again.collect(timeout=60) == [i * i for i in range(100)]
        os.kill(frozen.pid, signal.SIGCONT)
        eventually(lambda: len(crew.alive("supervisor-")) == 1, what="the woken one steps down")
        assert len(crew.alive("w-")) <= 2
        assert again.collect() == [i * i for i in range(100)]
        crew.assert_each_exactly_once()
    finally:
        session.cleanup(force=True)
