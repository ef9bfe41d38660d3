"""The loop over a store in memory, a provider whose workers are coroutines, and a clock that jumps."""

import pytest
from fleet import World, steady


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

    World().run(scenario)


def test_slots_are_counted():
    async def scenario(world):
        await world.submit(9)
        await world.supervisor().tick()
        assert len(world.fleet.alive) == 3

    World(slots=4).run(scenario)


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
        await world.until(lambda: frozen.state == "exited")
        await world.until(lambda: len(world.fleet.alive) == 4)
        [lost] = await world.events("worker-lost")
        assert lost.data["worker"] == frozen.worker
        assert "lease" in lost.data["reason"]

    World().run(scenario)
