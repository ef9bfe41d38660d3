"""Who of several supervisors leads: on one store and one clock."""

import asyncio

import pytest
from fleet import World

from starburst.errors import StoreUnavailable
from starburst.protocol.records import encode_json
from starburst.supervisor import Identity, ensure_supervisor
from starburst.supervisor.leader import LeaderBeat, Standing, latest_term, lead
from starburst.testing.stores import Fault, FaultyStore


def me(pid, *, host="here", alive=True, detached=True):
    return Identity(detached=detached, host=host, pid=pid, is_alive=lambda pid, since: alive)


async def take(world, pid, *, wait=False, store=None, **identity):
    return await lead(store or world.store, world.manifest, world.clock, me=me(pid, **identity), wait=wait)


def elapsed(world, began_s):
    return pytest.approx(world.clock.monotonic() - began_s, abs=world.manifest.heartbeat_s)


def test_first_one_leads_at_once():
    async def scenario(world):
        began_s = world.clock.monotonic()
        term = await take(world, 1)
        assert term.number == 1
        assert world.clock.monotonic() == began_s
        standing = await latest_term(world.store, world.keys)
        assert (standing.term, standing.leader.pid, standing.leader.detached) == (1, 1, True)

    World().run(scenario)


def test_exactly_one_of_many_leads():
    async def scenario(world):
        async def candidate(pid):
            term = await take(world, pid)
            if term is not None:
                world.tasks.append(asyncio.ensure_future(term.keep(lambda: None)))
            return term

        terms = await asyncio.gather(*(candidate(pid) for pid in range(20)))
        assert len([term for term in terms if term is not None]) == 1

    World().run(scenario)


def test_second_one_gives_way_as_soon_as_it_sees_a_beat():
    async def scenario(world):
        term = await take(world, 1)
        world.tasks.append(asyncio.ensure_future(term.keep(lambda: None)))
        began_s = world.clock.monotonic()
        assert await take(world, 2) is None
        assert world.clock.monotonic() - began_s < 2 * world.manifest.heartbeat_s

    World().run(scenario)


def test_silent_leader_is_followed_after_its_lease():
    async def scenario(world):
        await take(world, 1)
        began_s = world.clock.monotonic()
        term = await take(world, 2)
        assert term.number == 2
        assert world.manifest.lease_s == elapsed(world, began_s)

    World().run(scenario)


@pytest.mark.parametrize(
    ("identity", "at_once"),
    [
        ({"alive": False}, True),
        ({"alive": False, "host": "elsewhere"}, False),
        ({"alive": True}, False),
    ],
)
def test_dead_process_of_this_machine_is_followed_at_once(identity, at_once):
    async def scenario(world):
        await take(world, 1)
        began_s = world.clock.monotonic()
        assert (await take(world, 2, **identity)).number == 2
        assert (world.clock.monotonic() == began_s) == at_once

    World().run(scenario)


def test_resigned_leader_is_followed_at_once():
    async def scenario(world):
        await (await take(world, 1)).resign()
        began_s = world.clock.monotonic()
        assert (await take(world, 2)).number == 2
        assert world.clock.monotonic() == began_s

    World().run(scenario)


def test_deposed_leader_notices_and_does_not_resign_for_its_successor():
    async def scenario(world):
        first = await take(world, 1)
        second = await take(world, 2)
        assert not await first.confirm()
        assert first.deposed
        await first.resign()
        assert not await first.renew()
        assert await second.confirm()
        assert not (await latest_term(world.store, world.keys)).resigned

    World().run(scenario)


def test_waiting_ends_with_the_session():
    async def scenario(world):
        term = await take(world, 1)
        world.tasks.append(asyncio.ensure_future(term.keep(lambda: None)))
        task, _ = world.start(world.supervisor(2), wait=True)
        await world.pass_s(50)
        assert not task.done()
        await world.say("cancelled")
        assert await task is None

    World().run(scenario)


def test_waiting_survives_a_store_that_fails():
    async def scenario(world):
        await take(world, 1)
        store = FaultyStore(world.store, clock=world.clock)
        waiting = asyncio.ensure_future(take(world, 2, wait=True, store=store))
        world.tasks.append(waiting)
        await world.pass_s(1)
        store.fail("list", error=StoreUnavailable("503 Slow Down"), times=5)
        await world.until(waiting.done)
        assert waiting.result().number == 2

    World().run(scenario)


def test_damaged_term_is_over_after_a_lease():
    async def scenario(world):
        await world.store.create(world.keys.leader(1), b"{")
        assert (await take(world, 2)).number == 2

    World().run(scenario)


def test_beats_of_a_long_history_do_not_confuse():
    async def scenario(world):
        for pid in range(1, 13):
            assert (await take(world, pid, alive=False)).number == pid
        await world.store.overwrite(
            world.keys.leader_beat(11), encode_json(LeaderBeat(beat=9, at=0.0, resigned=True))
        )
        assert (await latest_term(world.store, world.keys)).term == 12

    World().run(scenario)


def test_standby_takes_over_without_touching_workers():
    async def scenario(world):
        first, _ = world.start(world.supervisor(1))
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        second, _ = world.start(world.supervisor(2), wait=True)
        await world.pass_s(30)
        crew = {process.worker for process in world.fleet.alive}
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        world.fleet.kill(next(iter(crew)))
        await world.until(lambda: len(world.fleet.alive) == 4, timeout_s=20)
        assert len(crew & {process.worker for process in world.fleet.alive}) == 3
        assert len(await world.events("worker-lost")) == 1
        assert not second.done()

    World().run(scenario)


def test_frozen_supervisor_steps_down_when_it_wakes():
    async def scenario(world):
        """Its store stands still for it alone, as it would for a frozen process."""
        thaw_s = 0.0

        def script(verb, key):
            return Fault(delay_s=max(0.0, thaw_s - world.clock.monotonic()))

        store = FaultyStore(world.store, clock=world.clock, script=script)
        first, _ = world.start(world.supervisor(1, store=store))
        await world.submit(50)
        await world.until(lambda: len(world.fleet.alive) == 4)
        second, _ = world.start(world.supervisor(2), wait=True)
        await world.pass_s(5)
        thaw_s = world.clock.monotonic() + 60
        for process in world.fleet.alive[:2]:
            world.fleet.kill(process.worker)
        await world.until(lambda: len(world.fleet.alive) == 4, timeout_s=30)
        await world.pass_s(100)
        assert first.done()
        assert not first.result().over
        assert not second.done()
        assert len(world.fleet.alive) == 4
        assert len(world.fleet.processes) == 6

    World().run(scenario)


def test_detached_supervisor_is_started_where_none_is_known_to_live():
    async def scenario(world):
        async def ensure(**identity):
            return await ensure_supervisor(
                world.store, world.manifest, world.fleet, "memory://world", me=me(9, **identity)
            )

        assert (await ensure()).worker == "supervisor-1"
        assert world.fleet.supervisors[0][0] == "memory://world/sessions/session-test"
        term = await take(world, 1)
        assert await ensure() is None
        assert await ensure(alive=False) is not None
        assert await ensure(host="elsewhere") is not None
        await term.resign()
        assert await ensure() is not None
        await take(world, 2, detached=False)
        assert await ensure() is not None

    World().run(scenario)


def test_standing_without_a_readable_leader_is_not_known_to_be_gone():
    assert not Standing(1, None, "", resigned=False).is_gone(me(1, alive=False))
