"""The loop over a store in memory, a provider whose workers are coroutines, and a clock that jumps."""

import asyncio

import pytest
from fleet import Fleet, World, steady

from starburst.errors import StoreFull, StoreUnavailable
from starburst.testing.stores import Fault, FaultyStore


async def dies_at_once(world, process):
    """Ends before its first heartbeat."""
    await world.clock.sleep(0.2)
    return 1


async def refuses(world, process):
    await world.beat(process.worker, 1, "refused", "this worker runs Python 3.11, the session 3.12")
    return 3


async def leaves_when_idle(world, process):
    """All but the first leave after the idle timeout, though the session is open."""
    if process.ordinal == 0:
        return await steady(world, process)
    until_s = world.clock.monotonic() + world.manifest.idle_timeout_s
    n = 0
    while world.clock.monotonic() < until_s:
        n += 1
        await world.beat(process.worker, n, "idle", done=1)
        await world.clock.sleep(world.manifest.heartbeat_s)
    await world.beat(process.worker, n + 1, "stopped", "nothing to do for the idle timeout", done=1)
    return 0


async def deaf(world, process):
    """Ignores that it is told to leave."""
    n = 0
    while True:
        n += 1
        await world.beat(process.worker, n, "running")
        await world.clock.sleep(world.manifest.heartbeat_s)


def test_launches_what_the_tasks_can_use_and_no_more():
    async def scenario(world):
        supervisor = world.supervisor()
        await supervisor.tick()
        assert world.fleet.alive == []
        await world.submit(2)
        await supervisor.tick()
        assert len(world.fleet.alive) == 2
        await world.submit(100, chunksize=10)
        report = await supervisor.tick()
        assert report.open_tasks == 102
        assert len(world.fleet.alive) == 4
        assert (await supervisor.tick()).live == 4
        assert len(world.fleet.alive) == 4
        assert sorted(process.ordinal for process in world.fleet.alive) == [0, 1, 2, 3]
        spec = world.fleet.specs[0]
        assert spec.session_url == "memory://world/sessions/session-test"
        assert spec.deadline_at == world.manifest.created_at + world.manifest.absolute_timeout_s

    World().run(scenario)


def test_slots_are_counted():
    async def scenario(world):
        await world.submit(9)
        await world.supervisor().tick()
        assert len(world.fleet.alive) == 3

    World(slots=4).run(scenario)


def test_finished_and_cancelled_tasks_want_no_worker():
    async def scenario(world):
        first = await world.submit(6, chunksize=2)
        second = await world.submit(30)
        await world.finish(first, 0, ok=2)
        await world.finish(first, 2, ok=1, failed=1)
        await world.say("cancelled", batches=[second])
        report = await world.supervisor().tick()
        assert report.open_tasks == 2
        assert len(world.fleet.alive) == 2

    World().run(scenario)


def test_submission_wakes_it():
    async def scenario(world):
        supervisor = world.supervisor()
        world.start(supervisor)
        await world.pass_s(60)
        began_s = world.clock.monotonic()
        await world.submit(1)
        supervisor.wake()
        await world.until(lambda: world.fleet.alive)
        assert world.clock.monotonic() - began_s < 0.2

    World().run(scenario)


def test_lost_worker_is_recorded_and_replaced():
    async def scenario(world):
        supervisor = world.supervisor()
        task, stop = world.start(supervisor)
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(5)
        victim = world.fleet.alive[1]
        world.fleet.kill(victim.worker)
        await world.until(lambda: len(world.fleet.alive) == 4)
        [lost] = await world.events("worker-lost")
        assert lost.data == {"worker": victim.worker, "reason": "killed by SIGKILL"}
        assert sorted(process.ordinal for process in world.fleet.alive) == [0, 1, 2, 3]
        stop.set()
        report = await task
        assert (report.launched, report.lost, report.state) == (5, 1, "open")
        assert len(world.fleet.alive) == 4

    World().run(scenario)


def test_frozen_worker_is_lost_after_its_lease_and_does_not_stay():
    async def scenario(world):
        world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(20)
        frozen = world.fleet.alive[0]
        frozen.frozen = True
        began_s = world.clock.monotonic()
        await world.until(lambda: frozen.state == "exited")
        assert world.clock.monotonic() - began_s >= world.manifest.lease_s - world.manifest.heartbeat_s
        await world.until(lambda: len(world.fleet.alive) == 4)
        [lost] = await world.events("worker-lost")
        assert lost.data["worker"] == frozen.worker
        assert "lease" in lost.data["reason"]

    World().run(scenario)


