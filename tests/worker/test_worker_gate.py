"""Many together, or one alone: who is inside at the same time, and that nobody waits for ever."""

import asyncio
import random

import pytest

from starburst.testing import ManualClock
from starburst.worker.gate import Gate


class Room:
    """Behind a gate: who is in it, who was in it with whom."""

    def __init__(self):
        self.clock = ManualClock()
        self.gate = Gate()
        self.inside = {}
        self.entered = []

    async def stay(self, name, seconds, *, alone=False):
        async with self.gate.enter(alone=alone):
            self.entered.append((self.clock.monotonic() - 1000.0, name))
            self.inside[name] = alone
            self.check()
            await self.clock.sleep(seconds)
            self.check()
            del self.inside[name]

    def check(self):
        assert len(self.inside) == 1 or not any(self.inside.values()), f"not alone: {self.inside}"

    def run(self, *stays):
        """Each of ``stays`` is (when, name, how long, alone)."""

        async def come(at, name, seconds, alone):
            await self.clock.sleep(at)
            await self.stay(name, seconds, alone=alone)

        async def main():
            await asyncio.gather(*(come(*stay) for stay in stays))

        self.clock.run(main())
        return [(round(at, 3), name) for at, name in self.entered]


@pytest.fixture
def room():
    return Room()


def test_many_are_inside_together(room):
    assert room.run((0, "a", 9, False), (1, "b", 9, False), (2, "c", 9, False)) == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]


def test_one_that_wants_to_be_alone_waits_until_all_have_left(room):
    assert room.run((0, "a", 5, False), (0, "b", 9, False), (1, "c", 1, True)) == [
        (0, "a"),
        (0, "b"),
        (9, "c"),
    ]


def test_nobody_enters_while_one_is_alone(room):
    assert room.run((0, "a", 5, True), (1, "b", 1, False), (2, "c", 1, False)) == [
        (0, "a"),
        (5, "b"),
        (5, "c"),
    ]


def test_one_that_waits_to_be_alone_is_not_kept_out_by_those_who_come_later(room):
    assert room.run((0, "a", 5, False), (1, "b", 2, True), (2, "c", 9, False)) == [
        (0, "a"),
        (5, "b"),
        (7, "c"),
    ]


def test_two_that_want_to_be_alone_are_so_one_after_the_other(room):
    assert room.run((0, "a", 5, False), (1, "b", 2, True), (2, "c", 2, True), (3, "d", 1, False)) in (
        [(0, "a"), (5, "b"), (7, "c"), (9, "d")],
        [(0, "a"), (5, "b"), (7, "d"), (8, "c")],
    )


def test_one_that_gives_up_waiting_lets_the_others_in(room):
    async def main():
        stays = [asyncio.ensure_future(room.stay("a", 20))]
        await room.clock.sleep(1)
        waiting = asyncio.ensure_future(room.stay("b", 1, alone=True))
        await room.clock.sleep(1)
        stays.append(asyncio.ensure_future(room.stay("c", 1)))
        await room.clock.sleep(1)
        assert [name for _, name in room.entered] == ["a"]
        waiting.cancel()
        await asyncio.gather(*stays)
        assert waiting.cancelled()
        assert [(round(at), name) for at, name in room.entered] == [(0, "a"), (3, "c")]

    room.clock.run(main())


@pytest.mark.parametrize("alone", [True, False])
def test_an_error_inside_opens_the_gate(room, alone):
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with room.gate.enter(alone=alone):
                raise ZeroDivisionError
        await asyncio.wait_for(room.stay("b", 0, alone=True), 5)

    room.clock.run(main())
    assert room.entered == [(0, "b")]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_and_gives_up_all_others_get_in(room, seed):
    rng = random.Random(seed)

    async def come(name):
        await room.clock.sleep(rng.uniform(0, 10))
        await room.stay(name, rng.uniform(0, 2), alone=rng.random() < 0.4)

    async def main():
        tasks = [asyncio.ensure_future(come(n)) for n in range(30)]
        givers_up = rng.sample(tasks, 8)
        for task in givers_up:
            await room.clock.sleep(rng.uniform(0, 1.5))
            if tasks.index(task) not in room.inside:  # a stay that has begun is not broken off here
                task.cancel()
        done, pending = await asyncio.wait(tasks, timeout=100)
        assert not pending
        assert all(task.cancelled() or task.exception() is None for task in done)
        assert sum(task.cancelled() for task in done) + len(room.entered) == 30

    room.clock.run(main())
