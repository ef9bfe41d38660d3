"""The clock that tests move."""

import asyncio

import pytest

from starburst.testing.clock import ManualClock


def test_jumps_to_the_next_sleeper_in_order():
    clock = ManualClock(start_s=0.0, wall_s=5000.0)
    woken = []

    async def sleeper(name, *naps):
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    async def main():
        await asyncio.gather(sleeper("a", 3600, 3600), sleeper("b", 5000), sleeper("c", 0, 5000))
        return clock.time()

    assert clock.run(main()) == 5000 + 7200
    assert woken == [("c", 0), ("a", 3600), ("b", 5000), ("c", 5000), ("a", 7200)]


def test_does_not_jump_while_somebody_runs():
    clock = ManualClock()

    async def main():
        sleeping = asyncio.ensure_future(clock.sleep(1))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sleeping.done()
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        before = clock.monotonic()
        await clock.sleep(10)
        assert clock.monotonic() == before + 10

    clock.run(main())


def test_is_moved_by_hand_on_any_loop():
    clock = ManualClock(start_s=0.0)
    woken = []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append(seconds)

    async def main():
        tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (3, 1, 2)]
        await asyncio.sleep(0)
        clock.advance(2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert woken == [1, 2]
        clock.advance(0.5)
        assert clock.monotonic() == 2.5
        clock.advance(0.5)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert woken == [1, 2, 3]
    assert not clock.jump()


def test_real_events_still_come():
    clock = ManualClock()

    async def main():
        return await asyncio.to_thread(lambda: 42)

    assert clock.run(main()) == 42