def test_nobody_is_lost_because_the_supervisor_slept():
    async def scenario(world):
        supervisor = world.supervisor()
        await world.submit(50)
        await supervisor.tick()
        await world.pass_s(1)
        await supervisor.tick()
        for process in world.fleet.alive:
            process.frozen = True
        await world.pass_s(1000)
        await supervisor.tick()
        await world.pass_s(2)
        assert (await supervisor.tick()).live == 4
        assert await world.events("worker-lost") == []

    World().run(scenario)


def test_worker_that_never_beats_gets_time_to_start():
    async def mute(world, process):
        await world.clock.sleep(1000)

    async def scenario(world):
        world.start(world.supervisor())
        await world.submit(1)
        await world.pass_s(55)
        assert len(world.fleet.processes) == 1
        await world.pass_s(20)
        assert len(world.fleet.processes) == 2

    World(mute).run(scenario)


def test_crash_loop_backs_off_and_ends_the_session_with_the_reason():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        began_s = world.clock.monotonic()
        report = await task
        assert report.over
        assert report.state == "failed"
        assert report.gave_up.startswith("workers stop before they get to work: exit code 1")
        assert "ImportError in w-" in report.gave_up
        assert report.launched == 4
        assert world.clock.monotonic() - began_s > 0.5 + 1 + 2
        [event] = await world.events("terminated")
        assert event.data == {"reason": "failed", "detail": report.gave_up}

    World(dies_at_once, workers=1).run(scenario)


def test_session_that_gave_up_can_be_brought_back():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        assert (await task).gave_up
        world.fleet.behave = steady
        await world.say("extended", deadline_at=world.manifest.created_at + 90_000)
        task, stop = world.start(world.supervisor(pid=2))
        await world.until(lambda: len(world.fleet.alive) == 2)
        await world.pass_s(30)
        stop.set()
        report = await task
        assert (report.state, report.gave_up, report.live) == ("open", None, 2)

    World(dies_at_once, workers=2).run(scenario)


def test_progress_forgives_early_deaths():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        batch = await world.submit(50)
        for i in range(40):
            await world.pass_s(0.5)
            await world.finish(batch, i)
        assert not task.done()
        assert len(world.fleet.processes) > 8

    World(dies_at_once, workers=2).run(scenario)


def test_early_deaths_do_not_end_a_session_in_which_somebody_works():
    """No chunk is finished meanwhile: that one worker is at work is seen from its heartbeat alone."""

    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.pass_s(120)
        assert not task.done()
        assert len(world.fleet.processes) > 5

    async def one_works(world, process):
        first = next(iter(world.fleet.processes)) == process.worker
        return await (steady if first else dies_at_once)(world, process)

    World(one_works, workers=2).run(scenario)


def test_a_worker_that_got_to_work_breaks_the_row_of_early_deaths():
    """Whoever kills at random kills some before their first task, and others in the middle of one."""

    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.pass_s(120)
        assert not task.done()
        assert len(world.fleet.processes) > 10

    async def every_third_works(world, process):
        if len(world.fleet.processes) % 3:
            return await dies_at_once(world, process)
        await world.beat(process.worker, 1, "running")
        await world.clock.sleep(0.2)
        return -9

    World(every_third_works, workers=1).run(scenario)


def test_worker_that_refuses_ends_the_session():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        report = await task
        assert report.gave_up == "this worker runs Python 3.11, the session 3.12"
        assert report.launched == 2
        stopped = await world.events("worker-stopped")
        assert len(stopped) == 2

    World(refuses, workers=2).run(scenario)


def test_provider_that_cannot_launch():
    async def scenario(world):
        world.fleet.refusals = ["there is no folder /gone"] * 20
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        report = await task
        assert report.gave_up == "no worker can be started: there is no folder /gone"
        assert len(world.fleet.refusals) == 15

    World().run(scenario)


def test_provider_that_refuses_for_a_while():
    async def scenario(world):
        world.fleet.refusals = ["no capacity"] * 3
        world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)

    World().run(scenario)


def test_without_room_for_all_it_runs_with_what_fits_and_tops_up():
    async def scenario(world):
        world.fleet.room = 1
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 1)
        await world.pass_s(120)
        assert len(world.fleet.alive) == 1
        assert len(world.fleet.specs) < 15, "it asks again and again, but not all the time"
        waiting = await world.events("workers-waiting")
        assert [(event.data["missing"], event.data["reason"]) for event in waiting] == [
            (3, "the quota is used up")
        ]
        world.fleet.room = 3
        await world.until(lambda: len(world.fleet.alive) == 3)
        world.fleet.room = None
        await world.until(lambda: len(world.fleet.alive) == 4)
        assert not task.done()

    World().run(scenario)


