"""Real agents over simulated runners, in virtual time: working, resting, sharing, stopping, and what they tell."""

from __future__ import annotations

import asyncio
import math

import pytest
from worker_parts import KEYS, Session

from starburst.errors import AccessDenied, StoreUnavailable
from starburst.protocol.sessions import EventLog
from starburst.testing import FaultyStore
from starburst.testing.simulation import Act


def in_session(scenario, **options):
    return Session(**options).run(scenario)


def lasting(seconds, **special):
    """Tasks that take so long; special ones by their argument, as ``x7=Act(...)``."""

    def behave(job, task, args):
        return special.get(f"x{args[0]}", Act(seconds))

    return behave


def square(x):
    return x * x


def fragile(x):
    if x % 3 == 0:
        raise ValueError(f"{x} cannot be had")
    return x


async def finished(session, n_tasks, batch=1):
    await session.until(lambda: _is_marked(session, n_tasks, batch))


async def _is_marked(session, n_tasks, batch):
    return sum(ok + failed for ok, failed in (await session.marks(batch)).values()) == n_tasks


# Working


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("chunksize", [1, 4, 30])
def test_every_task_is_run_and_then_the_worker_leaves(slots, chunksize):
    async def scenario(session):
        await session.submit(square, range(30), chunksize=chunksize)
        agent = session.agent("a", slots=slots)
        assert await agent.run() == "nothing to do for the idle timeout"
        assert await session.values() == {x: x * x for x in range(30)}
        assert sum(ok for ok, _ in (await session.marks()).values()) == 30
        beat = await session.heartbeat("a")
        assert (beat.state, beat.reason) == ("stopped", "nothing to do for the idle timeout")
        assert (beat.tasks_done, beat.tasks_failed, beat.slots, beat.running) == (30, 0, slots, ())
        assert beat.task_s == pytest.approx(3.0)

    in_session(scenario, slots=slots)


def test_several_submissions_are_worked_on_in_their_order():
    async def scenario(session):
        for _ in range(3):
            await session.submit(square, range(3))
        ran = []

        def behave(job, task, args):
            ran.append((job.batch, task))
            return Act(0.1)

        await session.agent("a", behave).run()
        assert ran == [(batch, task) for batch in (1, 2, 3) for task in range(3)]

    in_session(scenario)


def test_work_that_comes_later_is_found():
    async def scenario(session):
        running = asyncio.ensure_future(session.agent("a").run())
        await session.clock.sleep(1.5)
        await session.submit(square, range(3))
        await finished(session, 3)
        await session.clock.sleep(1.5)
        await session.submit(square, range(2))
        await finished(session, 2, batch=2)
        assert not running.done()
        await running

    in_session(scenario, idle_timeout_s=2.0)


def test_what_is_finished_is_in_the_store_long_before_the_chunk_is():
    async def scenario(session):
        await session.submit(square, range(100), chunksize=100)
        running = asyncio.ensure_future(session.agent("a", lasting(1.0)).run())
        await session.clock.sleep(20.5)
        assert len(await session.results()) >= 19
        assert await session.marks() == {}
        await running

    in_session(scenario)


def test_the_next_chunk_is_claimed_while_the_present_one_runs():
    async def scenario(session):
        await session.submit(square, range(3), chunksize=1)
        running = asyncio.ensure_future(session.agent("a", lasting(10)).run())
        await session.clock.sleep(5)
        assert [len(await session.claims(first)) for first in range(3)] == [1, 1, 0]
        await running

    in_session(scenario)


def test_failures_are_results():
    async def scenario(session):
        await session.submit(fragile, range(7), chunksize=7)
        await session.agent("a").run()
        results = await session.results()
        assert [n for n, outcome in results.items() if outcome.failure] == [0, 3, 6]
        assert results[3].failure.message == "ValueError: 3 cannot be had"
        assert await session.marks() == {0: (4, 3)}
        assert (await session.heartbeat("a")).tasks_failed == 3

    in_session(scenario)


def test_a_function_that_is_not_there_fails_its_tasks_and_no_others():
    async def scenario(session):
        await session.submit(square, range(2))
        await session.store.delete([i.key for i in await session.store.list(f"{KEYS.prefix}functions/")])
        await session.submit(abs, [-1])
        await session.agent("a").run()
        assert {o.failure.kind for o in (await session.results()).values()} == {"load"}
        assert await session.values(2) == {0: 1}

    in_session(scenario)


