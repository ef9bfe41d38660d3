"""What a heartbeat tells: states, counts, traffic, and what the worker's processes use."""

import asyncio
import os
import socket
import subprocess
import sys

import psutil
import pytest
from worker_parts import KEYS, Session

from helpers import eventually
from starburst.errors import StoreUnavailable
from starburst.protocol.records import Failure
from starburst.protocol.results import Run
from starburst.protocol.sessions import read_heartbeat
from starburst.store.memory import MemoryStore
from starburst.testing import FaultyStore, ManualClock
from starburst.testing.simulation import Act
from starburst.worker.heartbeat import ProcessUsage, Pulse


class Beating:
    """A pulse in memory, and what it wrote last."""

    def __init__(self):
        self.clock = ManualClock()
        self.memory = MemoryStore()
        self.store = FaultyStore(self.memory, clock=self.clock)
        self.running = ()
        self.pulse = Pulse(
            self.store,
            KEYS,
            worker="w",
            slots=2,
            clock=self.clock,
            running=lambda: self.running,
            usage=lambda: (87.5, 123_456),
        )

    def beat(self):
        asyncio.run(self.pulse.beat())
        return asyncio.run(read_heartbeat(self.memory, KEYS, "w"))


@pytest.fixture
def beating():
    return Beating()


def run_of(ok, failed, *, task_s, retried=0):
    run = Run(task_s=task_s, retried=retried)
    if ok:
        run.add_values(list(range(ok)))
    for _ in range(failed):
        run.add_failure(Failure(kind="raised", message="no"))
    return run


def test_the_state_follows_what_runs_until_something_else_is_said(beating):
    assert beating.beat().state == "starting"
    assert beating.beat().state == "idle"
    beating.running = ("000001-00000007", "000001-00000008")
    beat = beating.beat()
    assert (beat.state, beat.running) == ("running", beating.running)
    beating.pulse.say("draining", "asked to")
    beat = beating.beat()
    assert (beat.state, beat.reason, beat.running) == ("draining", "asked to", beating.running)
    beating.running = ()
    beating.pulse.say("stopped", "asked to")
    assert beating.beat().state == "stopped"


def test_a_worker_that_is_at_work_before_its_first_beat_says_so(beating):
    beating.running = ("000001-00000000",)
    assert beating.beat().state == "running"


def test_each_beat_is_another_object(beating):
    assert [beating.beat().beat for _ in range(3)] == [1, 2, 3]
    before = asyncio.run(beating.memory.list(KEYS.workers))
    beating.beat()
    assert asyncio.run(beating.memory.list(KEYS.workers)) != before  # the version is what observers see


def test_times_are_those_of_the_clock(beating):
    started_at = beating.clock.time()
    beating.clock.advance(42.0)
    beat = beating.beat()
    assert (beat.started_at, beat.at) == (started_at, started_at + 42.0)


def test_finished_tasks_add_up(beating):
    beating.pulse.count(run_of(3, 1, task_s=1.25, retried=2))
    beating.pulse.count(run_of(2, 0, task_s=0.5))
    beat = beating.beat()
    assert (beat.tasks_done, beat.tasks_failed, beat.tasks_retried, beat.task_s) == (5, 1, 2, 1.75)


def test_it_tells_where_it_is_and_what_it_uses(beating):
    beat = beating.beat()
    assert (beat.worker, beat.slots, beat.host, beat.pid) == ("w", 2, socket.gethostname(), os.getpid())
    assert beat.python == sys.version.split()[0]
    assert (beat.cpu_percent, beat.memory_bytes) == (87.5, 123_456)


def test_traffic_is_that_of_its_store_up_to_this_beat(beating):
    assert (beating.beat().requests, beating.memory.counts.put) == (0, 1)
    asyncio.run(beating.store.create("some/key", b"12345"))
    asyncio.run(beating.store.get("some/key"))
    sent = beating.memory.counts.bytes_out
    received = beating.memory.counts.bytes_in
    beat = beating.beat()
    assert (beat.requests, beat.bytes_in, beat.bytes_out) == (4, received, sent)


def test_a_beat_that_cannot_be_written_is_the_callers_business(beating):
    beating.store.fail("overwrite", KEYS.worker("w"))
    with pytest.raises(StoreUnavailable):
        beating.beat()
    assert beating.beat().beat == 2


def test_beats_of_an_agent_come_every_interval_and_name_the_tasks_of_all_slots():
    session = Session(lease_s=5.0)  # a beat a second

    async def scenario(s):
        await s.submit(abs, [-1, -2, -3, -4], chunksize=2)
        agent = asyncio.ensure_future(s.agent("w", lambda job, task, args: Act(10.0), slots=2).run())
        await s.clock.sleep(5.5)
        first = await s.heartbeat("w")
        assert (first.state, set(first.running)) == ("running", {"000001-00000000", "000001-00000002"})
        await s.clock.sleep(10.0)
        second = await s.heartbeat("w")
        assert set(second.running) == {"000001-00000001", "000001-00000003"}
        assert second.beat - first.beat in (9, 10)
        await agent
        last = await s.heartbeat("w")
        assert (last.state, last.running, last.tasks_done, last.task_s) == ("stopped", (), 4, 40.0)

    session.run(scenario)


def test_what_this_process_and_its_children_use_is_added_up():
    usage = ProcessUsage()
    _, alone = usage()
    assert alone > 0
    code = "block = bytes(range(256)) * 250_000\nprint('ready', flush=True)\nwhile True: pass"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        memory = usage()[1]  # the child's CPU is measured from here on
        assert memory >= psutil.Process(child.pid).memory_info().rss + alone // 2
        eventually(lambda: usage()[0] > 5.0, what="the CPU time of the child")
        assert {os.getpid(), child.pid} <= set(usage._processes)
    finally:
        child.kill()
        child.communicate()
    usage()
    assert child.pid not in usage._processes