def test_workers_that_do_not_start_are_told_with_the_reason_once():
    async def scenario(world):
        world.fleet.waits_for = "no EC2 host comes: VcpuLimitExceeded"
        world.start(world.supervisor())
        await world.submit(50)
        await world.pass_s(120)
        waiting = await world.events("workers-waiting")
        assert [event.data for event in waiting] == [{"missing": 4, "reason": world.fleet.waits_for}]

    async def does_not_start(world, process):
        await world.clock.sleep(10_000)

    World(does_not_start).run(scenario)


def test_other_capacity_than_asked_for_is_told_once_each_time():
    async def scenario(world):
        world.fleet.fallback = "no Spot"
        world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(5)

        async def replaced(launches):
            world.fleet.kill(world.fleet.alive[0].worker)
            await world.until(lambda: len(world.fleet.specs) == launches)
            await world.pass_s(5)
            return [event.data for event in await world.events("workers-waiting")]

        assert await replaced(2) == [{"missing": 4, "reason": "no Spot"}]
        world.fleet.fallback = ""
        await replaced(3)
        world.fleet.fallback = "no Spot"
        assert await replaced(4) == [{"missing": 4, "reason": "no Spot"}, {"missing": 1, "reason": "no Spot"}]

    World().run(scenario)


def test_workers_count_as_working_only_once_they_show_a_sign_of_life():
    async def scenario(world):
        supervisor = world.supervisor()
        world.start(supervisor)
        world.fleet.placed = False
        await world.submit(50)
        await world.until(lambda: supervisor.report.live == 4)
        assert (supervisor.report.waiting, supervisor.report.starting) == (4, 0)
        world.fleet.placed = True
        await world.until(lambda: not supervisor.report.waiting)
        assert (supervisor.report.live, supervisor.report.starting) == (4, 3)

    async def only_the_first_begins(world, process):
        if process.ordinal:
            await world.clock.sleep(10_000)
        return await steady(world, process)

    World(only_the_first_begins).run(scenario)


def test_a_provider_that_is_slow_in_its_chores_holds_up_no_worker():
    async def scenario(world):
        world.fleet.slow = asyncio.Event()
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        victim = world.fleet.alive[0]
        world.fleet.kill(victim.worker)
        await world.until(lambda: len(world.fleet.alive) == 4, timeout_s=10)
        assert victim not in world.fleet.alive
        assert world.fleet.tended == 1
        world.fleet.slow.set()
        await world.until(lambda: world.fleet.tended > 3)
        world.fleet.slow = asyncio.Event()
        await world.say("terminated", reason="closed")
        await asyncio.wait_for(task, None)
        assert world.fleet.alive == []

    World().run(scenario)


def test_the_provider_is_tended_by_the_leader_alone_and_once_more_when_all_workers_are_gone():
    async def scenario(world):
        standby = world.supervisor(pid=2)
        others, world.fleet = world.fleet, Fleet(world, steady)
        leader, _ = world.start(world.supervisor(pid=1))
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        world.start(standby, wait=True)
        await world.pass_s(60)
        assert world.fleet.tended > 5
        await world.say("terminated", reason="closed")
        await leader
        assert world.fleet.alive_when_tended[-1] == 0
        assert others.tended == 0

    World().run(scenario)


def test_without_any_room_it_waits_and_does_not_give_up():
    async def scenario(world):
        world.fleet.room = 0
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.pass_s(600)
        assert not task.done()
        world.fleet.room = None
        await world.until(lambda: len(world.fleet.alive) == 4)

    World().run(scenario)


def test_scaling_asks_at_once_for_what_there_was_no_room_for():
    async def scenario(world):
        world.fleet.room = 0
        world.start(world.supervisor())
        await world.submit(50)
        await world.pass_s(120)
        asked = len(world.fleet.specs)
        await world.say("scaled", workers=2)
        await world.pass_s(world.manifest.heartbeat_s)
        assert len(world.fleet.specs) == asked + 1

    World().run(scenario)


