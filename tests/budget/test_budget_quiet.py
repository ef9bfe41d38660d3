"""What is asked while nothing, or nothing new, happens; hours in virtual time."""

import pytest
from budget_world import FOLDER, S3, World

kinds = pytest.mark.parametrize("kind", [FOLDER, S3], ids=lambda kind: kind.name)


@kinds
def test_a_quiet_pool_asks_less_and_less_and_then_nothing(kind):
    """Two warm workers, then the supervisor alone, then nobody."""

    async def scenario(world):
        await world.map(1000)
        warm = await world.pass_s(30.0)
        assert warm <= world.kind.quiet_per_s * 30
        await world.pass_s(60.0)
        assert world.provider.alive == []
        alone = await world.pass_s(600.0)
        assert alone <= 2.5 * 600
        assert alone / 600 < warm / 30
        await world.pass_s(3600.0)
        assert not world.pool.usable
        assert await world.pass_s(7 * 86400.0) == 0

    World(kind).run(scenario)


def test_a_quiet_pool_on_s3_costs_cents():
    async def scenario(world):
        await world.map(1000)
        await world.pass_s(86400.0)
        assert world.usd < 0.05

    World(S3).run(scenario)


@kinds
def test_a_pool_that_was_never_used_asks_nothing(kind):
    async def scenario(world):
        assert await world.pass_s(86400.0) == 0

    World(kind).run(scenario)


@kinds
def test_nobody_asks_after_the_close(kind):
    async def scenario(world):
        await world.map(1000)

    world = World(kind)
    world.run(scenario)
    before = world.requests
    world.clock.run(world.clock.sleep(86400.0))
    assert world.requests == before
    assert world.left == []


@kinds
def test_a_long_task_is_waited_for_in_patience(kind):
    """One worker works, the other one waits for a share and then leaves; the client looks again and again."""

    async def scenario(world):
        world.durations[1, 0] = 900.0
        await world.map(2)
        return world.requests / 900

    world = World(kind)
    assert world.run(scenario) <= world.kind.waiting_per_s


def test_an_hour_of_waiting_on_s3_costs_cents():
    async def scenario(world):
        world.durations[1, 0] = 3600.0
        await world.map(2)
        assert world.usd < 0.15

    World(S3).run(scenario)


@kinds
def test_the_client_asks_for_results_only_while_it_waits(kind):
    """The supervisor's requests are its own; the collector's end with the last result."""

    async def scenario(world):
        await world.map(1000)
        asked = world.asked("results/")
        await world.pass_s(600.0)
        assert world.asked("results/") == asked > 0

    World(kind).run(scenario)
