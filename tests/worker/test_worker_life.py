"""A worker's life in virtual time: when it works, waits and stops, and why. Only tasks and time are make-believe."""

import asyncio

import msgspec
from worker_parts import Session

from starburst.clock import SystemClock
from starburst.protocol.claims import first_claim
from starburst.protocol.keys import ChunkId
from starburst.protocol.records import encode_json
from starburst.testing.simulation import Act, SimulatedRunner

FOR_EVER = Act(float("inf"))


def taking(seconds):
    """All tasks take so long."""
    return lambda job, task, args: Act(seconds)


class Diary:
    """What begins when; tasks behave as ``act(task)`` says."""

    def __init__(self, session, act=lambda task: Act(1.0)):
        self.session = session
        self.act = act
        self.begun = []

    def __call__(self, job, task, args):
        self.begun.append((job.batch, task))
        return self.act(task)

    def of(self, batch=1):
        return [task for b, task in self.begun if b == batch]


def begun(agent):
    return asyncio.ensure_future(agent.run())


# ---- nothing to do ----


def test_the_idle_timeout_begins_anew_with_each_chunk():
    session = Session(idle_timeout_s=2.0)

    async def scenario(s):
        agent = s.agent("w", taking(5.0))
        working = begun(agent)
        for batch in (1, 2):
            await s.clock.sleep(1.5)
            await s.submit(abs, [-1])
            await s.until(lambda batch=batch: s.marks(batch))
        assert not working.done()
        left_work = s.clock.monotonic()
        await working
        assert 1.9 <= s.clock.monotonic() - left_work < 2.3

    session.run(scenario)


def test_a_worker_whose_runner_starts_slowly_is_not_idle():
    session = Session(idle_timeout_s=1.0)

    async def scenario(s):
        async def launch(locate):
            await s.clock.sleep(3.0)
            return SimulatedRunner(taking(0.1), s.clock)

        await s.submit(abs, [-1, -2], chunksize=1)
        await s.agent("w", launch_runner=launch, slots=3).run()
        assert await s.values() == {0: 1, 1: 2}

    session.run(scenario)


def test_a_worker_in_want_asks_for_a_share_and_withdraws_it():
    session = Session(idle_timeout_s=0.5, lease_s=2.0)

    async def scenario(s):
        await s.submit(abs, [-1], chunksize=1)
        await s.store.create(s.keys.claim(ChunkId(1, 0), 1), encode_json(first_claim("w-gone", 0, 0.0)))
        working = begun(s.agent("w", taking(5.0)))
        asked = await s.until(lambda: s.store.list(s.keys.wanted), 1.0)
        assert [info.key for info in asked] == [s.keys.wanted_by("w")]
        await s.until(lambda: has_claims(s, 2))
        assert await s.store.list(s.keys.wanted) == []
        await working

    async def has_claims(s, n):
        return len(await s.claims(0)) == n

    session.run(scenario)


# ---- stopping ----


def test_draining_finishes_the_task_and_gives_back_the_rest_and_the_chunk_in_reserve():
    session = Session()
    diary = Diary(session, lambda task: Act(2.0))

    async def scenario(s):
        await s.submit(abs, [-i for i in range(8)], chunksize=4)
        agent = s.agent("w", diary)
        working = begun(agent)
        await s.until(lambda: len(diary.begun) == 2)
        await s.clock.sleep(1.0)
        start = s.clock.monotonic()
        agent.stop("asked to")
        assert await working == "asked to"
        assert 0.9 <= s.clock.monotonic() - start <= 1.1  # the rest of the second task, nothing more
        assert diary.of() == [0, 1]
        assert await s.values() == {0: 0, 1: 1}
        assert [c.kind for c in await s.claims(0)] == ["claim", "release"]
        assert [c.kind for c in await s.claims(4)] == ["claim", "release"]
        assert await s.marks() == {}
        # Whoever comes next goes on at once, and nobody's attempt is counted.
        start = s.clock.monotonic()
        await s.agent("w-2", diary, drain_s=1.0).run()
        assert sorted(diary.of()) == list(range(8))
        assert [c.attempt for c in await s.claims(0)] == [1, 1, 1]
        assert await s.marks() == {0: (4, 0), 4: (4, 0)}

    session.run(scenario)


