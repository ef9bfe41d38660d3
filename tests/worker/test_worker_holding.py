"""A chunk in a worker's hands: flushes, its end, what is given away, and other workers that write to it as well."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from worker_parts import KEYS, Session

from starburst.protocol.claims import takeover
from starburst.protocol.keys import ChunkId, Keys
from starburst.protocol.records import Failure, encode_json
from starburst.protocol.results import Run
from starburst.testing import FaultyStore
from starburst.worker.holding import Holding


@dataclass
class Desk:
    """What a chunk needs of its agent, without the agent."""

    store: Any
    clock: Any
    board: Any
    worker: str = "a"
    keys: Keys = KEYS


async def hold(session, n_tasks=10, *, store=None):
    """Worker a claims the only chunk."""
    await session.submit(abs, range(n_tasks), chunksize=n_tasks)
    board = session.board("a")
    await board.look_for_batches()
    held = await board.claim_fresh()
    return Holding(Desk(store or session.store, session.clock, board), held)


async def successor(session, name="b"):
    """Worker b takes the chunk over from a, which is not dead."""
    board = session.board(name)
    board._state.lost["a"] = "it seems"
    await board.look_for_batches()
    held = await board.claim_abandoned(every_s=0.0)
    return Holding(Desk(session.store, session.clock, board, worker=name), held)


def run_of(*values):
    run = Run()
    run.add_values(list(values))
    return run


async def flushed(holding):
    holding.start_flush()
    await holding.flush_all()


def in_session(scenario):
    return Session().run(scenario)


def test_flushes_are_links_of_one_chain():
    async def scenario(session):
        holding = await hold(session, 5)
        for values in ((0, 1), (2,), (3, 4)):
            holding.take(run_of(*values))
            assert holding.has_news
            assert holding.unflushed_bytes > 0
            await flushed(holding)
            assert not holding.has_news
            assert holding.unflushed_bytes == 0
        assert holding.done
        await holding.close()
        assert [KEYS.parse_result(i.key)[1] for i in await session.store.list(KEYS.results(1))] == [0, 2, 3]
        assert await session.values() == {n: n for n in range(5)}
        assert await session.marks() == {0: (5, 0)}

    in_session(scenario)


def test_without_news_nothing_is_written():
    async def scenario(session):
        holding = await hold(session)
        before = session.store.counts.put
        await flushed(holding)
        assert session.store.counts.put == before

    in_session(scenario)


def test_what_comes_while_a_flush_is_under_way_is_in_the_next():
    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        faulty.delay("create", "*results*", delay_s=10)
        holding = await hold(session, 4, store=faulty)
        holding.take(run_of(0, 1))
        holding.start_flush()
        await session.clock.sleep(1)
        holding.take(run_of(2))
        assert holding.position == 3
        holding.start_flush()
        holding.take(run_of(3))
        assert holding.position == 4
        await holding.close()
        assert await session.values() == {n: n for n in range(4)}
        assert len(await session.store.list(KEYS.results(1))) == 2

    in_session(scenario)


def test_failures_count_as_such():
    async def scenario(session):
        holding = await hold(session, 2)
        holding.take(run_of("fine"))
        failed = holding.fail(Failure(kind="timeout", message="too long"))
        assert (failed.ok, failed.failed) == (0, 1)
        await holding.close()
        assert await session.marks() == {0: (1, 1)}
        assert (await session.results())[1].failure.message == "too long"

    in_session(scenario)


def test_a_chunk_that_is_not_finished_is_given_back_with_what_is_done():
    async def scenario(session):
        holding = await hold(session)
        holding.take(run_of(0, 1, 2))
        await holding.close()
        assert [claim.kind for claim in await session.claims(0)] == ["claim", "release"]
        assert await session.marks() == {}
        follower = await successor(session)
        assert (follower.position, follower.held.attempt) == (3, 1)

    in_session(scenario)


def test_what_is_given_away_is_a_chunk_for_others_and_no_more_of_this_one():
    async def scenario(session):
        holding = await hold(session)
        holding.take(run_of(0, 1, 2, 3))
        assert await holding.give_away([(4, 7), (7, 10)])
        assert holding.done
        await holding.close()
        assert await session.marks() == {0: (4, 0)}
        board = session.board("b")
        await board.look_for_batches()
        parts = [await board.claim_fresh() for _ in range(2)]
        assert [(part.chunk.first, part.end) for part in parts] == [(4, 7), (7, 10)]

    in_session(scenario)


# Others that hold the chunk too


def test_one_that_was_taken_over_drops_its_copy():
    async def scenario(session):
        late = await hold(session, 4)
        late.take(run_of("late", "late"))
        heir = await successor(session)
        heir.take(run_of(0, 1))
        await flushed(heir)
        told = []
        late.start_flush(lambda: told.append(1))
        await late.close()
        assert late.superseded
        assert told == [1]
        heir.take(run_of(2, 3))
        await heir.close()
        assert await session.values() == {n: n for n in range(4)}
        assert await session.marks() == {0: (4, 0)}

    in_session(scenario)


def test_one_that_was_taken_over_cannot_give_the_chunk_back_or_away():
    async def scenario(session):
        late = await hold(session)
        heir = await successor(session)
        assert not await late.give_away([(5, 10)])
        assert late.superseded
        await late.release()
        assert [claim.worker for claim in await session.claims(0)] == ["a", "b"]
        assert heir.held.end == 10

    in_session(scenario)


def test_an_earlier_holder_that_was_not_dead_after_all_is_given_way_to():
    async def scenario(session):
        late = await hold(session, 6)
        late.take(run_of(0, 1, 2))
        heir = await successor(session)
        heir.take(run_of("heir"))
        await flushed(late)
        await flushed(heir)
        assert not heir.superseded
        assert heir.position == 3
        assert not heir.held.fenced, "it has not won a flush yet, so it may not share"
        await heir.resume()
        heir.take(run_of(3, 4, 5))
        await heir.close()
        assert heir.held.fenced
        assert await session.values() == {n: n for n in range(6)}
        assert await session.marks() == {0: (6, 0)}

    in_session(scenario)


def test_what_the_old_job_brings_after_a_lost_flush_is_dropped():
    async def scenario(session):
        late = await hold(session, 6)
        late.take(run_of(0, 1, 2))
        heir = await successor(session)
        heir.take(run_of("heir"))
        await flushed(late)
        await flushed(heir)
        heir.take(run_of("of task 1"))
        assert not heir.has_news
        assert heir.position == 3

    in_session(scenario)


def test_after_a_lost_flush_no_task_is_run_before_it_is_known_which_is_next():
    """Its results would be written under other tasks' numbers."""

    async def scenario(session):
        faulty = FaultyStore(session.store, clock=session.clock)
        late = await hold(session, 6)
        heir = await successor(session)
        heir._office.store = faulty
        faulty.delay("get_range", "*results*", delay_s=5)
        late.take(run_of(0, 1, 2))
        await flushed(late)
        heir.take(run_of("heir"))
        heir.start_flush()
        await session.clock.sleep(1)
        assert heir.stale
        resuming = asyncio.ensure_future(heir.resume())
        await session.clock.sleep(1)
        assert not resuming.done()
        await resuming
        assert heir.position == 3
        heir.take(run_of(3, 4, 5))
        await heir.close()
        assert await session.values() == {n: n for n in range(6)}

    in_session(scenario)


