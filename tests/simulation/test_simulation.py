"""Whole sessions in virtual time, with everything going wrong that may: no seed ends with a broken promise.

What fails is repeated by ``python tests/simulation --seed N --trace``; ``make simulate`` runs more seeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from sim_checks import violations
from sim_clients import work
from sim_world import World, run_seed

from starburst.protocol.keys import ChunkId, DoneMark
from starburst.protocol.results import Run, decode_result, encode_result
from starburst.protocol.sessions import publish_parts

AT_ONCE = 50
SEEDS = 300


def examine(seed: int, scale: int = 1) -> None:
    found = violations(run_seed(seed, scale=scale))
    repeat = f"python tests/simulation --seed {seed} --scale {scale} --trace"
    assert not found, "\n".join([f"seed {seed}, to be repeated by: {repeat}", *found])


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_seed_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        examine(seed)


@pytest.mark.parametrize(("seed", "scale"), [(2, 25), (8, 25), (10, 13)])
def test_a_hundred_workers_and_more(seed: int, scale: int) -> None:
    examine(seed, scale)


def test_a_seed_always_goes_the_same_way() -> None:
    assert {run_seed(3).network.digest for _ in range(3)} == {run_seed(3, trace=True).network.digest}


def a_world_with_long_chains() -> World:
    """One in which every task of the first submission has a value, and chunks were flushed piece by piece."""
    for seed in range(SEEDS):
        world = run_seed(seed)
        tasks = world.plan.clients[0][0].tasks
        plain = not world.truth.cancelled_batches and not world.asked_back and not world.plan.client_kills
        if len(world.plan.clients) == 1 and plain and all(world.plan.tasks[t].kind == "ok" for t in tasks):
            links = asyncio.run(world.store.list(world.keys.results(1)))
            places = [world.keys.parse_result(info.key) for info in links]
            if len(tasks) > 1 and any(first > chunk.first for chunk, first in places):
                return world
    raise AssertionError("no seed gives such a world")


async def a_second_marker(world: World) -> None:
    await world.store.create(world.keys.done(DoneMark(ChunkId(1, 0), 0, 0)), b"")


async def a_lost_result(world: World) -> None:
    listed = await world.store.list(world.keys.results(1))
    await world.store.delete([listed[-1].key])


async def a_lost_marker(world: World) -> None:
    listed = await world.store.list(world.keys.done_marks(1))
    await world.store.delete([listed[-1].key])


async def a_second_result(world: World) -> None:
    """A chunk begins in the middle of another one that goes on behind it."""
    links = [world.keys.parse_result(info.key) for info in await world.store.list(world.keys.results(1))]
    second = next(first for chunk, first in links if first > chunk.first)
    run = Run()
    run.add_values([work(second)])
    chunk = ChunkId(1, second)
    await publish_parts(world.store, world.keys, 1, [(second, second + 1)], at=0.0, next_seq=99)
    body = encode_result(run, first=second, worker="w", attempt=1, compress=False)
    await world.store.create(world.keys.result(chunk, second), body)


async def a_wrong_value(world: World) -> None:
    listed = await world.store.list(world.keys.results(1))
    chunk, first = world.keys.parse_result(listed[-1].key)
    header, _ = decode_result(await world.store.get(listed[-1].key), listed[-1].key)
    run = Run()
    run.add_values([-1] * header.count)
    body = encode_result(run, first=first, worker="w", attempt=1, compress=False)
    await world.store.overwrite(world.keys.result(chunk, first), body)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (a_second_marker, "has 2 markers"),
        (a_lost_result, "has no result"),
        (a_lost_marker, "do not add up"),
        (a_second_result, "has 2 results"),
        (a_wrong_value, "has the value -1"),
    ],
)
def test_the_checks_find(damage: Callable[[World], Coroutine[None, None, None]], said: str) -> None:
    world = a_world_with_long_chains()
    assert not violations(world)
    asyncio.run(damage(world))
    assert said in "\n".join(violations(world))


def test_the_checks_find_what_a_client_was_given_twice() -> None:
    world = a_world_with_long_chains()
    outcomes = world.clients[0].outcomes[1]
    outcomes[0].append(outcomes[0][0])
    del outcomes[1]
    found = "\n".join(violations(world))
    assert "was given task 1-0 2 times" in found
    assert "was not given 1 results of 1" in found
