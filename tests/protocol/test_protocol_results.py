from __future__ import annotations

import functools
import pickle
import sys
import threading
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import drive

from starburst.errors import CorruptObject
from starburst.protocol.keys import ChunkId, DoneMark, Keys
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import Failure, ResultHeader, Segment
from starburst.protocol.results import (
    Outcome,
    Run,
    chain_end,
    decode_result,
    encode_result,
    finish_chunk,
)
from starburst.protocol.sessions import read_done
from starburst.store.memory import MemoryStore

KEYS = Keys("s")
CHUNK = ChunkId(1, 100)
KEY = KEYS.result(CHUNK, 100)
FAILURE = Failure(
    kind="raised", message="boom", type_name="ValueError", traceback="Traceback…", output="hi\n"
)


def encoded(run: Run, *, first: int = 100, compress: bool = False) -> bytes:
    return b"".join(encode_result(run, first=first, worker="w-1", attempt=2, compress=compress))


def outcomes(data: bytes) -> list[Outcome]:
    return list(decode_result(data, KEY)[1])


steps = st.lists(
    st.one_of(st.lists(st.integers() | st.text(max_size=9), min_size=1, max_size=5), st.just("fail")),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(steps, st.booleans())
def test_values_and_failures_come_back_in_order(parts: list[Any], compress: bool) -> None:
    run, expected = Run(task_s=1.5, retried=2), []
    for part in parts:
        if part == "fail":
            run.add_failure(FAILURE, ValueError("boom"))
            expected.append(None)
        else:
            run.add_values(part)
            expected += part
    header, found = decode_result(encoded(run, compress=compress), KEY)
    assert (header.first, header.count, header.worker, header.attempt) == (100, len(expected), "w-1", 2)
    assert (header.task_s, header.retried) == (1.5, 2)
    assert run.count == len(expected)
    assert run.failed == parts.count("fail")
    results = list(found)
    assert [o.value for o in results] == expected
    for outcome, value in zip(results, expected, strict=True):
        assert (outcome.failure == FAILURE) == (value is None)
        assert (repr(outcome.error) == "ValueError('boom')") == (value is None)


def test_runs_are_joined() -> None:
    whole = Run()
    for i in range(4):
        part = Run(task_s=1.0, retried=1)
        part.add_values([i, i])
        part.add_failure(FAILURE)
        whole.extend(part)
    assert (whole.ok, whole.failed, whole.count, whole.task_s, whole.retried) == (8, 4, 12, 4.0, 4)
    assert [o.value for o in outcomes(encoded(whole))] == [0, 0, None, 1, 1, None, 2, 2, None, 3, 3, None]
    assert whole.size_bytes == sum(len(frame) for frame in whole.frames)


def test_a_value_that_cannot_be_pickled_leaves_the_run_as_it_was() -> None:
    run = Run()
    run.add_values([1])
    with pytest.raises(TypeError):
        run.add_values([2, threading.Lock()])
    assert (run.count, len(run.segments), len(run.frames)) == (1, 1, 1)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("n", [10, 100_000])
def test_arrays_are_writable_after_loading(n: int, compress: bool) -> None:
    run = Run()
    run.add_values([np.zeros(n), {"deep": [np.arange(n)]}])
    first, second = outcomes(encoded(run, compress=compress))
    first.value[0] = 7
    second.value["deep"][0] += 1
    assert (first.value[0], second.value["deep"][0][0]) == (7.0, 1)


class NeedsTwoError(Exception):
    """Its constructor wants other arguments than it keeps: a mistake that many libraries make."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


class HasBombError(Exception):
    """Pickles, but what it holds cannot be loaded."""

    def __init__(self) -> None:
        super().__init__("armed")
        self.bomb = Bomb()


class HasLockError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    "error", [HasBombError(), HasLockError(), None], ids=["unloadable", "unpicklable", "none"]
)
def test_an_exception_that_cannot_travel_leaves_its_text(error: BaseException | None) -> None:
    run = Run()
    run.add_failure(FAILURE, error)
    run.add_values([5])
    assert [segment.n_frames for segment in run.segments] == [1, 1]
    failed, good = outcomes(encoded(run))
    assert (failed.failure, failed.error, good.value) == (FAILURE, None, 5)


@pytest.mark.parametrize(
    "error",
    [KeyError("k"), KeyboardInterrupt(), SystemExit(3), OSError(2, "no file"), NeedsTwoError(4, "no")],
)
def test_exceptions_travel(error: BaseException) -> None:
    run = Run()
    run.add_failure(FAILURE, error)
    (outcome,) = outcomes(encoded(run))
    assert type(outcome.error) is type(error)
    assert outcome.error is not None
    assert outcome.error.args == error.args


class OnlyThereError(Exception):
    def __reduce__(self) -> Any:
        return (load, ("an exception",))


class ValueOnlyThere:
    def __reduce__(self) -> Any:
        return (load, ("a value",))


def load(what: str) -> Any:
    if not ON_WORKER:
        raise ImportError(f"no {what} here")
    return OnlyThereError()


ON_WORKER = False


def test_an_exception_that_only_its_worker_can_load_leaves_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    with monkeypatch.context() as worker:
        worker.setattr(sys.modules[__name__], "ON_WORKER", True)
        run.add_failure(FAILURE, OnlyThereError())
    assert run.segments[0].n_frames == 2
    (outcome,) = outcomes(encoded(run))
    assert (outcome.failure, outcome.error) == (FAILURE, None)


def test_values_that_cannot_be_loaded_here_are_failures_and_the_others_are_there() -> None:
    run = Run()
    run.add_values(["a"])
    run.add_values([ValueOnlyThere(), "in the same pickle"])
    run.add_values(["b"])
    good, bad, also, last = outcomes(encoded(run))
    assert (good.value, last.value) == ("a", "b")
    for outcome in (bad, also):
        assert outcome.failure is not None
        assert outcome.failure.kind == "load"
        assert "no a value here" in outcome.failure.message
        assert isinstance(outcome.error, ImportError)


def test_every_truncation_and_every_changed_byte_is_an_error_that_names_the_object() -> None:
    run = Run()
    run.add_values([1, "two"])
    run.add_failure(FAILURE, ValueError("boom"))
    data = bytearray(encoded(run))
    good = [(o.value, o.failure) for o in outcomes(bytes(data))]
    damaged = 0
    for at in range(len(data)):
        data[at] ^= 0xFF
        try:
            found = [(o.value, o.failure) for o in outcomes(bytes(data))]
        except Exception as error:
            assert KEY in str(error)
            damaged += 1
        else:
            assert found == good  # padding
        data[at] ^= 0xFF
    assert damaged > 300
    for end in range(0, len(data) - 64, 7):
        with pytest.raises(CorruptObject, match=KEY):
            outcomes(bytes(data[:end]))


@pytest.mark.parametrize(
    ("header", "frames"),
    [
        ({"count": 2, "segments": (Segment("values", 1, 1),)}, 1),
        ({"count": 1, "segments": (Segment("values", 1, 2),)}, 1),
        ({"count": 1, "segments": ()}, 0),
        ({"count": 0, "segments": ()}, 0),
        ({"count": 1, "segments": (Segment("values", 1, 0),)}, 0),
        ({"count": 1, "segments": (Segment("failure", 1, 0),)}, 0),
        ({"count": 2, "segments": (Segment("failure", 2, 1),)}, 1),
        ({"count": 0, "segments": (Segment("values", 0, 1),)}, 1),
        ({"count": 0, "segments": (Segment("values", 2, 1), Segment("values", -2, 0))}, 1),
    ],
)
def test_segments_that_do_not_add_up_are_refused(header: dict[str, Any], frames: int) -> None:
    record = ResultHeader(first=100, worker="w", **header)
    data = b"".join(encode_pack(record, [pickle.dumps([1])] * frames))
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged"):
        outcomes(data)


@pytest.mark.parametrize("values", [[1], [1, 2, 3], 7])
def test_a_values_frame_of_another_length_is_refused(values: Any) -> None:
    record = ResultHeader(first=100, count=2, worker="w", segments=(Segment("values", 2, 1),))
    data = b"".join(encode_pack(record, [pickle.dumps(values)]))
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged"):
        outcomes(data)


def test_a_failure_that_is_none_is_refused() -> None:
    record = ResultHeader(first=100, count=1, worker="w", segments=(Segment("failure", 1, 1),))
    data = b"".join(encode_pack(record, [msgspec.msgpack.encode({"kind": "odd"})]))
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged"):
        outcomes(data)


def put(store: MemoryStore, first: int, ok: int, failed: int = 0) -> None:
    run = Run()
    if ok:
        run.add_values(list(range(ok)))
    for _ in range(failed):
        run.add_failure(FAILURE)
    body = encode_result(run, first=first, worker="w", attempt=1, compress=False)
    assert drive(store.create(KEYS.result(CHUNK, first), body))


def test_a_chain_ends_at_the_first_task_without_a_result() -> None:
    store = MemoryStore()
    end = functools.partial(chain_end, store, KEYS, CHUNK)
    assert drive(end())[:3] == (100, 0, 0)
    put(store, 100, 3)
    put(store, 103, 1, 2)
    put(store, 107, 5)  # not reached: nothing stands at 106
    assert drive(end())[:3] == (106, 4, 2)
    put(store, 106, 1)
    assert drive(end())[:3] == (112, 10, 2)
    assert store.counts.bytes_out > 0


def test_a_chain_of_another_chunk_does_not_count() -> None:
    store = MemoryStore()
    put(store, 100, 3)
    assert drive(chain_end(store, KEYS, ChunkId(1, 103)))[0] == 103
    assert drive(chain_end(store, KEYS, ChunkId(2, 100)))[0] == 100


def test_a_damaged_link_is_an_error_that_names_it() -> None:
    store = MemoryStore()
    put(store, 100, 2)
    drive(store.create(KEYS.result(CHUNK, 102), b"STBP"))
    with pytest.raises(CorruptObject, match=KEYS.result(CHUNK, 102)):
        drive(chain_end(store, KEYS, CHUNK))


def test_a_link_that_does_not_lead_on_is_an_error_and_no_endless_loop() -> None:
    store = MemoryStore()
    body = encode_pack(ResultHeader(first=100, count=0, worker="w"), [])
    drive(store.create(KEYS.result(CHUNK, 100), body))
    with pytest.raises(CorruptObject, match=KEY):
        drive(chain_end(store, KEYS, CHUNK))


def test_a_chunk_is_marked_once_by_whoever_marks_it() -> None:
    store = MemoryStore()
    for _ in range(3):
        drive(finish_chunk(store, KEYS, CHUNK, 4, 2))
    assert drive(read_done(store, KEYS)) == [DoneMark(CHUNK, 4, 2)]
    assert drive(read_done(store, KEYS, 1)) == [DoneMark(CHUNK, 4, 2)]
    assert drive(read_done(store, KEYS, 2)) == []
