"""``map``, ``starmap``, ``imap`` and ``imap_unordered``: what comes back, in which order, under which options."""

import functools
import itertools
import operator

import client_tasks as tasks
import pytest
from places import EVERYWHERE

import starburst

pytestmark = pytest.mark.usefixtures("warm")
both_stores = pytest.mark.parametrize("warm", EVERYWHERE, indirect=True)
quiet = functools.partial(starburst.map, progress=False)


@both_stores
@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000])
def test_results_stand_in_the_order_of_the_items(n):
    assert quiet(tasks.square, range(n)) == [x * x for x in range(n)]


@both_stores
def test_several_iterables_are_taken_side_by_side():
    assert quiet(tasks.add, [1, 2, 3], [10, 20, 30]) == [11, 22, 33]
    assert quiet(tasks.add, [1, 2], [10, 20], [100, 200]) == [111, 222]


def test_the_shortest_iterable_decides():
    assert quiet(tasks.add, range(5), [10, 20]) == [10, 21]
    assert quiet(tasks.add, range(3), itertools.count(100)) == [100, 102, 104]
    assert quiet(tasks.add, range(3), itertools.repeat(7)) == [7, 8, 9]


@both_stores
@pytest.mark.parametrize(
    "items",
    [
        pytest.param(lambda: (i for i in range(9)), id="generator"),
        pytest.param(lambda: iter(range(9)), id="iterator"),
        pytest.param(lambda: dict.fromkeys(range(9), "value"), id="dict"),
        pytest.param(lambda: tuple(range(9)), id="tuple"),
        pytest.param(lambda: map(abs, range(0, -9, -1)), id="map object"),
        pytest.param(lambda: bytes(range(9)), id="bytes"),
    ],
)
def test_any_iterable_will_do(items):
    assert quiet(tasks.square, items()) == [i * i for i in range(9)]


class OldSequence:
    """Iterable by ``__getitem__`` alone, as data sets of some libraries are."""

    def __getitem__(self, i):
        if i >= 4:
            raise IndexError(i)
        return i + 1


def test_the_old_sequence_protocol_will_do():
    assert quiet(tasks.square, OldSequence()) == [1, 4, 9, 16]
    assert quiet(tasks.add, OldSequence(), OldSequence()) == [2, 4, 6, 8]


@pytest.mark.parametrize(
    "items", [[], (), range(0), "", {}, iter(())], ids=lambda items: type(items).__name__
)
def test_no_items_give_an_empty_result(items):
    assert quiet(tasks.square, items) == []


def test_one_empty_iterable_among_several_gives_an_empty_result():
    assert quiet(tasks.add, [1, 2], []) == []


def test_a_generator_is_taken_once_and_to_its_end():
    taken = []

    def items():
        for i in range(5):
            taken.append(i)
            yield i

    assert quiet(tasks.square, items()) == [0, 1, 4, 9, 16]
    assert taken == [0, 1, 2, 3, 4]


def test_an_error_of_the_callers_generator_is_raised_as_it_is():
    def items():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        quiet(tasks.square, items())


@pytest.mark.parametrize("chunksize", [1, 3, 10, 1000, "auto"])
def test_the_chunk_size_changes_nothing_in_the_results(chunksize):
    assert quiet(tasks.square, range(25), chunksize=chunksize) == [x * x for x in range(25)]


def test_keyword_arguments_of_the_function_go_in_with_partial():
    assert quiet(functools.partial(tasks.add, c=100), [1, 2], [3, 4]) == [104, 106]


def test_builtins_methods_classes_and_callable_objects_are_functions_too():
    assert quiet(len, ["a", "bb", ""]) == [1, 2, 0]
    assert quiet("x".join, [["1", "2"], ["3"]]) == ["1x2", "3"]
    assert quiet(str.upper, ["a", "b"]) == ["A", "B"]
    assert quiet(complex, [1, 2]) == [1 + 0j, 2 + 0j]
    assert quiet(operator.itemgetter(1), ["ab", "cd"]) == ["b", "d"]


@both_stores
def test_two_slots_run_two_tasks_of_one_worker_at_once(tmp_path):
    def meet(i):
        (tmp_path / f"here-{i}").touch()
        return tasks.wait_for(tmp_path / f"here-{1 - i}")

    assert len(quiet(meet, range(2), workers=1, slots=2, chunksize=1)) == 2


@both_stores
def test_starmap_spreads_each_row():
    rows = [(1, 2), (3, 4), (5, 6, 7), [8, 9]]
    assert starburst.starmap(tasks.add, rows, progress=False) == [3, 7, 18, 17]
    assert starburst.starmap(tasks.add, ((i, i) for i in range(50)), progress=False) == [
        2 * i for i in range(50)
    ]


