"""Damaged and newer objects in a worker's way: it names them, gives up as little as it must, and goes on."""

import asyncio

import msgspec
import pytest
from worker_parts import KEYS, Session

from starburst.protocol.claims import first_claim, share, takeover
from starburst.protocol.keys import ChunkId
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import BatchHeader, Event, encode_json
from starburst.protocol.results import Run, encode_result
from starburst.protocol.sessions import publish_batch, publish_parts
from starburst.protocol.state import SessionState
from starburst.testing.simulation import Act

CHUNK = ChunkId(1, 0)


def in_session(scenario, **options):
    return Session(**options).run(scenario)


async def board_for(session, *lost, name="b"):
    """A board that has seen all batches and knows who is lost."""
    state = SessionState.of(session.manifest)
    state.lost.update(dict.fromkeys(lost, "gone"))
    board = session.board(name, state=state)
    await board.look_for_batches()
    return board


async def taken_after_a_lease(session, board):
    """What the board takes over once it has looked on for a lease, and how long that took."""
    start = session.clock.monotonic()
    while True:
        held = await board.claim_abandoned(every_s=0.0)
        if held is not None or not board.open_batches:
            return held, session.clock.monotonic() - start
        assert session.clock.monotonic() - start < 10 * session.manifest.lease_s
        await session.clock.sleep(0.1)


async def write_link(session, first, values, *, damage=None, chunk=CHUNK, by="a"):
    run = Run()
    run.add_values(values)
    body = b"".join(encode_result(run, first=first, worker=by, attempt=1, compress=False))
    await session.store.create(KEYS.result(chunk, first), damage(body) if damage else body)


DAMAGES = {
    "empty": lambda body: b"",
    "cut": lambda body: body[: len(body) // 2],
    "changed": lambda body: body[:9] + bytes([body[9] ^ 1]) + body[10:],
    "something else": lambda body: b"?" * len(body),
}


# ---- claims ----


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"v": 1}', b"[1, 2]"], ids=["empty", "cut", "a field", "a list"]
)
def test_a_claim_that_cannot_be_read_frees_its_chunk_after_a_lease(body):
    async def scenario(session):
        await session.submit(abs, range(4), chunksize=4)
        await session.store.create(KEYS.claim(CHUNK, 1), body)
        board = await board_for(session)
        held, after_s = await taken_after_a_lease(session, board)
        assert session.manifest.lease_s <= after_s < session.manifest.lease_s + 0.3
        assert (held.chunk, held.position, held.end, held.fenced) == (CHUNK, 0, 4, False)
        assert held.attempt == 2, "somebody may have been lost on it"

    in_session(scenario)


def test_an_unreadable_record_behind_a_good_one_takes_the_attempts_no_further():
    async def scenario(session):
        await session.submit(abs, range(4), chunksize=4)
        log = [first_claim("a", 0, 0.0)]
        log.append(takeover(log, "a-2", 0, 0.0))
        for n, record in enumerate(log, 1):
            await session.store.create(KEYS.claim(CHUNK, n), encode_json(record))
        await session.store.create(KEYS.claim(CHUNK, 3), b"?")
        board = await board_for(session, "a", "a-2")
        held, _ = await taken_after_a_lease(session, board)
        assert held.attempt == 3
        assert len(held.log) == 4

    in_session(scenario)


def test_what_an_unreadable_share_gave_away_is_not_run_again_by_who_takes_over():
    """Its announcement tells where the chunk ends now."""

    async def scenario(session):
        await session.submit(abs, range(10), chunksize=10)
        await session.store.create(KEYS.claim(CHUNK, 1), encode_json(first_claim("a", 0, 0.0)))
        await session.store.create(KEYS.claim(CHUNK, 2), b"?")
        await publish_parts(session.store, KEYS, 1, [(4, 7), (7, 10)], at=0.0)
        for first in (4, 7):
            claim = encode_json(first_claim("c", first, 0.0))
            await session.store.create(KEYS.claim(ChunkId(1, first), 1), claim)
        board = await board_for(session, "a")
        held, _ = await taken_after_a_lease(session, board)
        assert (held.chunk.first, held.end) == (0, 4)

    in_session(scenario)


def test_a_session_with_unreadable_claims_comes_to_its_end():
    async def scenario(session):
        await session.submit(abs, [-i for i in range(6)], chunksize=2)
        for first in (0, 4):
            await session.store.create(KEYS.claim(ChunkId(1, first), 1), b"?")
        await session.agent("w", lambda *_: Act(0.1)).run()
        assert await session.values() == {i: i for i in range(6)}
        assert await session.marks() == {0: (2, 0), 2: (2, 0), 4: (2, 0)}

    in_session(scenario)


# ---- results ----


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_behind_a_damaged_result_of_a_lost_worker_the_chunk_is_given_up(damage):
    async def scenario(session):
        await session.submit(abs, range(8), chunksize=6)
        await session.store.create(KEYS.claim(CHUNK, 1), encode_json(first_claim("a", 0, 0.0)))
        await write_link(session, 0, [0, 1])
        await write_link(session, 2, [2], damage=damage)
        board = await board_for(session, "a")
        held = await board.claim_abandoned(every_s=0.0)
        assert held.chunk.first == 6
        assert await session.marks() == {0: (2, 4)}
        assert len(await session.claims(0)) == 1, "nobody has to hold it for that"

    in_session(scenario)