@pytest.mark.parametrize("when", ["before the chain", "between chain and log"])
def test_after_a_lost_flush_a_successor_is_noticed_whenever_it_claims(when):
    """Were the log looked at first, a share that was made in between would be overrun."""

    async def scenario(session):
        late = await hold(session, 8)
        middle = await successor(session, "b")
        late.take(run_of(0, 1))
        await flushed(late)
        faulty = FaultyStore(session.store, clock=session.clock)
        middle._office.store = faulty
        verb, keys = ("get_range", "*results*") if when == "before the chain" else ("get", "*claims*")
        faulty.delay(verb, keys, delay_s=5)
        middle.take(run_of("lost"))
        middle.start_flush()
        await session.clock.sleep(1)
        board = session.board("c")
        board._state.lost.update(a="it seems", b="it seems")
        await board.look_for_batches()
        heir = Holding(
            Desk(session.store, session.clock, board, worker="c"), await board.claim_abandoned(every_s=0.0)
        )
        heir.take(run_of(2))
        await flushed(heir)
        assert await heir.give_away([(5, 8)])
        await middle.close()
        assert middle.superseded
        heir.take(run_of(3, 4))
        await heir.close()
        assert await session.values() == {n: n for n in range(5)}

    in_session(scenario)


def test_a_chain_that_the_other_one_finished_is_marked_by_both_alike():
    async def scenario(session):
        late = await hold(session, 3)
        late.take(run_of(0, 1, 2))
        heir = await successor(session)
        heir.take(run_of("heir"))
        await late.close()
        await heir.close()
        assert await session.values() == {n: n for n in range(3)}
        assert await session.marks() == {0: (3, 0)}
        record = takeover(await session.claims(0), "c", 3, 0.0)
        assert await session.store.create(KEYS.claim(ChunkId(1, 0), 3), encode_json(record)), (
            "no further claim"
        )

    in_session(scenario)