def test_starmap_takes_empty_rows_and_no_rows():
    assert starburst.starmap(dict, [(), ()], progress=False) == [{}, {}]
    assert starburst.starmap(tasks.add, [], progress=False) == []


@both_stores
def test_imap_gives_all_results_in_order():
    assert list(starburst.imap(tasks.square, range(300))) == [x * x for x in range(300)]
    assert list(starburst.imap(tasks.add, [1, 2], [10, 20])) == [11, 22]
    assert list(starburst.imap(tasks.square, [])) == []


@both_stores
def test_imap_reads_an_endless_iterator_only_as_far_as_needed():
    taken = itertools.count()
    results = starburst.imap(tasks.square, taken)
    assert list(itertools.islice(results, 40)) == [x * x for x in range(40)]
    results.close()
    assert next(taken) < 300


def test_imap_reads_nothing_before_the_first_result_is_asked_for():
    taken = itertools.count()
    results = starburst.imap(tasks.square, taken)
    assert next(taken) == 0
    assert next(results) == 1


@both_stores
def test_imap_gives_the_first_result_while_a_later_task_still_runs(tmp_path):
    gate = tmp_path / "gate"

    def work(i):
        return tasks.wait_for(gate) if i == 5 else i

    results = starburst.imap(work, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    gate.touch()
    assert list(results) == [3, 4, str(gate)]


@both_stores
def test_imap_unordered_gives_whatever_is_ready(tmp_path):
    gate = tmp_path / "gate"

    def work(i):
        return tasks.wait_for(gate) if i == 0 else i

    results = starburst.imap_unordered(work, range(4))
    first = [next(results) for _ in range(3)]
    assert sorted(first) == [1, 2, 3]
    gate.touch()
    assert list(results) == [str(gate)]


@both_stores
def test_imap_unordered_gives_each_result_once():
    assert sorted(starburst.imap_unordered(tasks.square, range(500))) == [x * x for x in range(500)]


@both_stores
def test_a_closed_imap_runs_nothing_more(tmp_path):
    def work(i):
        tasks.record(tmp_path, i)
        return tasks.nap(0.5, i)

    results = starburst.imap(work, range(1000), lease=1)
    next(results)
    results.close()

    # The workers are free for the next call as soon as they have heard of it: what was left is not run first.
    assert quiet(tasks.nap, [0.1] * 4, range(4), lease=1) == [0, 1, 2, 3]
    assert len(list(tmp_path.iterdir())) < 16


def test_the_next_item_of_an_imap_can_depend_on_the_last_result():
    todo = [1]

    def items():
        while todo:
            yield todo.pop()

    assert list(starburst.imap(tasks.square, items())) == [1]


def test_two_imaps_can_be_open_at_once():
    left, right = starburst.imap(tasks.square, range(50)), starburst.imap_unordered(tasks.square, range(50))
    pairs = [(next(left), next(right)) for _ in range(50)]
    assert [a for a, _ in pairs] == [x * x for x in range(50)]
    assert sorted(b for _, b in pairs) == [x * x for x in range(50)]


def test_plan_sets_defaults_for_the_calls_inside():
    with starburst.plan(retries=3, slots=2) as planned:
        assert (planned.options.retries, planned.options.slots) == (3, 2)
        with starburst.plan(slots=1):
            assert starburst.plan().options.slots == 1
            assert starburst.plan().options.retries == 3
        assert starburst.plan().options.slots == 2
    assert starburst.plan().options.retries == 0


@both_stores
def test_plan_reaches_the_call(tmp_path):
    def work(i):
        return tasks.flaky(tmp_path, i, 2)

    with starburst.plan(retries=1):
        assert quiet(work, range(3)) == [2, 2, 2]
    with pytest.raises(starburst.TaskFailed):
        quiet(work, range(3, 6))


def test_a_plan_as_a_setter_holds_until_another_is_made():
    before = starburst.plan(retries=2)
    try:
        assert starburst.plan().options.retries == 2
        starburst.plan(retries=4)
        assert starburst.plan().options.retries == 4
    finally:
        before.__exit__(None, None, None)
    assert starburst.plan().options.retries == 0


def test_a_wrong_plan_changes_nothing():
    with pytest.raises(starburst.OptionError):
        starburst.plan(workers=0)
    with pytest.raises(starburst.OptionError):
        starburst.plan(worker=3)
    assert starburst.plan().options.workers == 2
