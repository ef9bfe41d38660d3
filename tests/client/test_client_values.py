"""What can be sent and what comes back: functions of every kind, classes, arrays, large and shared objects."""

import asyncio
import contextlib
import dataclasses
import functools
import threading
from typing import Any, NamedTuple

import client_tasks as tasks
import numpy as np
import pytest

import starburst
from starburst.client.engine import engine
from starburst.store import open_store

pytestmark = pytest.mark.usefixtures("warm")
both_stores = pytest.mark.parametrize("warm", ["folder", "s3"], indirect=True)
quiet = functools.partial(starburst.map, progress=False)


class Pair(NamedTuple):
    left: Any
    right: Any


@both_stores
def test_a_lambda():
    assert quiet(lambda x: x + 1, range(4)) == [1, 2, 3, 4]


@both_stores
def test_a_closure_takes_what_it_closes_over():
    offset, table = 10, {"a": 1}

    def work(x):
        return x + offset + table["a"]

    assert quiet(work, [1, 2]) == [12, 13]


def test_a_recursive_local_function():
    def factorial(n):
        return 1 if n <= 1 else n * factorial(n - 1)

    assert quiet(factorial, [1, 5, 10]) == [1, 120, 3628800]


@both_stores
def test_instances_of_a_locally_defined_class_go_in_and_come_back_as_what_they_are():
    @dataclasses.dataclass
    class Point:
        x: int

        def moved(self):
            return Point(self.x + 1)

    results = quiet(lambda point: point.moved(), [Point(1), Point(2)])
    assert results == [Point(2), Point(3)]
    assert all(type(result) is Point for result in results)


def test_a_locally_defined_class_can_be_the_function():
    class Box:
        def __init__(self, value):
            self.value = value

    results = quiet(Box, [1, 2])
    assert [type(box) for box in results] == [Box, Box]
    assert [box.value for box in results] == [1, 2]


def test_a_locally_defined_exception_keeps_its_class():
    class OwnError(Exception):
        pass

    def work(i):
        raise OwnError(i)

    with pytest.raises(starburst.TaskFailed) as caught:
        quiet(work, [5])
    assert type(caught.value.__cause__) is OwnError
    assert caught.value.__cause__.args == (5,)


def test_a_bound_method_takes_its_object_along():
    class Model:
        def __init__(self, weight):
            self.weight = weight

        def predict(self, x):
            return self.weight * x

    assert quiet(Model(3).predict, [1, 2]) == [3, 6]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**70),
        1.5,
        float("inf"),
        1j,
        "text\u2028 \U0001f600",
        b"\x00\xff",
        (),
        [[]],
        {1: {2}},
    ],
    ids=repr,
)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    [result] = quiet(lambda x: x, [value])
    assert result == value
    assert type(result) is type(value)


def test_a_named_tuple_comes_back_as_one():
    [result] = quiet(lambda pair: pair._replace(right=5), [Pair(1, 2)])
    assert result == Pair(1, 5)
    assert type(result) is Pair


def test_none_results_are_results():
    assert quiet(lambda x: None, range(5)) == [None] * 5


def test_an_exception_that_is_returned_is_a_value():
    [result] = quiet(ValueError, [7])
    assert type(result) is ValueError
    assert result.args == (7,)


@both_stores
@pytest.mark.parametrize("shape", [(0,), (3,), (4, 5), (200_000,), (600, 600)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "int8", "complex128", "U3"])
def test_arrays_come_back_equal_and_writable(shape, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    [result] = quiet(lambda a: a.copy(), [array])
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)
    assert result.flags.writeable
    result[...] = result[::-1]


def test_views_and_other_layouts_of_arrays():
    array = np.arange(600_000.0).reshape(600, 1000)
    arguments = [array[::2], array.T, np.asfortranarray(array), np.broadcast_to(np.float64(3), (600, 300))]
    results = quiet(lambda a: (a * 2, a.sum()), arguments)
    for argument, (doubled, total) in zip(arguments, results, strict=True):
        np.testing.assert_array_equal(doubled, argument * 2)
        assert total == pytest.approx(argument.sum())


def test_rows_of_an_array_can_be_the_items():
    assert quiet(lambda row: row.sum(), np.arange(12).reshape(4, 3)) == [3, 12, 21, 30]


def test_masked_structured_and_object_arrays():
    masked = np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
    structured = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    objects = np.array([{"a": 1}, None, "x"], dtype=object)
    for array in (masked, structured, objects):
        [result] = quiet(lambda a: a, [array])
        assert type(result) is type(array)
        assert result.tolist() == array.tolist()


@both_stores
@pytest.mark.parametrize("n", [10, 300_000], ids=["small", "large"])
def test_a_task_that_changes_its_argument_changes_it_for_nobody_else(n):
    array = np.zeros(n)

    def work(a, i):
        before = float(a[0])
        with contextlib.suppress(ValueError):  # read-only is as good
            a[0] = i + 1
        return before

    assert quiet(work, [array] * 6, range(6), chunksize=3) == [0.0] * 6
    assert quiet(work, [array] * 6, range(6), chunksize=3) == [0.0] * 6
    assert array[0] == 0


def test_a_task_that_changes_a_list_argument_changes_it_for_nobody_else():
    shared = [0]

    def work(items):
        items.append(1)
        return len(items)

    assert quiet(work, [shared] * 6, chunksize=6) == [2] * 6
    assert shared == [0]