def test_a_result_that_stands_at_another_ones_place_is_damage():
    async def scenario(session):
        await session.submit(abs, range(6), chunksize=6)
        await session.store.create(KEYS.claim(CHUNK, 1), encode_json(first_claim("a", 0, 0.0)))
        run = Run()
        run.add_values([3, 4])
        body = encode_result(run, first=3, worker="a", attempt=1, compress=False)
        await session.store.create(KEYS.result(CHUNK, 0), body)
        board = await board_for(session, "a")
        assert await board.claim_abandoned(every_s=0.0) is None
        assert await session.marks() == {0: (0, 6)}

    in_session(scenario)


def test_of_a_damaged_chunk_with_a_share_only_what_was_kept_is_given_up():
    async def scenario(session):
        await session.submit(abs, range(9), chunksize=9)
        log = [first_claim("a", 0, 0.0)]
        log.append(share(log[-1], [(4, 9)], 0.0))
        for n, record in enumerate(log, 1):
            await session.store.create(KEYS.claim(CHUNK, n), encode_json(record))
        await write_link(session, 0, [0, 1], damage=DAMAGES["cut"])
        board = await board_for(session, "a")
        held, _ = await taken_after_a_lease(session, board)
        assert await session.marks() == {0: (0, 4)}
        assert (held.chunk.first, held.end) == (4, 9), "the share was announced for the lost worker"

    in_session(scenario)


def test_a_worker_whose_place_is_taken_by_something_damaged_gives_up_the_rest():
    async def scenario(session):
        await session.submit(abs, [-i for i in range(4)], chunksize=2)
        await write_link(session, 0, [0], damage=DAMAGES["something else"], by="zombie")
        await session.agent("w", lambda *_: Act(1.0)).run()
        assert await session.marks() == {0: (0, 2), 2: (2, 0)}

    in_session(scenario)


# ---- events ----


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("extended", {}),
        ("extended", {"deadline_at": "tomorrow"}),
        ("scaled", {"workers": None}),
        ("cancelled", {"batches": 1}),
        ("worker-lost", {"worker": "w"}),
        ("of another version", {"x": [1]}),
    ],
)
def test_an_event_that_makes_no_sense_changes_nothing_and_the_next_one_counts(what, data):
    async def scenario(session):
        await session.submit(abs, [-1, -2], chunksize=1)
        working = asyncio.ensure_future(session.agent("w", lambda *_: Act(4.0)).run())
        await session.clock.sleep(1.0)
        await session.say(what, **data)
        await session.until(session.marks)
        assert not working.done()
        await session.say("cancelled")
        assert await working == "the session is cancelled"
        assert await session.values() == {0: 1}

    in_session(scenario)


def test_an_event_of_a_newer_starburst_ends_no_worker():
    async def scenario(session):
        event = Event(v=2, what="extended", at=0.0, data={"until": "the end"})
        await session.store.create(KEYS.event(1), encode_json(event))
        await session.submit(abs, [-1])
        assert await session.agent("w", lambda *_: Act(4.0)).run() == "nothing to do for the idle timeout"
        assert await session.values() == {0: 1}

    in_session(scenario)


# ---- what a newer starburst wrote ----


def newer_header(session):
    header = BatchHeader(v=2, n_tasks=1, firsts=(0,), counts=(1,), function="f")
    return b"".join(encode_pack(header, [b"calls"]))


def newer_layout(session):
    header = BatchHeader(n_tasks=1, firsts=(0,), counts=(1,), function="f")
    body = bytearray(b"".join(encode_pack(header, [b"calls"])))
    body[4] = 2
    return bytes(body)


@pytest.mark.parametrize("newer", [newer_header, newer_layout])
def test_a_submission_of_a_newer_starburst_is_told_and_the_next_one_is_worked_on(newer):
    async def scenario(session):
        await publish_batch(session.store, KEYS, lambda _: newer(session))
        await session.submit(abs, [-7])
        board = await board_for(session)
        ((seq, why),) = board.damaged()
        assert seq == 1
        assert KEYS.batch(1) in why
        await session.agent("w").run()
        assert await session.values(2) == {0: 7}

    in_session(scenario)


def test_a_chunk_whose_claim_a_newer_starburst_wrote_is_left_alone_and_told():
    async def scenario(session):
        await session.submit(abs, range(4), chunksize=2)
        newer = msgspec.structs.replace(first_claim("a", 0, 0.0), v=2)
        await session.store.create(KEYS.claim(CHUNK, 1), encode_json(newer))
        board = await board_for(session, "a")
        held = await board.claim_abandoned(every_s=0.0)
        assert held.chunk.first == 2
        ((seq, why),) = board.damaged()
        assert (seq, KEYS.claim(CHUNK, 1) in why) == (1, True)
        await board.claim_abandoned(every_s=0.0)
        assert board.damaged() == [], "once is enough"
        assert await session.marks() == {}

    in_session(scenario)


# ---- a store that does not list all at once ----


def test_batches_behind_a_gap_wait_until_it_is_closed():
    async def scenario(session):
        await session.submit(abs, [-1])
        await session.submit(abs, [-2])
        await session.submit(abs, [-3])
        second = bytes(await session.store.get(KEYS.batch(2)))
        await session.store.delete([KEYS.batch(2)])
        working = asyncio.ensure_future(session.agent("w", lambda *_: Act(0.1)).run())
        await session.until(lambda: session.marks(1))
        await session.clock.sleep(1.0)
        assert await session.marks(3) == {}
        await session.store.create(KEYS.batch(2), second)
        await working
        assert [await session.values(n) for n in (1, 2, 3)] == [{0: 1}, {0: 2}, {0: 3}]

    in_session(scenario)
