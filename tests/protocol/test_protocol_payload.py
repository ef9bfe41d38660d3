from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starburst.protocol.chunking import chunk_counts, cut_by_bytes
from starburst.protocol.payload import (
    LARGE_BYTES,
    OUT_OF_BAND_BYTES,
    CallBlock,
    Calls,
    LargeObjects,
    SharedObject,
    dump_call,
    dump_function,
    dump_value,
    join_pickles,
    load_function,
    load_value,
    pack_calls,
    pack_columns,
)

OBJECT = LARGE_BYTES // 8  # items of a float array that is just large
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


def resolver(large: LargeObjects) -> Callable[[str], Any]:
    """Loads each large object once, from copies of its buffers, as a worker does."""

    @functools.cache
    def resolve(sha256: str) -> Any:
        return load_value([bytearray(buffer) for buffer in large.found[sha256][0]])

    return resolve


def calls_of(packed: Calls, large: LargeObjects) -> list[Call]:
    calls: list[Call] = []
    resolve = resolver(large)
    for n, frame in zip(packed.counts, packed.frames, strict=True):
        block = CallBlock(packed.layout, bytes(frame), n, resolve)
        calls += [block.call(i) for i in range(n)]
    return calls


def columns_of(columns: list[Any], large: LargeObjects, lanes: int = 2) -> Calls:
    return pack_columns(columns, chunk_counts(len(columns[0]), lanes), cut_by_bytes, large)


atoms = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.booleans(),
    st.none(),
)
values = st.recursive(
    atoms,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(st.tuples(atoms, atoms), min_size=1, max_size=60), st.integers(1, 9))
def test_plain_arguments_go_as_columns(rows: list[tuple[Any, Any]], lanes: int) -> None:
    large = LargeObjects()
    packed = columns_of([list(column) for column in zip(*rows, strict=True)], large, lanes)
    assert packed.layout == "columns"
    assert calls_of(packed, large) == [(row, {}) for row in rows]
    assert not large.found


@settings(deadline=None)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=30), st.integers(1, 9))
def test_any_arguments_read_back(rows: list[tuple[Any, Any]], lanes: int) -> None:
    large = LargeObjects()
    packed = columns_of([list(column) for column in zip(*rows, strict=True)], large, lanes)
    assert calls_of(packed, large) == [(row, {}) for row in rows]
    assert sum(packed.counts) == len(rows)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(values, max_size=2), st.dictionaries(st.text(max_size=5), values, max_size=2)),
        max_size=20,
    )
)
def test_calls_with_names_read_back(calls: list[tuple[list[Any], dict[str, Any]]]) -> None:
    large = LargeObjects()
    made = [(tuple(args), kwargs) for args, kwargs in calls]
    packed = pack_calls(made, chunk_counts(len(made), 1), cut_by_bytes, large)
    assert packed.layout == "stream"
    assert calls_of(packed, large) == made
    one_by_one = [dump_call(args, kwargs, large) for args, kwargs in made]
    assert calls_of(join_pickles(one_by_one, [1] * len(made), cut_by_bytes), large) == made