def test_workers_that_are_taken_away_are_replaced_however_often():
    """A storm of Spot interruptions before anybody gets to work is no crash loop."""

    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.processes) > 40, timeout_s=1200)
        assert not task.done()
        assert world.clock.monotonic() > 300, "it tries again less and less often"
        lost = await world.events("worker-lost")
        assert lost[0].data["zone"] == "here-1a"

    async def is_taken(world, process):
        await world.clock.sleep(0.2)
        world.fleet.taken.add(process.worker)
        return -9

    World(is_taken, workers=2).run(scenario)


def test_what_the_next_worker_would_meet_too_ends_the_session_at_once():
    async def scenario(world):
        world.fleet.hopeless = "CannotPullContainerError: no such image"
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        report = await task
        assert report.gave_up.startswith("workers cannot start: CannotPullContainerError: no such image")
        assert report.launched == 2

    World(dies_at_once, workers=2).run(scenario)


def test_one_that_cannot_start_does_not_end_a_session_in_which_others_work():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(3)
        world.fleet.hopeless = "CannotPullContainerError: pull access denied"
        world.fleet.kill(world.fleet.alive[0].worker)
        await world.until(lambda: len(world.fleet.alive) == 4)
        assert not task.done()
        assert [event.data["reason"] for event in await world.events("worker-lost")] == [world.fleet.hopeless]

    async def cannot_start(world, process):
        if process.ordinal == 0:  # its container never ran: no heartbeat
            await world.clock.sleep(1000)
        return await steady(world, process)

    World(cannot_start).run(scenario)


def test_deadline_stops_all_workers_and_ends_the_session():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: world.fleet.alive)
        report = await task
        assert world.clock.time() - world.manifest.created_at == pytest.approx(100, abs=15)
        assert (report.state, report.over) == ("expired", True)
        assert world.fleet.alive == []
        assert [event.data["reason"] for event in await world.events("terminated")] == ["expired"]

    World(absolute_timeout_s=100.0).run(scenario)


def test_deadline_ends_workers_that_do_not_listen():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        assert (await task).over
        assert world.fleet.alive == []

    World(deaf, absolute_timeout_s=100.0).run(scenario)


def test_extended_session_goes_on():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.say("extended", deadline_at=world.manifest.created_at + 500)
        await world.pass_s(300)
        assert not task.done()
        assert len(world.fleet.alive) == 4
        assert (await task).state == "expired"

    World(absolute_timeout_s=100.0).run(scenario)


def test_session_with_nothing_to_do_ends():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        batch = await world.submit(1)
        await world.until(lambda: world.fleet.alive)
        await world.pass_s(700)
        assert not task.done()
        await world.finish(batch, 0)
        began_s = world.clock.monotonic()
        report = await task
        assert world.clock.monotonic() - began_s == pytest.approx(600, abs=15)
        assert report.state == "idle"
        assert world.fleet.alive == []
        assert [event.data["reason"] for event in await world.events("terminated")] == ["idle"]

    World().run(scenario)


def test_session_without_work_and_workers_ends_and_says_so():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        report = await task
        assert (report.state, report.over) == ("idle", True)
        assert [event.data["reason"] for event in await world.events("terminated")] == ["idle"]

    World().run(scenario)


def test_cancelled_session_is_left_by_all():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: world.fleet.alive)
        await world.say("cancelled")
        report = await task
        assert (report.state, world.fleet.alive) == ("cancelled", [])
        assert await world.events("terminated") == []

    World().run(scenario)


def test_scaling_up_and_down():
    async def scenario(world):
        world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.say("scaled", workers=6)
        await world.until(lambda: len(world.fleet.alive) == 6)
        await world.say("scaled", workers=2)
        await world.until(lambda: len(world.fleet.alive) == 2)
        await world.pass_s(30)
        assert len(world.fleet.alive) == 2
        assert len(world.fleet.processes) == 6
        assert len(await world.events("worker-stopped")) == 4
        assert await world.events("worker-lost") == []
        assert {grace_s for _, grace_s in world.fleet.stopped} == {35.0}

    World().run(scenario)


def test_workers_that_left_idle_are_not_replaced_while_others_work():
    async def scenario(world):
        world.start(world.supervisor())
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(200)
        assert len(world.fleet.processes) == 4
        await world.submit(1)
        await world.until(lambda: len(world.fleet.alive) == 4)

    World(leaves_when_idle).run(scenario)


def test_foreign_workers_count_until_they_fall_silent():
    async def scenario(world):
        for n in range(1, 20):
            await world.beat("w-by-hand", n, "running")
            if n == 1:
                await world.submit(50)
                world.start(world.supervisor())
            await world.pass_s(1)
        assert len(world.fleet.alive) == 3
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(20)
        [lost] = await world.events("worker-lost")
        assert lost.data["worker"] == "w-by-hand"

    World().run(scenario)


