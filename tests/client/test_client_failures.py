"""Tasks that fail: which error reaches the caller, what it knows, and what happens to the other tasks."""

import functools
import pickle
import socket
import threading
import traceback

import client_tasks as tasks
import pytest
from places import EVERYWHERE

import starburst

pytestmark = pytest.mark.usefixtures("warm")
both_stores = pytest.mark.parametrize("warm", EVERYWHERE, indirect=True)
quiet = functools.partial(starburst.map, progress=False)


def failure_of(*args, **options):
    with pytest.raises(starburst.TaskError) as caught:
        quiet(*args, **options)
    return caught.value


@both_stores
def test_a_failed_task_is_told_by_what_it_raised_where_and_what_it_printed():
    error = failure_of(tasks.fail_at, range(6))
    assert type(error) is starburst.TaskFailed
    assert type(error.__cause__) is tasks.TroubleError
    assert (error.__cause__.code, error.__cause__.note) == (3, "deep")
    assert error.index == 3
    assert error.attempt == 1
    assert error.worker.startswith("w-")
    assert error.task_id.endswith("-00000003")
    assert error.session_id.startswith("map-")
    assert "in fail_at" in error.remote_traceback
    assert "client_tasks.py" in error.remote_traceback
    assert "worker/runner.py" not in error.remote_traceback
    assert error.output.splitlines() == ["about to fail at 3", "and to stderr"]
    shown = str(error)
    for part in (
        "task 3",
        "TroubleError: trouble 3",
        socket.gethostname(),
        "about to fail at 3",
        "in fail_at",
    ):
        assert part in shown


def test_the_cause_stands_in_the_traceback_that_python_shows():
    error = failure_of(tasks.fail_at, [3])
    shown = "".join(traceback.format_exception(error))
    assert "The above exception was the direct cause" in shown
    assert "client_tasks.TroubleError: trouble 3" in shown


def test_the_remote_traceback_tells_the_whole_chain():
    error = failure_of(tasks.fail_from, [7])
    assert "ValueError: invalid literal" in error.remote_traceback
    assert "The above exception was the direct cause" in error.remote_traceback
    assert error.__cause__.code == 7


@both_stores
def test_an_exception_that_cannot_be_sent_is_told_by_its_text():
    error = failure_of(tasks.fail_unportable, [1])
    assert "NeedsTwoError: 1 and 2" in str(error)
    assert "in fail_unportable" in error.remote_traceback


def test_an_exception_with_a_part_that_cannot_be_pickled():
    def work(i):
        error = RuntimeError("holds a lock")
        error.lock = threading.Lock()
        raise error

    assert "RuntimeError: holds a lock" in str(failure_of(work, [1]))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError])
def test_exceptions_with_a_meaning_of_their_own_fail_the_task_only(kind):
    def work(i):
        if i == 1:
            raise kind("stop")
        return i

    results = quiet(work, range(4), on_error="return")
    assert [results[0], *results[2:]] == [0, 2, 3]
    assert type(results[1]) is starburst.TaskFailed
    assert type(results[1].__cause__) is kind


@both_stores
def test_the_failed_task_with_the_lowest_number_is_the_one_that_is_raised():
    assert failure_of(tasks.fail_at, range(2), [(0, 1), (0, 1)], chunksize=2).index == 0


@both_stores
def test_on_error_return_puts_errors_in_the_places_of_their_tasks():
    results = quiet(tasks.fail_at, range(6), [(1, 4)] * 6, on_error="return")
    assert [r for r in results if not isinstance(r, Exception)] == [0, 2, 3, 5]
    assert [results[i].index for i in (1, 4)] == [1, 4]
    assert [results[i].__cause__.code for i in (1, 4)] == [1, 4]


@both_stores
def test_on_error_skip_leaves_failed_tasks_out():
    assert quiet(tasks.fail_at, range(6), [(1, 4)] * 6, on_error="skip") == [0, 2, 3, 5]
    assert quiet(tasks.fail_at, [3, 3], on_error="skip") == []


def test_all_failed_and_returned():
    results = quiet(tasks.fail_at, [3] * 5, on_error="return")
    assert [result.index for result in results] == list(range(5))


@both_stores
@pytest.mark.parametrize("call", [starburst.imap, starburst.imap_unordered])
def test_imap_raises_returns_and_skips_too(call):
    got = []
    with pytest.raises(starburst.TaskFailed) as caught:
        got.extend(call(tasks.fail_at, range(6)))
    assert caught.value.index == 3
    assert caught.value.__cause__.code == 3
    results = list(call(tasks.fail_at, range(6), on_error="return"))
    assert sorted(r for r in results if not isinstance(r, Exception)) == [0, 1, 2, 4, 5]
    assert [r.index for r in results if isinstance(r, Exception)] == [3]
    assert sorted(call(tasks.fail_at, range(6), on_error="skip")) == [0, 1, 2, 4, 5]