def test_results_that_are_one_object_in_the_worker_can_be_changed_one_by_one():
    kept = []

    def work(i):
        return kept

    first, second = quiet(work, range(2), chunksize=1)
    first.append(1)
    assert second == []


def _objects(place):
    return {key for key in _keys(place) if "/objects/" in key}


def _keys(place, prefix="sessions/"):
    return [info.key for info in engine.run(open_store(place.url).list(prefix))]


@both_stores
def test_a_large_array_that_many_tasks_share_is_stored_once(warm):
    big = np.random.default_rng(1).random(400_000)
    before = _objects(warm)
    assert quiet(lambda a, i: float(a[i]), [big] * 20, range(20)) == [float(x) for x in big[:20]]
    assert len(_objects(warm) - before) == 1
    # The same content again, also as another object, adds nothing.
    assert quiet(lambda a, i: float(a[-i]), [big.copy()] * 3, [1, 2, 3]) == [
        float(big[-i]) for i in (1, 2, 3)
    ]
    assert len(_objects(warm) - before) == 1


@both_stores
def test_a_large_array_in_a_closure_a_partial_or_a_container_is_stored_once(warm):
    big = np.random.default_rng(2).random(400_000)
    before = _objects(warm)
    assert quiet(lambda i: float(big[i]), range(3)) == [float(x) for x in big[:3]]
    assert quiet(functools.partial(np.add, big), [0.0])[0].sum() == pytest.approx(big.sum())
    assert quiet(lambda d: float(d["a"]["b"][0].sum()), [{"a": {"b": [big]}}] * 4) == [float(big.sum())] * 4
    assert len(_objects(warm) - before) == 1


@both_stores
@pytest.mark.parametrize("make", [bytes, bytearray, lambda n: "x" * n], ids=["bytes", "bytearray", "str"])
def test_large_bytes_and_texts_are_stored_once(make, warm):
    big = make(3_000_001)
    before = _objects(warm)
    assert quiet(lambda b, i: (len(b), type(b)), [big] * 5, range(5)) == [(3_000_001, type(big))] * 5
    assert len(_objects(warm) - before) <= 1


@both_stores
def test_a_large_object_that_is_no_array_is_shared_too(warm):
    table = {i: str(i) * 5 for i in range(100_000)}
    before = _objects(warm)
    assert quiet(lambda t, i: t[i], [table] * 5, range(5)) == ["00000", "11111", "22222", "33333", "44444"]
    assert len(_objects(warm) - before) == 1


@both_stores
def test_large_results_of_many_tasks():
    results = quiet(lambda i: np.full(300_000, i), range(8))
    assert [(r.shape, int(r[0]), int(r[-1])) for r in results] == [((300_000,), i, i) for i in range(8)]
    assert all(r.flags.writeable for r in results)


def test_prints_of_tasks_do_not_reach_the_callers_output(capfd):
    quiet(lambda i: print("noise", i), range(3))  # noqa: T201
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise" not in err


@both_stores
def test_a_map_inside_a_task(warm):
    def outer(n):
        return sum(starburst.map(tasks.square, range(n), workers=1, idle_timeout=1, progress=False))

    assert quiet(outer, [2, 3]) == [1, 5]


@both_stores
def test_from_within_a_running_event_loop():
    async def main():
        here = quiet(tasks.square, range(3))
        there = await asyncio.to_thread(quiet, tasks.add, [1, 2], [3, 4])
        with starburst.Executor(progress=False) as pool:
            awaited = await asyncio.gather(
                *(asyncio.wrap_future(pool.submit(tasks.square, i)) for i in range(3))
            )
        return here, there, awaited

    assert asyncio.run(main()) == ([0, 1, 4], [4, 6], [0, 1, 4])


@both_stores
def test_several_threads_map_at_once():
    found = {}

    def work(n):
        found[n] = quiet(tasks.add, range(50), [n] * 50)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [i + n for i in range(50)] for n in range(4)}


CELLS = [
    "import starburst\nfactor = 3",
    "def work(x):\n    return [factor * y for y in range(x)]",
    "first = starburst.map(work, [1, 2, 3], progress=False)",
    "factor = 5",
    "second = starburst.map(work, [1, 2, 3], progress=False)",
    "class Thing:\n    def __init__(self, x):\n        self.x = x",
    "third = starburst.map(Thing, [1, 2], progress=False)\nsame = all(type(t) is Thing for t in third)",
    "class Thing:\n    def __init__(self, x):\n        self.x = x * factor",
    "fourth = [t.x for t in starburst.map(Thing, [1, 2], progress=False)]",
    "pool = starburst.Executor(progress=False)\nfifth = pool.submit(work, 2).result()",
    "factor = 7\nsixth = pool.submit(work, 2).result()\npool.shutdown()",
]


@both_stores
@pytest.mark.parametrize("name", ["__main__", "notebook_of_somebody"])
def test_cells_of_a_notebook(name):
    namespace = {"__name__": name}
    for cell in CELLS:
        exec(compile(cell, "<cell>", "exec"), namespace)
    assert namespace["first"] == [[0], [0, 3], [0, 3, 6]]
    assert namespace["second"] == [[0], [0, 5], [0, 5, 10]]
    assert namespace["same"]
    assert namespace["fourth"] == [5, 10]
    assert namespace["fifth"] == [0, 5]
    assert namespace["sixth"] == [0, 7]
