"""How a worker finds chunks, claims them, and takes over what others have given back or lost."""

from __future__ import annotations

import pytest
from worker_parts import KEYS, Session

from starburst.protocol.claims import release, share
from starburst.protocol.keys import ChunkId
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import BatchHeader, Heartbeat, encode_json
from starburst.protocol.sessions import publish_batch, publish_parts
from starburst.protocol.state import SessionState


def in_session(scenario, **options):
    return Session(**options).run(scenario)


async def looked(board):
    await board.look_for_batches()
    return board


async def beat(session, worker, n):
    record = Heartbeat(worker=worker, beat=n, state="running", started_at=0.0, at=0.0)
    await session.store.overwrite(KEYS.worker(worker), encode_json(record))


async def fall_silent(session, board, seconds):
    """Time passes in which nobody else shows a sign of life; the board looks all the time, as it must."""
    until_s = session.clock.monotonic() + seconds
    while session.clock.monotonic() < until_s:
        assert await board.claim_abandoned(every_s=0.0) is None
        await session.clock.sleep(session.manifest.lease_s / 20)


def firsts(held):
    return [h.chunk.first for h in held]


async def claim_all(board):
    """Claim what is free, one after the other."""
    held = []
    while (one := await board.claim_fresh()) is not None:
        held.append(one)
    return held


# Finding and claiming


def test_chunks_are_claimed_in_the_order_of_their_tasks():
    async def scenario(session):
        await session.submit(abs, range(12), chunksize=3)
        board = await looked(session.board("a"))
        held = await claim_all(board)
        assert firsts(held) == [0, 3, 6, 9]
        assert [(h.end, h.position, h.attempt, h.fenced) for h in held][1] == (6, 3, 1, True)
        (claim,) = await session.claims(3)
        assert (claim.kind, claim.worker, claim.position, claim.attempt) == ("claim", "a", 3, 1)

    in_session(scenario)


def test_each_worker_begins_at_its_own_place_and_helps_out_after_that():
    async def scenario(session):
        await session.submit(abs, range(12), chunksize=1, lanes=4)
        boards = [await looked(session.board(f"w{n}", n)) for n in range(4)]
        rounds = [[(await board.claim_fresh()).chunk.first for board in boards] for _ in range(3)]
        assert rounds == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        assert [await board.claim_fresh() for board in boards] == [None] * 4

    in_session(scenario)


def test_workers_that_come_at_the_same_time_hardly_ever_collide():
    async def scenario(session):
        await session.submit(abs, range(200), chunksize=1, lanes=20)
        boards = [await looked(session.board(f"w{n}", n)) for n in range(20)]
        before = session.store.counts.put
        for _ in range(10):
            for board in boards:
                assert await board.claim_fresh() is not None
        assert session.store.counts.put - before == 200

    in_session(scenario)


def test_after_two_collisions_it_looks_what_is_free():
    async def scenario(session):
        await session.submit(abs, range(100), chunksize=1)
        late = await looked(session.board("late"))
        other = await looked(session.board("other"))
        for _ in range(60):
            await other.claim_fresh()
        before = session.store.counts.put
        held = await late.claim_fresh()
        assert held.chunk.first == 60
        assert session.store.counts.put - before == 3

    in_session(scenario)


def test_a_claim_whose_reply_was_lost_is_known_as_its_own():
    from starburst.store.retry import RetryingStore
    from starburst.testing import FaultyStore
    from starburst.worker.board import Board

    async def scenario(session):
        await session.submit(abs, range(2), chunksize=1)
        faulty = FaultyStore(session.store, clock=session.clock)
        faulty.lose_reply("create", "*claims*")
        board = Board(
            RetryingStore(faulty, clock=session.clock),
            KEYS,
            session.manifest,
            worker="a",
            ordinal=0,
            clock=session.clock,
            state=SessionState.of(session.manifest),
        )
        await board.look_for_batches()
        assert (await board.claim_fresh()).chunk.first == 0
        assert len(await session.claims(0)) == 1

    in_session(scenario)


def test_new_submissions_are_read_once():
    async def scenario(session):
        board = session.board("a")
        assert not await board.look_for_batches()
        await session.submit(abs, [1])
        await session.submit(abs, [2])
        assert await board.look_for_batches()
        assert sorted(board.batches) == [1, 2]
        before = session.store.counts.get
        assert not await board.look_for_batches()
        assert session.store.counts.get == before

    in_session(scenario)


