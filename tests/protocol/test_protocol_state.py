from __future__ import annotations

from typing import Any

import msgspec
import pytest
from test_protocol_records import MANIFEST

from starburst.protocol.records import Event
from starburst.protocol.state import SessionState

START = msgspec.structs.replace(MANIFEST, created_at=1000.0, absolute_timeout_s=100.0, workers=3)


def folded(*events: tuple[str, dict[str, Any]]) -> SessionState:
    state = SessionState.of(START)
    for what, data in events:
        state.apply(Event(what=what, at=0.0, data=data))
    return state


EXTENDED = ("extended", {"deadline_at": 5000.0})
IDLE = ("terminated", {"reason": "idle"})


def test_a_new_session_is_open_until_its_deadline() -> None:
    state = folded()
    assert (state.deadline_at, state.workers, state.ended) == (1100.0, 3, None)
    assert state.name(1099.9) == "open"
    assert state.name(1100.0) == "expired"


@pytest.mark.parametrize(
    ("events", "name"),
    [
        ([EXTENDED], "open"),
        ([IDLE], "idle"),
        ([IDLE, EXTENDED], "open"),
        ([EXTENDED, IDLE], "idle"),
        ([("cancelled", {})], "cancelled"),
        ([("cancelled", {}), EXTENDED], "cancelled"),
        ([IDLE, ("cancelled", {})], "cancelled"),
        ([("cancelled", {}), IDLE], "cancelled"),
        ([IDLE, ("terminated", {"reason": "failed"})], "idle"),
        ([("terminated", {"reason": "closed"})], "closed"),
        ([("cancelled", {"batches": [2]})], "open"),
        ([("worker-started", {"worker": "w"}), ("of a later version", {"x": 1})], "open"),
    ],
)
def test_what_events_make_of_a_session(events: list[tuple[str, dict[str, Any]]], name: str) -> None:
    assert folded(*events).name(1200.0 if EXTENDED in events else 1001.0) == name


def test_an_extension_never_shortens() -> None:
    assert folded(EXTENDED, ("extended", {"deadline_at": 1050.0})).deadline_at == 5000.0
    assert folded(("extended", {"deadline_at": 10.0})).deadline_at == 1100.0


def test_the_last_size_counts() -> None:
    assert folded(("scaled", {"workers": 9}), ("scaled", {"workers": 1})).workers == 1


def test_cancelled_batches_add_up() -> None:
    state = folded(("cancelled", {"batches": [1, 2]}), ("cancelled", {"batches": [2, 5]}))
    assert state.cancelled_batches == {1, 2, 5}


def test_lost_workers_are_kept_with_the_reason() -> None:
    state = folded(("worker-lost", {"worker": "w-1", "reason": "exit code 9"}))
    assert state.lost == {"w-1": "exit code 9"}


def test_dismissed_workers_add_up() -> None:
    state = folded(("dismissed", {"workers": ["w-1"]}), ("dismissed", {"workers": ["w-2"]}))
    assert state.dismissed == {"w-1", "w-2"}
    assert state.name(1001.0) == "open"


def test_states_do_not_share_what_they_collect() -> None:
    folded(("cancelled", {"batches": [1]}))
    assert folded().cancelled_batches == set()