def test_a_damaged_submission_is_told_in_an_event():
    async def scenario(session):
        await session.submit(square, [1])
        await session.store.overwrite(KEYS.batch(1), b"nonsense" * 10)
        await session.submit(square, [2])
        await session.agent("a").run()
        assert await session.values(2) == {0: 4}
        (event,) = await EventLog(session.store, KEYS).news()
        assert (event.what, event.data["batch"]) == ("damaged", 1)

    in_session(scenario)


# Time limits, crashes


def test_a_task_past_its_timeout_fails_and_the_others_go_on():
    async def scenario(session):
        await session.submit(square, range(5), chunksize=5, timeout_s=3.0)
        await session.agent("a", lasting(1.0, x2=Act(math.inf))).run()
        results = await session.results()
        assert results[2].failure.kind == "timeout"
        assert results[2].failure.message == "it ran longer than its timeout of 3 s and was stopped"
        assert [n for n, outcome in results.items() if outcome.failure] == [2]

    in_session(scenario)


def test_the_timeout_counts_from_the_start_of_the_task_not_of_the_chunk():
    async def scenario(session):
        await session.submit(square, range(20), chunksize=20, timeout_s=3.0)
        await session.agent("a", lasting(2.5)).run()
        assert not any(outcome.failure for outcome in (await session.results()).values())

    in_session(scenario)


@pytest.mark.parametrize("killer", [0, 2, 4])
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_task_that_kills_its_process_each_time_fails_and_no_other(killer, max_attempts):
    async def scenario(session):
        runs = []

        def behave(job, task, args):
            runs.append(task)
            return Act(0.1, "segmentation fault (SIGSEGV)" if task == killer else None)

        await session.submit(square, range(5), chunksize=5)
        await session.agent("a", behave).run()
        results = await session.results()
        assert [n for n, outcome in results.items() if outcome.failure] == [killer]
        failure = results[killer].failure
        assert (failure.kind, failure.attempt) == ("lost", max_attempts)
        assert "segmentation fault (SIGSEGV)" in failure.message
        assert runs.count(killer) == max_attempts
        assert await session.marks() == {0: (4, 1)}

    in_session(scenario, max_attempts=max_attempts)


def test_a_process_that_dies_before_any_task_begins_does_not_go_on_for_ever():
    from starburst.testing.simulation import SimulatedRunner
    from starburst.worker.runner_process import Crash

    class Stillborn(SimulatedRunner):
        async def run(self, job, frame, on_run):
            await session.clock.sleep(0.1)
            return Crash(-1, "the process left with exit code 9", "")

    async def launch(locate):
        return Stillborn(lasting(1), session.clock)

    async def scenario(session):
        await session.submit(square, range(3), chunksize=3)
        await session.agent("a", launch_runner=launch).run()
        failures = [outcome.failure for outcome in (await session.results()).values()]
        assert [failure.kind for failure in failures] == ["lost"] * 3
        assert "exit code 9" in failures[0].message

    session = Session()
    session.run(scenario)


def test_a_task_that_crashes_now_and_then_is_run_again():
    async def scenario(session):
        await session.submit(square, range(6), chunksize=6)
        runs = []

        def behave(job, task, args):
            runs.append(task)
            return Act(0.1, "bad luck" if runs.count(task) < 3 else None)

        await session.agent("a", behave).run()
        assert await session.values() == {x: x * x for x in range(6)}

    in_session(scenario)


# Resting


def test_an_idle_worker_asks_seldom_and_leaves_after_its_time():
    async def scenario(session):
        before, began = session.store.counts.list, session.clock.monotonic()
        assert await session.agent("a").run() == "nothing to do for the idle timeout"
        took = session.clock.monotonic() - began
        assert took == pytest.approx(20.0, abs=1.0)
        assert session.store.counts.list - before < 120

    in_session(scenario, idle_timeout_s=20.0, poll_max_s=0.5)


def test_a_worker_whose_other_slot_works_is_not_idle():
    async def scenario(session):
        await session.submit(square, [1], chunksize=1)
        await session.agent("a", lasting(30), slots=2).run()
        assert await session.values() == {0: 1}

    in_session(scenario, idle_timeout_s=1.0, slots=2)