def test_a_submission_whose_number_comes_late_is_not_missed():
    """The listing of a folder is no snapshot."""

    async def scenario(session):
        board = session.board("a")
        await session.submit(abs, [1])
        await session.submit(abs, [2])
        await session.submit(abs, [3])
        hidden = bytes(await session.store.get(KEYS.batch(2)))
        await session.store.delete([KEYS.batch(2)])
        await board.look_for_batches()
        assert sorted(board.batches) == [1]
        await session.store.create(KEYS.batch(2), hidden)
        await board.look_for_batches()
        assert sorted(board.batches) == [1, 2, 3]

    in_session(scenario)


def test_a_damaged_submission_is_told_once_and_the_others_are_read():
    async def scenario(session):
        board = session.board("a")
        await session.submit(abs, [1])
        await session.store.overwrite(KEYS.batch(1), b"nonsense" * 10)
        await session.submit(abs, [2])
        await board.look_for_batches()
        assert sorted(board.batches) == [2]
        ((seq, why),) = board.damaged()
        assert seq == 1
        assert KEYS.batch(1) in why
        assert board.damaged() == []

    in_session(scenario)


def test_tasks_of_cancelled_submissions_are_claimed_no_more():
    async def scenario(session):
        await session.submit(abs, [1, 2], chunksize=1)
        await session.submit(abs, [3])
        state = SessionState.of(session.manifest)
        board = await looked(session.board("a", state=state))
        assert (await board.claim_fresh()).batch.seq == 1
        state.cancelled_batches.add(1)
        assert (await board.claim_fresh()).batch.seq == 2
        assert await board.claim_fresh() is None

    in_session(scenario)


def test_arguments_of_a_large_submission_are_fetched_chunk_by_chunk():
    async def scenario(session):
        await session.submit(len, ["x" * 900_000 + str(n) for n in range(8)], chunksize=2)
        board = await looked(session.board("a"))
        assert session.store.counts.bytes_in < 100_000, "of the submission only its index was read"
        held = await claim_all(board)
        frames = [bytes(await board.fetch(one)) for one in held]
        assert len({frame[:2_000_000] for frame in frames}) == 4
        before = session.store.counts.get
        await board.fetch(held[0])
        assert session.store.counts.get == before

    in_session(scenario)


# Taking over


def test_what_was_given_back_is_taken_over_where_its_results_end():
    async def scenario(session):
        await session.submit(abs, range(6), chunksize=6)
        first = await looked(session.board("first"))
        held = await first.claim_fresh()
        assert await session.write_result(0, [0, 1], by="first")
        assert await first.append(held, release(held.log[-1], 0.0))
        first.forget(held, done=False)
        second = await looked(session.board("second"))
        taken = await second.claim_abandoned(every_s=0.0)
        assert (taken.position, taken.end, taken.attempt, taken.ok, taken.failed) == (2, 6, 1, 2, 0)
        assert not taken.fenced, "the first one may still be writing"
        assert [claim.kind for claim in await session.claims(0)] == ["claim", "release", "claim"]

    in_session(scenario)


def test_a_chunk_of_a_living_worker_is_left_to_it_for_ever():
    async def scenario(session):
        await session.submit(abs, range(3), chunksize=3)
        await (await looked(session.board("a"))).claim_fresh()
        board = await looked(session.board("b"))
        for n in range(100):
            await beat(session, "a", n)
            assert await board.claim_abandoned(every_s=0.0) is None
            assert board.others_at_work
            await session.clock.sleep(session.manifest.lease_s / 3)

    in_session(scenario)


def test_a_silent_worker_is_lost_after_a_lease_that_begins_when_it_is_looked_at():
    async def scenario(session):
        lease_s = session.manifest.lease_s
        await session.submit(abs, range(3), chunksize=3)
        await (await looked(session.board("a"))).claim_fresh()
        await beat(session, "a", 1)
        await session.clock.sleep(10 * lease_s)
        board = await looked(session.board("b"))
        await fall_silent(session, board, 0.95 * lease_s)
        await session.clock.sleep(0.15 * lease_s)
        taken = await board.claim_abandoned(every_s=0.0)
        assert (taken.attempt, taken.position) == (2, 0)
        assert not board.others_at_work

    in_session(scenario)


def test_a_holder_that_never_showed_a_heartbeat_is_lost_after_a_lease():
    async def scenario(session):
        lease_s = session.manifest.lease_s
        await session.submit(abs, range(3), chunksize=3)
        await (await looked(session.board("client-that-withdraws"))).claim_fresh()
        board = await looked(session.board("b"))
        await fall_silent(session, board, 0.95 * lease_s)
        await session.clock.sleep(0.15 * lease_s)
        assert await board.claim_abandoned(every_s=0.0) is not None

    in_session(scenario)