def test_starmap_raises_returns_and_skips_too():
    rows = [(i, (2,)) for i in range(4)]
    with pytest.raises(starburst.TaskFailed) as caught:
        starburst.starmap(tasks.fail_at, rows, progress=False)
    assert caught.value.index == 2
    assert starburst.starmap(tasks.fail_at, rows, on_error="skip", progress=False) == [0, 1, 3]
    assert starburst.starmap(tasks.fail_at, rows, on_error="return", progress=False)[2].index == 2


@both_stores
def test_the_first_failure_is_raised_while_other_tasks_still_run(tmp_path):
    def work(i):
        if i == 0:
            raise ValueError("at once")
        tasks.wait_for(tmp_path / "never", 60)

    assert failure_of(work, range(2), chunksize=1, lease=1).index == 0
    # The one that ran was stopped: both workers take the next work.
    assert quiet(tasks.nap, [0.1] * 4, range(4), chunksize=1, lease=1) == [0, 1, 2, 3]


@both_stores
def test_retries_run_a_task_again_until_it_succeeds(tmp_path):
    assert quiet(tasks.flaky, [tmp_path] * 3, range(3), [1, 2, 3], retries=2) == [1, 2, 3]
    assert [tasks.runs(tmp_path, i) for i in range(3)] == [1, 2, 3]


def test_retries_end_and_the_error_tells_how_often_it_was_tried(tmp_path):
    error = failure_of(tasks.flaky, [tmp_path], ["x"], [10], retries=2)
    assert error.attempt == 3
    assert "(attempt 3)" in str(error)
    assert error.__cause__.code == 3
    assert tasks.runs(tmp_path, "x") == 3


def test_a_retry_gets_its_arguments_fresh():
    def work(items):
        items.append(1)
        if len(items) < 3:
            raise ValueError(len(items))
        return items

    assert str(failure_of(work, [[0]], retries=3).__cause__) == "2"


@both_stores
def test_a_task_that_runs_too_long_is_stopped_and_the_others_are_not():
    results = quiet(tasks.nap, [0, 60, 0, 0], range(4), timeout=2, on_error="return", chunksize=2)
    assert [results[0], *results[2:]] == [0, 2, 3]
    error = results[1]
    assert type(error) is starburst.TaskTimeout
    assert isinstance(error, TimeoutError)
    assert error.index == 1
    assert "2 s" in str(error)
    assert "timeout=" in error.hint


def test_a_timeout_is_raised_as_a_timeout_error():
    with pytest.raises(TimeoutError):
        quiet(tasks.nap, [60], timeout="0.3s")


def test_a_timeout_is_not_retried(tmp_path):
    def work(i):
        tasks.record(tmp_path, i)
        tasks.nap(60)

    assert type(failure_of(work, ["x"], timeout=0.3, retries=3)) is starburst.TaskTimeout
    assert tasks.runs(tmp_path, "x") == 1


@both_stores
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (threading.Lock, "lock"),
        (lambda: (x for x in ()), "generator"),
        (lambda: {"deep": [threading.Lock()]}, "dict"),
    ],
    ids=["lock", "generator", "nested"],
)
def test_a_result_that_cannot_be_pickled_fails_its_task_and_no_other(make, kind):
    def work(i):
        return make() if i == 2 else i

    results = quiet(work, range(5), on_error="return", chunksize=5)
    assert [*results[:2], *results[3:]] == [0, 1, 3, 4]
    error = results[2]
    assert type(error) is starburst.TaskFailed
    assert error.index == 2
    assert "cannot be pickled" in str(error)
    assert kind in str(error)
    assert "return plain data" in error.hint


@both_stores
def test_a_function_that_cannot_be_loaded_by_the_workers_fails_its_tasks(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def work(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    (tmp_path / "only_here.py").unlink()
    error = failure_of(only_here.work, [1])
    assert "only_here" in str(error)
    assert "cannot be loaded" in str(error)


class Loud:
    """Pickles here, but does not unpickle anywhere."""

    def __reduce__(self):
        return (int, ("not a number",))


def test_an_argument_that_cannot_be_loaded_fails_its_task():
    results = quiet(lambda x: 1, [Loud(), 2], on_error="return")
    assert results[1] == 1
    assert "its arguments cannot be loaded" in str(results[0])


def test_a_result_that_cannot_be_loaded_here_fails_its_task_and_says_so():
    def work(i):
        return Loud() if i == 0 else i

    results = quiet(work, range(2), on_error="return", chunksize=1)
    assert results[1] == 1
    assert "cannot be loaded here" in str(results[0])


def test_errors_survive_pickling():
    error = failure_of(tasks.fail_at, [3])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert type(again) is starburst.TaskFailed
    assert again.__cause__.code == 3
    assert again.index == 0


def test_a_failed_map_leaves_the_pool_usable():
    for _ in range(3):
        failure_of(tasks.fail_at, range(6))
    assert quiet(tasks.square, range(5)) == [0, 1, 4, 9, 16]