def test_an_idle_worker_does_not_leave_before_it_knows_whether_others_are_lost():
    """Else a chain of workers, each too impatient, would leave a lost worker's chunk alone for ever."""

    async def scenario(session):
        await session.submit(square, range(3), chunksize=3)
        board = session.board("dead")
        await board.look_for_batches()
        await board.claim_fresh()
        await session.agent("a").run()
        assert await session.values() == {x: x * x for x in range(3)}

    in_session(scenario, idle_timeout_s=0.5, lease_s=10.0)


# Sharing


def test_idle_workers_get_a_share_of_a_long_chunk():
    async def scenario(session):
        await session.submit(square, range(40), chunksize=40)
        began = session.clock.monotonic()
        agents = [session.agent(f"w{n}", lasting(1.0), ordinal=n) for n in range(4)]
        first = asyncio.ensure_future(agents[0].run())
        await session.clock.sleep(0.5)
        others = [asyncio.ensure_future(agent.run()) for agent in agents[1:]]
        await finished(session, 40)
        assert session.clock.monotonic() - began < 20, "alone it takes 40 s"
        assert await session.values() == {x: x * x for x in range(40)}
        await asyncio.gather(first, *others)
        done = [(await session.heartbeat(f"w{n}")).tasks_done for n in range(4)]
        assert min(done) >= 4
        assert sum(done) == 40
        assert await session.store.list(KEYS.wanted) == [], "nobody asks any more"

    in_session(scenario, idle_timeout_s=5.0)


def test_the_chunk_in_reserve_is_given_to_who_has_none():
    async def scenario(session):
        await session.submit(square, range(2), chunksize=1)
        first = asyncio.ensure_future(session.agent("a", lasting(60)).run())
        await session.clock.sleep(1)
        assert [claim.worker for claim in await session.claims(1)] == ["a"]
        second = asyncio.ensure_future(session.agent("b", lasting(1)).run())
        await session.until(lambda: _has_result(session, 1), timeout_s=10)
        kinds = [(claim.kind, claim.worker) for claim in await session.claims(1)]
        assert kinds == [("claim", "a"), ("release", "a"), ("claim", "b")]
        await asyncio.gather(first, second)

    in_session(scenario)


async def _has_result(session, task):
    return task in await session.results()


def test_what_is_done_in_a_moment_is_not_worth_a_share():
    async def scenario(session):
        await session.submit(square, range(20), chunksize=20)
        agents = [session.agent(name, lasting(0.002)) for name in "ab"]
        await asyncio.gather(*(agent.run() for agent in agents))
        assert len(await session.store.list(KEYS.batches)) == 1
        assert await session.values() == {x: x * x for x in range(20)}

    in_session(scenario)


# Taking over


def test_a_dead_workers_tasks_are_finished_by_another_from_where_its_results_end():
    async def scenario(session):
        await session.submit(square, range(20), chunksize=20)
        ran = []

        def behave(job, task, args):
            ran.append(task)
            return Act(1.0)

        dead = asyncio.ensure_future(session.agent("dead", behave).run())
        await session.clock.sleep(9.5)
        flushed = len(await session.results())
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)
        ran.clear()
        await session.agent("heir", behave).run()
        assert ran[0] == flushed > 5
        assert await session.values() == {x: x * x for x in range(20)}

    in_session(scenario)