def test_whoever_its_provider_saw_die_is_lost_at_once():
    async def scenario(session):
        await session.submit(abs, range(3), chunksize=3)
        await (await looked(session.board("a"))).claim_fresh()
        await beat(session, "a", 1)
        state = SessionState.of(session.manifest)
        board = await looked(session.board("b", state=state))
        assert await board.claim_abandoned(every_s=0.0) is None
        state.lost["a"] = "killed by SIGKILL"
        assert (await board.claim_abandoned(every_s=0.0)).attempt == 2

    in_session(scenario)


def test_an_observer_that_slept_itself_takes_nobody_for_lost():
    async def scenario(session):
        await session.submit(abs, range(3), chunksize=3)
        await (await looked(session.board("a"))).claim_fresh()
        await beat(session, "a", 1)
        board = await looked(session.board("b"))
        assert await board.claim_abandoned(every_s=0.0) is None
        await session.clock.sleep(100 * session.manifest.lease_s)
        await beat(session, "a", 2)
        assert await board.claim_abandoned(every_s=0.0) is None

    in_session(scenario)


def test_attempts_count_against_the_task_at_the_front_only():
    async def scenario(session):
        await session.submit(abs, range(6), chunksize=6)
        state = SessionState.of(session.manifest)
        await (await looked(session.board("w0"))).claim_fresh()
        attempts = []
        for n in range(1, 6):
            state.lost[f"w{n - 1}"] = "gone"
            taken = await (await looked(session.board(f"w{n}", state=state))).claim_abandoned(every_s=0.0)
            attempts.append((taken.position, taken.attempt))
            if n == 3:
                await session.write_result(0, [0], by="w3")
        assert attempts == [(0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]

    in_session(scenario)


def test_of_two_that_take_over_at_the_same_time_one_wins():
    async def scenario(session):
        await session.submit(abs, range(3), chunksize=3)
        held = await (first := await looked(session.board("a"))).claim_fresh()
        await first.append(held, release(held.log[-1], 0.0))
        boards = [await looked(session.board(name)) for name in "bc"]
        taken = [await board.claim_abandoned(every_s=0.0) for board in boards]
        assert [one is not None for one in taken] == [True, False]
        assert not await first.append(held, release(held.log[-1], 0.0)), "and the first one has lost it"

    in_session(scenario)


def test_surveys_are_not_more_frequent_than_asked():
    async def scenario(session):
        await session.submit(abs, range(3), chunksize=3)
        await (await looked(session.board("a"))).claim_fresh()
        board = await looked(session.board("b"))
        await board.claim_abandoned(every_s=1.0)
        before = session.store.counts.total
        await session.clock.sleep(0.9)
        await board.claim_abandoned(every_s=1.0)
        assert session.store.counts.total == before
        await session.clock.sleep(0.2)
        await board.claim_abandoned(every_s=1.0)
        assert session.store.counts.total > before

    in_session(scenario)


def test_the_logs_of_chunks_at_work_are_not_read_while_nobody_is_lost():
    async def scenario(session):
        await session.submit(abs, range(20), chunksize=1)
        assert len(await claim_all(await looked(session.board("a")))) == 20
        state = SessionState.of(session.manifest)
        board = await looked(session.board("b", state=state))
        before = session.store.counts.get
        for n in range(5):
            await beat(session, "a", n)
            assert await board.claim_abandoned(every_s=0.0) is None
            await session.clock.sleep(session.manifest.lease_s / 6)
        assert session.store.counts.get == before
        state.lost["a"] = "gone"
        assert await board.claim_abandoned(every_s=0.0) is not None

    in_session(scenario)


def test_a_holder_that_has_just_come_is_not_lost_because_the_chunk_has_been_at_work_for_long():
    async def scenario(session):
        await session.submit(abs, [1])
        held = await (a := await looked(session.board("a"))).claim_fresh()
        state = SessionState.of(session.manifest)
        state.lost["somebody"] = "gone"
        board = await looked(session.board("b", state=state))
        for n in range(15):
            await beat(session, "a", n)
            assert await board.claim_abandoned(every_s=0.0) is None
            await session.clock.sleep(session.manifest.lease_s / 10)
        # It is given back, and taken by one whose first heartbeat the next look does not see yet.
        await a.append(held, release(held.log[-1], 0.0))
        assert await (await looked(session.board("c"))).claim_abandoned(every_s=0.0) is not None
        assert await board.claim_abandoned(every_s=0.0) is None

    in_session(scenario)


def test_a_chunk_without_its_marker_is_marked_by_whoever_looks():
    async def scenario(session):
        await session.submit(abs, range(4), chunksize=2)
        first = await looked(session.board("a"))
        assert firsts(await claim_all(first)) == [0, 2]
        await session.write_result(0, [0, 1], by="a")
        state = SessionState.of(session.manifest)
        state.lost["a"] = "gone"
        board = await looked(session.board("b", state=state))
        taken = await board.claim_abandoned(every_s=0.0)
        assert taken.chunk.first == 2
        assert await session.marks() == {0: (2, 0)}
        assert len(await session.claims(0)) == 1, "that needs no claim"

    in_session(scenario)


def test_a_submission_that_is_done_is_looked_at_no_more():
    async def scenario(session):
        await session.submit(abs, range(2), chunksize=1)
        board = await looked(session.board("a"))
        for first in range(2):
            await session.store.create(f"{KEYS.done_marks(1)}{first:08d}.1.0", b"")
        assert await board.claim_abandoned(every_s=0.0) is None
        assert board.open_batches == []

    in_session(scenario)


def test_parts_that_become_known_behind_finished_chunks_are_still_counted():
    async def scenario(session):
        await session.submit(abs, range(20), chunksize=10)
        board = await looked(session.board("a"))
        for mark in ("00000000.4.0", "00000010.10.0"):
            await session.store.create(f"{KEYS.done_marks(1)}{mark}", b"")
        assert await board.claim_abandoned(every_s=0.0) is None
        await publish_parts(session.store, KEYS, 1, [(4, 10)], at=0.0)
        await session.store.create(f"{KEYS.done_marks(1)}00000004.6.0", b"")
        await board.look_for_batches()
        assert await board.claim_abandoned(every_s=0.0) is None
        assert board.open_batches == []

    in_session(scenario)


# Shares


async def shared_out(session, *, published):
    """Chunk 0 … 9 of worker a, which gave 4 … 9 away in two parts, and then was lost."""
    await session.submit(abs, range(10), chunksize=10)
    board = await looked(session.board("a"))
    held = await board.claim_fresh()
    parts = [(4, 7), (7, 10)]
    assert await board.append(held, share(held.log[-1], parts, 0.0))
    if published:
        await board.publish_parts(held.batch, parts)
    state = SessionState.of(session.manifest)
    state.lost["a"] = "gone"
    return state


@pytest.mark.parametrize("published", [True, False])
def test_the_parts_of_a_share_are_chunks_for_everybody(published):
    async def scenario(session):
        state = await shared_out(session, published=published)
        board = await looked(session.board("b", state=state))
        held = [await board.claim_abandoned(every_s=0.0)]
        await board.look_for_batches()
        held += await claim_all(board)
        assert sorted((h.chunk.first, h.position, h.end) for h in held) == [(0, 0, 4), (4, 4, 7), (7, 7, 10)]
        for h in held:
            await board.fetch(h)
        assert [h.batch.frame_of(h.chunk.first)[1] for h in held] == [0, 0, 0]

    in_session(scenario)


def test_a_share_that_is_announced_twice_changes_nothing():
    async def scenario(session):
        state = await shared_out(session, published=True)
        for _ in range(2):
            await publish_parts(session.store, KEYS, 1, [(4, 7), (7, 10)], at=0.0)
        board = await looked(session.board("b", state=state))
        assert board.batches[1].order == [0, 4, 7]
        assert board.batches[1].ends == {0: 10, 4: 7, 7: 10}

    in_session(scenario)


def test_a_share_that_was_not_published_is_published_even_if_nothing_else_is_left_to_do():
    async def scenario(session):
        state = await shared_out(session, published=False)
        await session.write_result(0, [0, 1, 2, 3], by="a")
        board = await looked(session.board("b", state=state))
        assert await board.claim_abandoned(every_s=0.0) is not None, "a part of it"
        assert await session.marks() == {0: (4, 0)}
        assert len(await session.store.list(KEYS.batches)) == 2

    in_session(scenario)


def test_a_share_of_an_unknown_submission_is_passed_over():
    async def scenario(session):
        body = encode_pack(BatchHeader(n_tasks=1, firsts=(0,), counts=(1,), source=99), [])
        await publish_batch(session.store, KEYS, lambda _: body)
        await session.submit(abs, [1])
        board = await looked(session.board("a"))
        assert (await board.claim_fresh()).chunk == ChunkId(2, 0)

    in_session(scenario)