def test_foreign_worker_that_leaves_in_order_is_replaced():
    async def scenario(world):
        await world.submit(50)
        await world.beat("w-by-hand", 1, "running")
        world.start(world.supervisor())
        await world.until(lambda: len(world.fleet.alive) == 3)
        await world.beat("w-by-hand", 2, "stopped", "interrupted")
        await world.until(lambda: len(world.fleet.alive) == 4)
        [stopped] = await world.events("worker-stopped")
        assert stopped.data == {"worker": "w-by-hand", "reason": "interrupted"}

    World().run(scenario)


def test_survives_a_store_that_fails_for_a_while():
    async def scenario(world):
        store = FaultyStore(world.store, clock=world.clock)
        task, _ = world.start(world.supervisor(store=store))
        await world.pass_s(1)
        await world.submit(50)
        for verb in ("list", "get_range", "create", "overwrite"):
            store.fail(verb, error=StoreUnavailable("503 Slow Down"), times=30)
        await world.until(lambda: len(world.fleet.alive) == 4)
        await world.pass_s(30)
        assert not task.done()
        assert len(world.fleet.processes) == 4

    World(lease_s=60.0).run(scenario)


def test_full_store_does_not_hold_up_workers():
    async def scenario(world):
        full = True

        def script(verb, key):
            return Fault(error=StoreFull("no space left")) if verb == "create" and full else None

        store = FaultyStore(world.store, clock=world.clock, script=script)
        supervisor = world.supervisor(store=store)
        await world.submit(50)
        await supervisor.tick()
        await world.pass_s(1)
        world.fleet.kill(world.fleet.alive[0].worker)
        await supervisor.tick()
        assert len(world.fleet.alive) == 4
        assert await world.events() == []
        full = False
        report = await supervisor.tick()
        assert len(await world.events("worker-lost")) == report.lost == 1

    World().run(scenario)


def test_damaged_objects_are_passed_over():
    async def scenario(world):
        await world.submit(50)
        world.batches += 1
        await world.store.create(world.keys.batch(2), b"not a pack")
        await world.submit(3)
        await world.say("scaled", size="large")
        report = await world.supervisor().tick()
        assert report.open_tasks == 53
        assert len(world.fleet.alive) == 4

    World().run(scenario)


def test_requests_are_few():
    async def scenario(world):
        store = FaultyStore(world.store)
        world.start(world.supervisor(store=store))
        await world.submit(50)
        await world.pass_s(10)
        beats_s = world.manifest.heartbeat_s
        before = world.store.counts.total
        await world.pass_s(100)
        busy = world.store.counts.total - before - 4 * 100 / beats_s
        assert busy / (100 / 0.25) <= 4.5
        for first in range(50):
            await world.finish(1, first)
        for process in world.fleet.alive:
            process.leave.set()
        await world.pass_s(30)
        before = world.store.counts.total
        await world.pass_s(100)
        quiet = world.store.counts.total - before
        assert quiet / (100 / beats_s) <= 4.5

    World().run(scenario)


def test_cancelling_it_leaves_nothing_behind():
    async def scenario(world):
        task, _ = world.start(world.supervisor())
        await world.submit(50)
        await world.pass_s(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        others = asyncio.all_tasks() - {asyncio.current_task(), *(p.task for p in world.fleet.alive)}
        assert others == set()
        assert len(world.fleet.alive) == 4

    World().run(scenario)


def test_a_refusal_from_before_a_session_goes_on_does_not_end_it_again():
    """Its worker gave up for want of room; the session was extended when there was room again."""

    async def gives_up_late(world, process):
        if process.worker != next(iter(world.fleet.processes)):
            return await steady(world, process)
        await world.beat(process.worker, 1, "running")
        await process.leave.wait()
        await world.clock.sleep(1)
        await world.beat(process.worker, 2, "refused", "nothing could be written: No space left")
        return 3

    async def scenario(world):
        await world.submit(8)
        supervisor = world.supervisor()
        await supervisor.tick()
        await world.say("terminated", reason="failed")
        assert (await supervisor.tick()).state == "failed"
        await world.say("extended", deadline_at=world.clock.time() + 100_000)
        await world.pass_s(2)
        for _ in range(3):
            report = await supervisor.tick()
            assert (report.state, report.gave_up) == ("open", None)
            await world.pass_s(1)

    World(behave=gives_up_late).run(scenario)
