"""Counting open tasks, against the plain sum."""

from hypothesis import given
from hypothesis import strategies as st

from starburst.protocol.keys import ChunkId, DoneMark, Keys
from starburst.protocol.records import BatchHeader
from starburst.supervisor.ledger import Ledger

KEYS = Keys("session-test")


def batch(*counts, source=None, start=0):
    firsts = [start + sum(counts[:i]) for i in range(len(counts))]
    return BatchHeader(n_tasks=sum(counts), firsts=tuple(firsts), counts=counts, source=source)


def mark(seq, first, ok, failed=0):
    return DoneMark(ChunkId(seq, first), ok, failed)


def test_shares_add_chunks_but_no_tasks():
    ledger = Ledger(KEYS)
    ledger.add_batch(1, batch(10))
    ledger.add_batch(2, batch(3, 3, source=1, start=4))
    assert ledger.open_tasks() == 10
    ledger.add_done(mark(1, 0, 4))
    ledger.add_done(mark(1, 4, 2, 1))
    ledger.add_done(mark(1, 4, 2, 1))
    assert (ledger.open_tasks(), ledger.submitted, ledger.done) == (3, 10, 7)
    ledger.add_done(mark(1, 7, 3))
    assert ledger.open_tasks() == 0


def test_cancelled_submissions_do_not_count():
    ledger = Ledger(KEYS)
    ledger.add_batch(1, batch(5, 5))
    ledger.add_batch(2, batch(7))
    ledger.add_done(mark(1, 0, 5))
    assert ledger.open_tasks({1}) == 7
    assert ledger.open_tasks({1, 2}) == 0
    assert ledger.done_after({1}) == f"{KEYS.prefix}done/000001-00000005~"


def test_share_of_a_chunk_that_was_passed_is_looked_for_again():
    ledger = Ledger(KEYS)
    ledger.add_batch(1, batch(5, 5))
    ledger.add_done(mark(1, 0, 3))
    ledger.add_done(mark(1, 5, 5))
    assert ledger.done_after() == f"{KEYS.prefix}done/000001-00000005~"
    ledger.add_batch(2, batch(2, source=1, start=3))
    assert ledger.done_after() == f"{KEYS.prefix}done/000001-00000000~"
    assert ledger.open_tasks() == 2


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), max_size=5),
    st.randoms(use_true_random=False),
)
def test_listing_from_where_it_says_finds_every_new_marker(batches, random):
    ledger = Ledger(KEYS)
    for seq, counts in enumerate(batches, 1):
        ledger.add_batch(seq, batch(*counts))
    marks = [
        mark(seq, sum(counts[:i]), count)
        for seq, counts in enumerate(batches, 1)
        for i, count in enumerate(counts)
    ]
    random.shuffle(marks)
    total = sum(map(sum, batches))
    written = []
    for done in marks:
        written.append(KEYS.done(done))
        after = ledger.done_after() or ""
        for key in sorted(written):
            if key > after:
                ledger.add_done(KEYS.parse_done(key))
        total -= done.ok
        assert ledger.open_tasks() == total
