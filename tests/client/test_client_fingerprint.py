"""Executor keeps a function's pickle between two submits; whatever has changed meanwhile must be seen all the same."""

import functools
import math
import sys
import types

import client_tasks as tasks
import pytest

import starburst
from starburst.client.fingerprint import fingerprint, same


@pytest.fixture
def pool(warm):
    with starburst.Executor(progress=False) as executor:
        yield executor


def in_namespace(code, name="__main__"):
    namespace = {"__name__": name}
    exec(code, namespace)
    return namespace


@pytest.mark.parametrize("name", ["__main__", "made_by_hand"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("return value", id="plain"),
        pytest.param("return [value for _ in range(1)][0]", id="comprehension"),
        pytest.param("return next(value for _ in range(1))", id="generator"),
        pytest.param("return (lambda: value)()", id="lambda"),
        pytest.param("return helper()", id="helper"),
        pytest.param("def inner():\n        return [value][0]\n    return inner()", id="inner function"),
    ],
)
def test_a_global_that_was_assigned_anew(pool, name, body):
    namespace = in_namespace(f"def helper(): return value\ndef work():\n    {body}", name)
    values = [3, 5, 5, [3], [5], "a", "b", 1000, 10000, None]
    futures = []
    for namespace["value"] in values:
        futures.append(pool.submit(namespace["work"]))
    assert [future.result() for future in futures] == values


def test_a_global_list_that_was_changed_in_place(pool):
    namespace = in_namespace("items = [1]\ndef work(): return list(items)")
    first = pool.submit(namespace["work"])
    namespace["items"].append(2)
    second = pool.submit(namespace["work"])
    assert [first.result(), second.result()] == [[1], [1, 2]]


def test_a_closed_over_number_and_list(pool):
    number, items = 1, []

    def work():
        return number, list(items)

    futures = [pool.submit(work)]
    number = 2
    futures.append(pool.submit(work))
    items.append("x")
    futures.append(pool.submit(work))
    assert [future.result() for future in futures] == [(1, []), (2, []), (2, ["x"])]


def test_a_default_argument(pool):
    def work(a=1, *, b=2):
        return a, b

    futures = [pool.submit(work)]
    work.__defaults__ = (5,)
    futures.append(pool.submit(work))
    work.__kwdefaults__ = {"b": 6}
    futures.append(pool.submit(work))
    assert [future.result() for future in futures] == [(1, 2), (5, 2), (5, 6)]


def test_an_attribute_of_the_function(pool):
    def work():
        return work.scale

    work.scale = 1
    first = pool.submit(work)
    work.scale = 2
    second = pool.submit(work)
    assert [first.result(), second.result()] == [1, 2]


def test_a_helper_that_was_defined_anew(pool):
    namespace = in_namespace("def helper(): return 'old'\ndef work(): return helper()")
    first = pool.submit(namespace["work"])
    exec("def helper(): return 'new'", namespace)
    second = pool.submit(namespace["work"])
    assert [first.result(), second.result()] == ["old", "new"]


def test_a_class_attribute(pool):
    class Setting:
        level = 1

    def work():
        return Setting.level

    first = pool.submit(work)
    Setting.level = 2
    second = pool.submit(work)
    assert [first.result(), second.result()] == [1, 2]


def test_the_object_of_a_bound_method(pool):
    class Counter:
        n = 0

        def get(self):
            return self.n

    counter = Counter()
    get = counter.get
    first = pool.submit(get)
    counter.n = 1
    second = pool.submit(get)
    items = [5]
    index = items.index
    third = pool.submit(index, 5)
    items.insert(0, 6)
    fourth = pool.submit(index, 5)
    assert [f.result() for f in (first, second, third, fourth)] == [0, 1, 0, 1]


def test_a_partial(pool):
    items = [1]
    work = functools.partial(len, items)
    first = pool.submit(work)
    items.append(2)
    assert [first.result(), pool.submit(work).result()] == [1, 2]


def test_a_module_made_by_hand(pool):
    module = types.ModuleType("made_by_hand")
    module.level = 1
    namespace = in_namespace("def work(): return settings.level")
    namespace["settings"] = module
    first = pool.submit(namespace["work"])
    module.level = 2
    assert [first.result(), pool.submit(namespace["work"]).result()] == [1, 2]


def test_arguments_are_taken_as_they_are_at_the_call(pool):
    items = [1]
    first = pool.submit(sum, items)
    items.append(10)
    assert [first.result(), pool.submit(sum, items).result()] == [1, 11]


def test_map_takes_the_present_value_too(warm):
    namespace = in_namespace("factor = 2\ndef work(x): return [factor * y for y in range(x)]")
    assert starburst.map(namespace["work"], [2], progress=False) == [[0, 2]]
    namespace["factor"] = 3
    assert starburst.map(namespace["work"], [2], progress=False) == [[0, 3]]


@pytest.mark.parametrize(
    "fn",
    [
        tasks.square,
        math.sqrt,
        len,
        in_namespace("k = 2\ndef f(x): return k * x")["f"],
        lambda x: math.sqrt(x) + 1,
    ],
    ids=["imported", "builtin", "len", "with a number", "with a module"],
)
def test_what_cannot_change_is_pickled_once(fn):
    assert same(fingerprint(fn), fingerprint(fn))


def test_a_module_that_is_to_go_by_value_is_looked_into(monkeypatch):
    import cloudpickle

    assert len(fingerprint(tasks.square)) == 1
    cloudpickle.register_pickle_by_value(tasks)
    try:
        assert len(fingerprint(tasks.square)) > 1
    finally:
        cloudpickle.unregister_pickle_by_value(tasks)
    assert sys.modules["client_tasks"] is tasks