def test_a_second_stop_may_shorten_the_time_but_not_lengthen_it():
    session = Session()

    async def scenario(s):
        await s.submit(abs, [-1])
        agent = s.agent("w", lambda *_: FOR_EVER, drain_s=20.0)
        working = begun(agent)
        await s.until(lambda: s.claims(0))
        await s.clock.sleep(1.0)
        start = s.clock.monotonic()
        agent.stop("first")
        await s.clock.sleep(1.0)
        agent.stop("second", at_once=True)
        agent.stop("third")
        assert await working == "first"
        assert s.clock.monotonic() - start < 1.2

    session.run(scenario)


# ---- events ----


def test_a_closed_session_lets_an_idle_worker_go_at_once():
    session = Session(idle_timeout_s=600.0)

    async def scenario(s):
        working = begun(s.agent("w"))
        await s.clock.sleep(5.0)
        start = s.clock.monotonic()
        await s.say("terminated", reason="closed")
        assert await working == "the session is closed"
        assert s.clock.monotonic() - start < 2.0

    session.run(scenario)


def test_a_worker_that_was_given_up_for_lost_stops():
    session = Session()

    async def scenario(s):
        await s.submit(abs, [-1, -2], chunksize=2)
        working = begun(s.agent("w", lambda job, task, args: Act(1.0) if task == 0 else FOR_EVER))
        await s.clock.sleep(3.0)
        await s.say("worker-lost", worker="w-other", reason="its machine is gone")
        await s.clock.sleep(3.0)
        assert not working.done()
        await s.say("worker-lost", worker="w", reason="its machine is gone")
        assert await working == "it was given up for lost and replaced"
        assert await s.values() == {0: 1}

    session.run(scenario)


# ---- what stays ----


def test_nothing_is_left_running_when_it_has_left():
    session = Session()
    runners = []

    async def scenario(s):
        async def launch(locate):
            runners.append(SimulatedRunner(taking(0.5), s.clock))
            return runners[-1]

        await s.submit(abs, [-1, -2, -3], chunksize=1)
        before = asyncio.all_tasks()
        await s.agent("w", launch_runner=launch, slots=2).run()
        assert len(runners) == 2
        assert all(runner._killed == "closed" for runner in runners)
        await s.clock.sleep(0)
        assert asyncio.all_tasks() == before

    session.run(scenario)


# ---- several slots and workers ----


def test_slots_run_tasks_at_the_same_time():
    session = Session()

    async def scenario(s):
        await s.submit(abs, [-i for i in range(8)], chunksize=1)
        start = s.clock.monotonic()
        working = begun(s.agent("w", taking(10.0), slots=4))
        await s.until(lambda: is_complete(s, 8))
        assert 20.0 <= s.clock.monotonic() - start < 20.5
        await working

    session.run(scenario)


async def is_complete(s, n_tasks, batch=1):
    return sum(ok + failed for ok, failed in (await s.marks(batch)).values()) == n_tasks


def test_many_workers_share_the_work_without_doing_any_of_it_twice():
    session = Session(workers=10)
    diary = Diary(session)

    async def scenario(s):
        await s.submit(abs, [-i for i in range(100)], chunksize=2, lanes=10)
        await asyncio.gather(*(s.agent(f"w-{i}", diary, ordinal=i).run() for i in range(10)))
        assert sorted(diary.of()) == list(range(100))
        assert await s.values() == {i: i for i in range(100)}
        assert await is_complete(s, 100)

    session.run(scenario)


def test_the_real_clock_does_as_well():
    """The same agent under asyncio's own loop and time."""
    session = Session(idle_timeout_s=0.2, lease_s=1.0)
    session.clock = SystemClock()
    session.manifest = msgspec.structs.replace(session.manifest, created_at=session.clock.time())

    async def main():
        await session.submit(abs, [-1, -2])
        reason = await asyncio.wait_for(session.agent("w", taking(0.01)).run(), 20)
        assert reason == "nothing to do for the idle timeout"
        assert await session.values() == {0: 1, 1: 2}

    asyncio.run(main())