def test_long_text_and_wide_chunks_do_not_go_as_columns() -> None:
    large = LargeObjects()
    text = "x" * LARGE_BYTES
    packed = columns_of([[1, 2, 3], [text, "", text]], large)
    assert packed.layout == "stream"
    assert [len(large.found), max(map(len, packed.frames)) < 1000] == [1, True]
    assert calls_of(packed, large) == [((1, text), {}), ((2, ""), {}), ((3, text), {})]
    half = "y" * (LARGE_BYTES // 2 + 1)
    packed = pack_columns([[half + str(i) for i in range(4)]], [4], cut_by_bytes, large)
    assert packed.layout == "stream"
    assert calls_of(packed, large)[3] == ((half + "3",), {})


def test_chunks_are_cut_where_arguments_are_heavy() -> None:
    large = LargeObjects()
    heavy = [bytes([i]) * (LARGE_BYTES - 1) for i in range(30)]
    packed = pack_columns([heavy], [30], cut_by_bytes, large)
    assert len(packed.counts) > 2
    assert max(len(frame) for frame in packed.frames) < 9 * 2**20
    assert calls_of(packed, large) == [((value,), {}) for value in heavy]
    assert not large.found


def big(seed: int = 0, n: int = OBJECT) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(n)


@pytest.mark.parametrize(
    "hide",
    [
        lambda a: a,
        lambda a: [1, a],
        lambda a: {"x": {"y": (a, a)}},
        lambda a: functools.partial(print, a),
        Box,
        lambda a: Box([Box(a)]),
        lambda a: lambda: a,
        lambda a: np.array([a, None], dtype=object),
    ],
    ids=["bare", "list", "nested", "partial", "object", "deep", "closure", "object array"],
)
def test_a_large_array_is_stored_once_wherever_it_hides(hide: Callable[[Any], Any]) -> None:
    large, array = LargeObjects(), big()
    packed = pack_calls([((i, hide(array)), {}) for i in range(5)], [2, 3], cut_by_bytes, large)
    assert len(large.found) == 1
    assert sum(len(frame) for frame in packed.frames) < 20_000
    ((_, found), _) = calls_of(packed, large)[4]
    assert np.array_equal(dig(found), array)


def dig(value: Any) -> Any:
    while not (isinstance(value, np.ndarray) and value.dtype != object):
        if isinstance(value, Box):
            value = value.content
        elif isinstance(value, functools.partial):
            value = value.args[0]
        elif isinstance(value, dict):
            value = value["x"]["y"][1]
        elif callable(value):
            value = value()
        else:
            value = value[0] if isinstance(value, np.ndarray) else value[-1]
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda: big(1),
        lambda: np.asfortranarray(big(1, 4 * OBJECT).reshape(-1, 2)),
        lambda: big(1, 4 * OBJECT)[::2],
        lambda: np.zeros(OBJECT, dtype=[("a", "f8"), ("b", "i4")]),
        lambda: b"z" * LARGE_BYTES,
        lambda: bytearray(b"z" * LARGE_BYTES),
        lambda: "ü" * LARGE_BYTES,
    ],
    ids=["array", "fortran", "strided", "structured", "bytes", "bytearray", "text"],
)
def test_equal_content_is_stored_once(make: Callable[[], Any]) -> None:
    large = LargeObjects()
    first, second = make(), make()
    packed = pack_calls(
        [((first,), {}), ((second,), {}), (([second],), {"k": first})], [3], cut_by_bytes, large
    )
    assert len(large.found) == 1
    calls = calls_of(packed, large)
    for found in (calls[0][0][0], calls[1][0][0], calls[2][0][0][0], calls[2][1]["k"]):
        assert type(found) is type(first)
        assert np.array_equal(found, first) if isinstance(first, np.ndarray) else found == first


def test_different_content_is_stored_apart_also_if_only_shape_or_kind_differ() -> None:
    large = LargeObjects()
    array = big(2)
    parts = [array, array.reshape(2, -1), array.view("i8"), array.tobytes(), array + 1]
    packed = pack_calls([((part,), {}) for part in parts], [5], cut_by_bytes, large)
    assert len(large.found) == 5
    for (args, _), part in zip(calls_of(packed, large), parts, strict=True):
        assert np.array_equal(args[0], part) if isinstance(part, np.ndarray) else args[0] == part


def test_the_content_name_is_the_same_in_another_submission() -> None:
    one, two = LargeObjects(), LargeObjects()
    assert one.add(big(3)) == two.add(big(3))
    assert one.add(big(3)) != one.add(big(4))


def test_a_repeated_large_object_that_is_no_array_is_stored_once() -> None:
    large = LargeObjects()
    table = {f"key {i}": [i, str(i)] for i in range(200_000)}
    assert len(pickle.dumps(table)) > 4 * 2**20
    packed = columns_of([list(range(50)), [table] * 50], large)
    assert len(large.found) == 1
    assert sum(len(frame) for frame in packed.frames) < 20_000
    for i, call in enumerate(calls_of(packed, large)):
        assert call == ((i, table), {})


def test_a_repeated_small_object_stays_in_each_call() -> None:
    large = LargeObjects()
    packed = columns_of([[{"a": 1}] * 20], large)
    assert not large.found
    assert calls_of(packed, large) == [(({"a": 1},), {})] * 20


def test_a_large_object_of_one_submit_is_shared_with_the_next() -> None:
    large = LargeObjects()
    table = [str(i) for i in range(400_000)]
    pickles = [dump_call((i, table), {"again": table}, large) for i in range(3)]
    assert len(large.found) == 1
    assert max(map(len, pickles)) < 1000
    assert calls_of(join_pickles(pickles, [3], cut_by_bytes), large)[2] == ((2, table), {"again": table})


