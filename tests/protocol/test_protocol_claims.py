from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.protocol.claims import (
    Liveness,
    end_after,
    first_claim,
    holder_of,
    release,
    share,
    takeover,
)
from starburst.protocol.records import Claim


def claim(worker: str, position: int, attempt: int = 1) -> Claim:
    return Claim(kind="claim", worker=worker, position=position, attempt=attempt)


FIRST = claim("a", 10)
RELEASED = [FIRST, release(FIRST, 2.0)]
SHARED = [FIRST, share(FIRST, [(15, 18), (18, 20)], 2.0)]


@pytest.mark.parametrize(
    ("log", "holder"),
    [
        ([], None),
        ([FIRST], "a"),
        (RELEASED, None),
        (SHARED, "a"),
        ([*SHARED, claim("b", 12)], "b"),
        ([*RELEASED, claim("b", 10)], "b"),
    ],
)
def test_who_holds_a_chunk(log: list[Claim], holder: str | None) -> None:
    assert holder_of(log) == holder


@pytest.mark.parametrize(
    ("log", "end"),
    [
        ([], 20),
        ([FIRST], 20),
        (RELEASED, 20),
        (SHARED, 15),
        ([*SHARED, claim("b", 12), share(claim("b", 12), [(13, 15)], 3.0)], 13),
    ],
)
def test_where_a_chunk_ends(log: list[Claim], end: int) -> None:
    assert end_after(log, 20) == end


@pytest.mark.parametrize(
    ("log", "position", "attempt", "why"),
    [
        ([FIRST], 10, 2, "the holder was lost at its first task"),
        ([FIRST], 11, 1, "the holder had finished a task"),
        (RELEASED, 10, 1, "given back in order: no attempt"),
        (RELEASED, 12, 1, "given back in order after some tasks"),
        (SHARED, 10, 2, "a share is no progress"),
        (SHARED, 12, 1, "progress, then a share"),
        ([FIRST, claim("b", 10, 2)], 10, 3, "lost again"),
        ([FIRST, claim("b", 10, 2)], 14, 1, "the second got on"),
        ([FIRST, claim("b", 10, 2), release(claim("b", 10, 2), 1.0)], 10, 2, "counting stands still"),
        ([FIRST, claim("b", 14, 1)], 14, 2, "counting is for the task where it stands"),
        ([*RELEASED, claim("b", 10, 1), release(claim("b", 10, 1), 1.0)], 10, 1, "released twice"),
        ([*RELEASED, claim("b", 10, 1)], 10, 2, "released, then lost"),
    ],
)
def test_attempts_count_against_the_task_at_the_position(
    log: list[Claim], position: int, attempt: int, why: str
) -> None:
    made = takeover(log, "c", position, 9.0)
    assert (made.kind, made.worker, made.position, made.at) == ("claim", "c", position, 9.0)
    assert made.attempt == attempt, why


def test_records_of_a_holder_repeat_its_claim() -> None:
    held = claim("a", 12, 2)
    for record in (share(held, [(15, 20)], 1.0), release(held, 1.0)):
        assert (record.worker, record.position, record.attempt) == ("a", 12, 2)
        assert record.nonce != held.nonce
    assert first_claim("a", 10, 1.0).attempt == 1
    assert share(held, [(15, 17), (17, 20)], 1.0).parts == ((15, 17), (17, 20))


@given(st.lists(st.tuples(st.sampled_from(["lose", "release", "progress", "share"])), max_size=20))
def test_an_attempt_is_never_more_than_the_losses_at_that_position(steps: list[tuple[str]]) -> None:
    log, position, losses = [claim("a", 0)], 0, 0
    for i, (step,) in enumerate(steps):
        if step == "progress":
            position, losses = position + 1, 0
            continue
        if step == "share":
            log.append(share(log[-1], [(100 - i, 200 - i)], 0.0))
            continue
        if step == "release":
            log.append(release(log[-1], 0.0))
        else:
            losses += 1
        log.append(takeover(log, f"w{i}", position, 0.0))
        assert 1 <= log[-1].attempt <= losses + 1
        assert holder_of(log) == f"w{i}"


def test_a_worker_is_lost_after_a_lease_without_change() -> None:
    liveness = Liveness(10.0)
    liveness.observe(0.0, {"a": "1", "b": "1"})
    liveness.observe(9.0, {"a": "1", "b": "2"})
    assert not liveness.is_lost(9.9, "a")
    assert liveness.is_lost(10.0, "a")
    assert not liveness.is_lost(18.9, "b")
    assert liveness.is_lost(19.0, "b")


def test_a_worker_that_comes_back_is_alive() -> None:
    liveness = Liveness(10.0)
    liveness.observe(0.0, {"a": "1"})
    assert liveness.is_lost(50.0, "a")
    liveness.observe(50.0, {"a": "2"})
    assert not liveness.is_lost(59.0, "a")


def test_the_lease_begins_when_we_first_look_not_when_the_heartbeat_was_written() -> None:
    liveness = Liveness(10.0)
    liveness.observe(1000.0, {"a": "written long ago"})
    assert not liveness.is_lost(1009.0, "a")
    assert liveness.is_lost(1010.0, "a")


def test_a_worker_without_a_heartbeat_has_a_lease_from_when_it_was_expected() -> None:
    liveness = Liveness(10.0)
    assert not liveness.is_lost(99.0, "never heard of")
    liveness.expect(100.0, "a")
    liveness.expect(105.0, "a")
    assert not liveness.is_lost(109.0, "a")
    assert liveness.is_lost(110.0, "a")
    liveness.observe(110.0, {"a": "1"})
    assert not liveness.is_lost(119.0, "a")


def test_a_heartbeat_that_is_deleted_runs_out() -> None:
    liveness = Liveness(10.0)
    liveness.observe(0.0, {"a": "1"})
    liveness.observe(9.0, {})
    assert liveness.is_lost(10.0, "a")


def test_what_a_provider_says_counts_at_once() -> None:
    liveness = Liveness(10.0)
    liveness.observe(0.0, {"a": "1"})
    liveness.tell_lost("a")
    assert liveness.is_lost(0.0, "a")