@pytest.mark.parametrize("killer", [0, 3, 7])
def test_a_task_that_kills_its_workers_fails_alone(killer):
    async def scenario(session):
        runs = []
        agents = {}

        def behave(name):
            def act(job, task, args):
                runs.append(task)
                if task == killer:
                    asyncio.get_running_loop().call_soon(kill, name)
                    return Act(math.inf)
                return Act(0.5)

            return act

        def kill(name):
            agents[name].cancel()

        await session.submit(square, range(8), chunksize=8)
        for n in range(20):
            name = f"w{n}"
            agents[name] = asyncio.ensure_future(session.agent(name, behave(name)).run())
            (ended,) = await asyncio.gather(agents[name], return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                break
            await session.say("worker-lost", worker=name, reason="out of memory")
        results = await session.results()
        assert sorted(results) == list(range(8))
        assert [n for n, outcome in sorted(results.items()) if outcome.failure] == [killer]
        assert results[killer].failure.kind == "lost"
        assert "out of memory" in results[killer].failure.message
        assert runs.count(killer) <= 2 * session.manifest.max_attempts + 1

    in_session(scenario, max_attempts=2)


# Stopping


def test_one_that_is_asked_to_stop_finishes_its_task_and_gives_the_rest_back():
    async def scenario(session):
        await session.submit(square, range(10), chunksize=5)
        agent = session.agent("a", lasting(4.0))
        running = asyncio.ensure_future(agent.run())
        await session.clock.sleep(6)
        agent.stop("asked to stop")
        agent.stop("asked again")
        await session.clock.sleep(0.5)
        assert agent.pulse._state == "draining"
        assert await running == "asked to stop"
        assert await session.values() == {0: 0, 1: 1}
        assert [claim.kind for claim in await session.claims(0)] == ["claim", "release"]
        assert [claim.kind for claim in await session.claims(5)] == ["claim", "release"], "the one in reserve"
        assert (await session.heartbeat("a")).state == "stopped"

    in_session(scenario)


def test_draining_has_an_end():
    async def scenario(session):
        await session.submit(square, range(3), chunksize=3)
        agent = session.agent("a", lasting(1.0, x1=Act(math.inf)), drain_s=5.0)
        running = asyncio.ensure_future(agent.run())
        await session.clock.sleep(3)
        agent.stop("asked to stop")
        began = session.clock.monotonic()
        await running
        assert session.clock.monotonic() - began == pytest.approx(5.0, abs=0.5)
        assert await session.values() == {0: 0}
        assert [claim.kind for claim in await session.claims(0)] == ["claim", "release"]

    in_session(scenario)


def test_no_task_outlives_the_deadline():
    async def scenario(session):
        await session.submit(square, range(100), chunksize=10)
        began = session.clock.monotonic()
        assert await session.agent("a", lasting(0.7, x5=Act(math.inf))).run() == "the session is expired"
        assert session.clock.monotonic() - began < 30.5
        assert len(await session.values()) == 5, "what was finished is kept"

    in_session(scenario, absolute_timeout_s=30.0)


def test_an_extended_deadline_holds():
    async def scenario(session):
        await session.submit(square, range(10), chunksize=10)
        running = asyncio.ensure_future(session.agent("a", lasting(2.0)).run())
        await session.clock.sleep(5)
        await session.say("extended", deadline_at=session.clock.time() + 1000)
        assert await running == "nothing to do for the idle timeout"
        assert len(await session.values()) == 10

    in_session(scenario, absolute_timeout_s=10.0)


@pytest.mark.parametrize(
    ("event", "reason", "finishes"),
    [
        (("cancelled", {}), "the session is cancelled", False),
        (("terminated", {"reason": "closed"}), "the session is closed", True),
        (("terminated", {"reason": "idle"}), "the session is idle", False),
        (
            ("worker-lost", {"worker": "a", "reason": "silent"}),
            "it was given up for lost and replaced",
            False,
        ),
        (("dismissed", {"workers": ["a", "b"]}), "it was sent away", False),
    ],
    ids=["cancelled", "closed", "idle", "given-up", "dismissed"],
)
def test_what_ends_a_session_ends_its_workers(event, reason, finishes):
    async def scenario(session):
        await session.submit(square, range(3), chunksize=3)
        running = asyncio.ensure_future(session.agent("a", lasting(10.0)).run())
        await session.clock.sleep(5)
        await session.say(event[0], **event[1])
        began = session.clock.monotonic()
        assert await running == reason
        assert await session.values() == ({0: 0} if finishes else {})
        assert (session.clock.monotonic() - began < 2) is not finishes

    in_session(scenario)


def test_a_cancelled_submission_stops_and_the_next_one_goes_on():
    async def scenario(session):
        await session.submit(square, range(10), chunksize=5)
        await session.submit(square, range(3), chunksize=3)
        running = asyncio.ensure_future(session.agent("a", lasting(10.0)).run())
        await session.clock.sleep(15)
        await session.say("cancelled", batches=[1])
        await running
        assert await session.values(1) == {0: 0}
        assert len(await session.values(2)) == 3

    in_session(scenario)


# What it tells, and what goes wrong


def test_heartbeats_tell_what_runs():
    async def scenario(session):
        await session.submit(square, range(4), chunksize=1)
        running = asyncio.ensure_future(session.agent("a", lasting(10.0), slots=2).run())
        await session.until(lambda: session.store.list(KEYS.workers))
        assert (await session.heartbeat("a")).state in ("starting", "idle")
        await session.clock.sleep(5)
        beat = await session.heartbeat("a")
        assert (beat.state, sorted(beat.running)) == ("running", ["000001-00000000", "000001-00000001"])
        later = session.clock.time() + 5
        await session.clock.sleep(5)
        newer = await session.heartbeat("a")
        assert newer.beat > beat.beat
        assert newer.started_at == beat.started_at
        assert newer.at == pytest.approx(later, abs=2 * session.manifest.heartbeat_s)
        assert 0 < newer.requests <= session.store.counts.total
        assert newer.host
        assert newer.pid > 0
        assert newer.python.startswith("3.")
        await session.clock.sleep(12)
        assert (await session.heartbeat("a")).state in ("running", "idle")
        await running

    in_session(scenario, slots=2, idle_timeout_s=5.0)


def test_heartbeats_come_in_time_whatever_else_waits():
    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        faulty.delay("create", "*results*", delay_s=60, times=10)
        await session.submit(square, range(3), chunksize=1)
        running = asyncio.ensure_future(session.agent("a", store=faulty).run())
        await session.clock.sleep(1)
        last = (await session.heartbeat("a")).beat
        for _ in range(20):
            await session.clock.sleep(1.5 * session.manifest.heartbeat_s)
            beat = (await session.heartbeat("a")).beat
            assert beat > last
            last = beat
        await running
        assert len(await session.values()) == 3

    in_session(scenario)


def test_a_store_that_fails_for_a_while_costs_heartbeats_only():
    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        agent = session.agent("a", lasting(1.0), store=faulty)
        await session.submit(square, range(5), chunksize=5)
        running = asyncio.ensure_future(agent.run())
        await session.clock.sleep(1.5)
        faulty.fail("overwrite", "*workers*", times=3)
        await running
        assert faulty.pending_faults == 0
        assert len(await session.values()) == 5

    in_session(scenario)


def test_a_store_that_never_takes_a_result_ends_the_worker_and_nothing_is_claimed_done():
    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        faulty.fail("create", "*results*", times=1000)
        await session.submit(square, range(5), chunksize=5)
        with pytest.raises(StoreUnavailable):
            await session.agent("a", store=faulty).run()
        assert await session.marks() == {}
        beat = await session.heartbeat("a")
        assert (beat.state, beat.reason) == ("stopped", "an error of its own; see its log")

    in_session(scenario)


def test_a_store_that_refuses_the_worker_stops_it_with_the_reason():
    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        agent = session.agent("a", store=faulty)
        running = asyncio.ensure_future(agent.run())
        await session.clock.sleep(0.5)
        faulty.fail("overwrite", "*workers*", error=AccessDenied("the role was removed"))
        assert "the role was removed" in await running

    in_session(scenario)


def test_a_worker_that_cannot_start_a_runner_says_so():
    async def scenario(session):
        async def launch(locate):
            raise OSError("no more processes")

        await session.submit(square, [1])
        with pytest.raises(OSError, match="no more processes"):
            await session.agent("a", launch_runner=launch).run()
        assert (await session.heartbeat("a")).state == "stopped"

    in_session(scenario)


def test_a_worker_that_dies_by_an_error_leaves_no_runner():
    closed = []
    from starburst.testing.simulation import SimulatedRunner

    class Watched(SimulatedRunner):
        async def close(self):
            closed.append(self)
            await super().close()

    started = []

    async def launch(locate):
        started.append(Watched(lasting(5.0), session.clock))
        return started[-1]

    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        faulty.fail("create", "*results*", times=1000)
        await session.submit(square, range(8), chunksize=2)
        with pytest.raises(StoreUnavailable):
            await session.agent("a", slots=2, store=faulty, launch_runner=launch).run()
        assert len(started) == 2
        assert {id(runner) for runner in closed} == {id(runner) for runner in started}

    session = Session(slots=2)
    session.run(scenario)