def test_a_shared_object_arrives_as_the_object() -> None:
    large = LargeObjects()
    reference = SharedObject(large.add([1, 2, 3]))
    for packed in (
        columns_of([[reference, reference]], large),
        pack_calls([((), {"data": [reference]}), ((reference,), {})], [2], cut_by_bytes, large),
    ):
        assert "SharedObject" not in repr(calls_of(packed, large))
        assert calls_of(packed, large)[1] == (([1, 2, 3],), {})


def test_mutable_arguments_are_not_shared_between_tasks() -> None:
    large, shared = LargeObjects(), [0]
    packed = pack_columns([[shared] * 4, list(range(4))], [4], cut_by_bytes, large)
    calls = calls_of(packed, large)
    for args, _ in calls:
        args[0].append("mine")
    assert [args[0] for args, _ in calls] == [[0, "mine"]] * 4


def test_a_call_is_made_afresh_each_time_it_is_asked_for() -> None:
    large = LargeObjects()
    packed = pack_calls([(([0],), {})], [1], cut_by_bytes, large)
    block = CallBlock(packed.layout, packed.frames[0], 1, resolver(large))
    block.call(0)[0][0].append("spoiled")
    assert block.call(0) == (([0],), {})


def test_an_object_within_one_call_keeps_its_identity() -> None:
    large, inner = LargeObjects(), [1]
    packed = pack_calls([((inner, inner), {"k": inner})], [1], cut_by_bytes, large)
    ((a, b), named) = calls_of(packed, large)[0]
    assert a is b is named["k"]


def make_counter(start: int) -> Callable[[int], int]:
    steps = count(start)

    def counter(by: int) -> int:
        return next(steps) + by

    return counter


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (lambda x: x + 1, (1,), 2),
        (make_counter(5), (1,), 6),
        (functools.partial(pow, 2), (10,), 1024),
        (functools.partial(lambda a, b: (a, b), b=[3]), (1,), (1, [3])),
        (functools.partial(functools.partial(max, 1), 5), (3,), 5),
        ("abc".upper, (), "ABC"),
        (Box([1, 2]).content.count, (2,), 1),
        (sorted, ([2, 1],), [1, 2]),
        (np.sum, ([1, 2],), 3),
        (int, ("7",), 7),
    ],
)
def test_functions_of_all_kinds_read_back(
    fn: Callable[..., Any], args: tuple[Any, ...], expected: Any
) -> None:
    large = LargeObjects()
    assert load_function(dump_function(fn, large), resolver(large))(*args) == expected
    assert not large.found


def test_a_large_array_in_a_closure_a_partial_or_a_default_is_stored_once() -> None:
    large, array = LargeObjects(), big()

    def closed(i: int, also: Any = array) -> Any:
        return array[i] == also[i]

    for fn in (closed, functools.partial(lambda a, i: a[i] == array[i], array)):
        data = dump_function(fn, large)
        assert len(data) < 5000
        assert load_function(data, resolver(large))(7)
    assert len(large.found) == 1


def test_a_class_defined_in_a_function_travels_by_value() -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def double(self) -> int:
            return 2 * self.x

    large = LargeObjects()
    packed = columns_of([[Local(i) for i in range(3)]], large)
    assert [args[0].double() for args, _ in calls_of(packed, large)] == [0, 2, 4]
    assert load_value(dump_value([Local(4)]))[0].double() == 8


@pytest.mark.parametrize("n_bytes", [8, OUT_OF_BAND_BYTES - 8, OUT_OF_BAND_BYTES, 10 * OUT_OF_BAND_BYTES])
def test_results_keep_large_buffers_out_of_the_pickle(n_bytes: int) -> None:
    array = np.arange(n_bytes // 8)
    frames = dump_value([array, "text"])
    assert len(frames) == (2 if n_bytes >= OUT_OF_BAND_BYTES else 1)
    if len(frames) == 2:
        assert np.shares_memory(np.frombuffer(frames[1], array.dtype), array)
    loaded = load_value([bytearray(frame) for frame in frames])
    assert np.array_equal(loaded[0], array)
    loaded[0][0] = 9  # writable


@settings(deadline=None)
@given(values)
def test_values_read_back(value: Any) -> None:
    assert load_value(dump_value(value)) == value
