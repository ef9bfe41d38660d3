"""How many requests work costs, counted on all sides in virtual time: the same figures on every machine."""

import pytest
from budget_world import FOLDER, S3, World

N_TASKS = 10_000
PROMISED = 0.2
"""Requests per task, of client, supervisor and workers together, that 10,000 small tasks may cost."""
REACHED = 0.03
"""What they cost today, with some room. Whoever has to raise this makes every small task dearer."""

kinds = pytest.mark.parametrize("kind", [FOLDER, S3], ids=lambda kind: kind.name)


def cost(world, scenario):
    """The requests of ``scenario(world)``, and of all before and after it, from the manifest to the last delete."""
    world.run(scenario)
    assert world.left == []
    return world.requests


@kinds
@pytest.mark.parametrize("task_s", [0.0, 20e-6], ids=["no time", "20 us"])
def test_a_map_of_small_tasks_from_cold_to_closed(kind, task_s):
    """``map`` and ``Executor.map`` write the same submission."""
    requests = cost(World(kind, task_s=task_s), lambda world: world.map(N_TASKS))
    assert requests <= REACHED * N_TASKS < PROMISED * N_TASKS


@kinds
@pytest.mark.parametrize(
    ("gathered", "limit"), [(5000, REACHED), (1000, PROMISED)], ids=["quickly", "slowly"]
)
def test_small_tasks_submitted_one_by_one(kind, gathered, limit):
    """``Executor.submit`` gathers calls that come quickly; a slow caller makes more submissions."""
    requests = cost(World(kind), lambda world: world.submit_each(N_TASKS, gathered))
    assert requests <= limit * N_TASKS


@kinds
def test_tasks_of_a_millisecond(kind):
    requests = cost(World(kind, task_s=0.001), lambda world: world.map(N_TASKS))
    assert requests <= PROMISED / 2 * N_TASKS


@kinds
@pytest.mark.parametrize(("workers", "limit"), [(1, PROMISED), (8, PROMISED), (50, 0.6)])
def test_other_numbers_of_workers(kind, workers, limit):
    """Each worker takes its first steps, and each round of chunks has one for each worker."""
    requests = cost(World(kind, workers=workers), lambda world: world.map(N_TASKS))
    assert requests <= limit * N_TASKS


def test_workers_that_come_late_find_all_done():
    """What the client asks while it waits for the first worker does not count for much."""
    requests = cost(World(S3, boot_s=60.0), lambda world: world.map(N_TASKS))
    assert requests <= PROMISED * N_TASKS


@kinds
def test_one_task_on_a_warm_pool(kind):
    async def scenario(world):
        await world.map(1)
        before = world.requests
        await world.map(1)
        assert world.requests - before <= 40

    World(kind).run(scenario)


@kinds
def test_the_thousandth_call_costs_what_the_first_did(kind):
    """Listings go on where they ended; what is finished is not read again."""

    async def scenario(world):
        figures = []
        for calls in (1, 500, 1):
            before = world.requests
            for _ in range(calls):
                await world.map(10)
            figures.append((world.requests - before) / calls)
            await world.pass_s(1.0)
        first, mean, last = figures
        assert max(mean, last) <= max(first, 100)
        assert await world.pass_s(20.0) <= world.kind.quiet_per_s * 20

    World(kind).run(scenario)
