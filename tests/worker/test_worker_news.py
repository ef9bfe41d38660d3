"""Events reach a worker whole and in order, though reads fail and there are many."""

from __future__ import annotations

import pytest
from worker_parts import KEYS, Session

from starburst.errors import StoreUnavailable
from starburst.protocol.sessions import EventLog
from starburst.testing import FaultyStore


@pytest.mark.parametrize("failing", [1, 2, 20, 33])
def test_a_read_that_fails_loses_no_event(failing):
    async def scenario(session):
        for n in range(1, 41):
            await session.say("scaled", workers=n)
        faulty = FaultyStore(session.store, clock=session.clock)
        log = EventLog(faulty, KEYS)
        faulty.fail("get", KEYS.event(failing))
        with pytest.raises(StoreUnavailable):
            await log.news()
        assert [event.data["workers"] for event in await log.news()] == list(range(1, 41))
        assert await log.news() == []

    Session().run(scenario)


def test_a_worker_that_joins_late_reads_many_events_at_a_time():
    async def scenario(session):
        for n in range(100):
            await session.say("scaled", workers=n + 1)
        faulty = FaultyStore(session.store, clock=session.clock)
        faulty.delay("get", "*events*", delay_s=1.0, times=100)
        began = session.clock.monotonic()
        assert len(await EventLog(faulty, KEYS).news()) == 100
        assert session.clock.monotonic() - began < 10

    Session().run(scenario)
