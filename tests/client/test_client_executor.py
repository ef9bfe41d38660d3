"""``Executor`` as ``concurrent.futures`` defines it; many of these follow CPython's own tests of its executors."""

import concurrent.futures as cf
import functools
import itertools
import threading
import time

import client_tasks as tasks
import pytest
from places import EVERYWHERE

import starburst
from helpers import eventually

pytestmark = pytest.mark.usefixtures("warm")
both_stores = pytest.mark.parametrize("warm", EVERYWHERE, indirect=True)


@pytest.fixture
def pool():
    with starburst.Executor(progress=False) as executor:
        yield executor


@pytest.fixture
def gate(tmp_path):
    """A file that tasks wait for; it is there at the latest when the test ends."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def blocked(pool, tmp_path, gate):
    """The pool, its two lanes held by tasks that wait for the gate."""
    pool.held = []
    for name in ("held-0", "held-1"):  # one after the other: no worker claims the second in reserve
        pool.held.append(pool.submit(tasks.started_then_wait, tmp_path / name, gate))
        eventually((tmp_path / name).exists, what=f"a worker at work on {name}")
    return pool


def test_it_is_an_executor(pool):
    assert isinstance(pool, cf.Executor)
    assert isinstance(pool.submit(tasks.square, 1), cf.Future)


@both_stores
def test_submit(pool):
    assert pool.submit(pow, 2, 8).result() == 256
    assert pool.submit(tasks.add, 1, b=2, c=3).result() == 6


def test_submit_takes_keywords_of_any_name(pool):
    def capture(*args, **kwargs):
        return args, kwargs

    assert pool.submit(capture, 1, self=2, fn=3).result() == ((1,), {"self": 2, "fn": 3})


def test_a_result_is_kept(pool):
    future = pool.submit(tasks.square, 3)
    assert [future.result(), future.result(timeout=0)] == [9, 9]
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None


@both_stores
def test_an_exception_is_raised_by_result_and_given_by_exception(pool):
    future = pool.submit(tasks.fail_at, 3)
    error = future.exception()
    assert type(error) is starburst.TaskFailed
    assert error.__cause__.code == 3
    with pytest.raises(starburst.TaskFailed) as caught:
        future.result()
    assert caught.value is error
    assert caught.value.__cause__.code == 3


def test_result_and_exception_time_out(blocked, gate):
    future = blocked.submit(tasks.square, 2)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.05)
    gate.touch()
    assert future.result() == 4


@both_stores
def test_map(pool):
    assert list(pool.map(tasks.square, range(10))) == [x * x for x in range(10)]
    assert list(pool.map(pow, range(4), range(4))) == [1, 1, 4, 27]
    assert list(pool.map(tasks.square, range(10), chunksize=3)) == [x * x for x in range(10)]
    assert list(pool.map(tasks.square, [])) == []


def test_map_raises_when_its_turn_has_come(pool):
    results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(starburst.TaskFailed) as caught:
        next(results)
    assert type(caught.value.__cause__) is ZeroDivisionError


def test_map_times_out(gate):
    got = []
    with starburst.Executor(workers=1, progress=False) as pool:  # takes them in their order
        assert pool.submit(tasks.square, 1).result() == 1  # has started
        with pytest.raises(TimeoutError):
            got.extend(
                pool.map(lambda i: i if i < 2 else tasks.wait_for(gate), range(3), timeout=5, chunksize=1)
            )
        gate.touch()
    assert got == [0, 1]


def test_map_begins_before_its_results_are_asked_for(pool, tmp_path):
    results = pool.map(tasks.record, [tmp_path] * 3, range(3))
    eventually(lambda: len(list(tmp_path.iterdir())) == 3)
    assert list(results) == [0, 1, 2]


def test_a_map_that_is_given_up_runs_nothing_more(blocked, tmp_path, gate):
    results = blocked.map(tasks.record, [tmp_path] * 20, [f"late-{i}" for i in range(20)], chunksize=1)
    taker = threading.Thread(target=lambda: next(results, None))
    taker.start()  # a generator that has begun can be closed; one that has not has nothing to tidy
    gate.touch()
    taker.join()
    results.close()
    assert blocked.submit(tasks.square, 3).result() == 9
    assert sum(tasks.runs(tmp_path, f"late-{i}") for i in range(20)) <= 20


@both_stores
def test_as_completed(pool, tmp_path, gate):
    slow = pool.submit(tasks.started_then_wait, tmp_path / "s", gate)
    quick = [pool.submit(tasks.square, i) for i in range(4)]
    seen = []
    for future in cf.as_completed([slow, *quick], timeout=60):
        seen.append(future)
        if len(seen) == 4:
            gate.touch()
    assert seen[-1] is slow
    assert set(seen) == {slow, *quick}


def test_as_completed_times_out_and_gives_what_was_there(blocked):
    done = blocked.submit(tasks.square, 1)
    with pytest.raises(TimeoutError):
        list(cf.as_completed([done, *blocked.held], timeout=0.05))


def test_as_completed_gives_an_equal_future_once(pool):
    future = pool.submit(tasks.square, 2)
    assert list(cf.as_completed(itertools.repeat(future, 3))) == [future]


def test_wait_for_all(pool):
    futures = [pool.submit(tasks.square, i) for i in range(4)]
    done, open_ = cf.wait(futures, return_when=cf.ALL_COMPLETED, timeout=60)
    assert (done, open_) == (set(futures), set())


def test_wait_for_the_first(pool, gate, tmp_path):
    slow = pool.submit(tasks.started_then_wait, tmp_path / "s", gate)
    quick = pool.submit(tasks.square, 2)
    done, open_ = cf.wait([slow, quick], return_when=cf.FIRST_COMPLETED, timeout=60)
    assert (done, open_) == ({quick}, {slow})


@both_stores
def test_wait_for_the_first_exception(pool, gate, tmp_path):
    slow = pool.submit(tasks.started_then_wait, tmp_path / "s", gate)
    futures = [slow, pool.submit(tasks.square, 2), pool.submit(tasks.fail_at, 3)]
    done, open_ = cf.wait(futures, return_when=cf.FIRST_EXCEPTION, timeout=60)
    assert futures[2] in done
    assert slow in open_


def test_wait_times_out(blocked):
    done, open_ = cf.wait(blocked.held, timeout=0.05)
    assert (done, open_) == (set(), set(blocked.held))


def test_callbacks_are_called_once_with_the_future_whenever_they_are_added(pool):
    seen = []
    future = pool.submit(tasks.square, 2)
    future.add_done_callback(seen.append)
    future.result()
    future.add_done_callback(seen.append)
    eventually(lambda: len(seen) == 2)
    assert seen == [future, future]


def test_a_callback_that_raises_disturbs_nobody(pool, caplog):
    future = pool.submit(tasks.square, 2)

    def bad(_):
        raise ValueError("in a callback")

    seen = []
    future.add_done_callback(bad)
    future.add_done_callback(seen.append)
    assert [pool.submit(tasks.square, i).result() for i in range(3)] == [0, 1, 4]
    eventually(lambda: seen)


def test_a_callback_can_submit_more(pool):
    second = []
    ready = threading.Event()

    def more(future):
        second.append(pool.submit(tasks.square, future.result()))
        ready.set()

    pool.submit(tasks.square, 2).add_done_callback(more)
    assert ready.wait(30)
    assert second[0].result() == 16


def test_a_callback_can_cancel_and_shut_down(warm, tmp_path, gate):
    pool = starburst.Executor(progress=False)
    held = [pool.submit(tasks.started_then_wait, tmp_path / f"h{i}", gate) for i in range(2)]
    eventually(lambda: all((tmp_path / f"h{i}").exists() for i in range(2)))
    late = pool.submit(tasks.record, tmp_path, "late")
    answers = []
    ready = threading.Event()

    def end(_):
        answers.append(late.cancel())
        pool.shutdown(wait=False)
        ready.set()

    held[0].add_done_callback(end)
    gate.touch()
    assert ready.wait(30)
    assert len(answers) == 1
    if not answers[0]:
        assert late.result(30) == "late"
    assert [h.result(30) for h in held] == [str(gate)] * 2


@both_stores
def test_a_cancelled_task_never_runs(blocked, tmp_path, gate):
    late = [blocked.submit(tasks.record, tmp_path, f"late-{i}") for i in range(12)]
    eventually(lambda: all(future.task_id for future in late), what="the submission")
    answers = [future.cancel() for future in late]
    gate.touch()
    cf.wait(late, timeout=60)
    blocked.submit(tasks.square, 1).result()
    assert any(answers)
    for i, (future, cancelled) in enumerate(zip(late, answers, strict=True)):
        assert future.cancelled() == cancelled
        assert tasks.runs(tmp_path, f"late-{i}") == (0 if cancelled else 1)


@both_stores
def test_cancelling_some_of_many_leaves_the_others(blocked, tmp_path, gate):
    late = [blocked.submit(tasks.record, tmp_path, f"late-{i}") for i in range(60)]  # chunks of several tasks
    eventually(lambda: all(future.task_id for future in late))
    answers = {i: late[i].cancel() for i in (59, 40, 41, 10, 30, 31, 32)}
    assert sum(answers.values()) >= 4
    gate.touch()
    for i, future in enumerate(late):
        if answers.get(i):
            assert future.cancelled()
            with pytest.raises(cf.CancelledError):
                future.result(timeout=60)
        else:
            assert future.result(timeout=60) == f"late-{i}"
        assert tasks.runs(tmp_path, f"late-{i}") == (0 if answers.get(i) else 1)


def test_a_task_cancelled_at_once_is_not_even_submitted(pool, tmp_path):
    future = pool.submit(tasks.record, tmp_path, "x")
    cancelled = future.cancel()
    pool.submit(tasks.square, 1).result()
    assert cancelled == future.cancelled()
    assert tasks.runs(tmp_path, "x") == (0 if cancelled else 1)


def test_a_running_task_cannot_be_cancelled(blocked, gate):
    assert not any(future.cancel() for future in blocked.held)
    gate.touch()
    assert [future.result() for future in blocked.held] == [str(gate)] * 2


def test_a_finished_task_cannot_be_cancelled(pool):
    future = pool.submit(tasks.square, 2)
    future.result()
    assert not future.cancel()
    assert future.result() == 4


def test_waiting_for_a_cancelled_future_ends(blocked):
    for gathered in (True, False):
        future = blocked.submit(tasks.square, 2)
        if not gathered:
            eventually(lambda f=future: f.task_id)
        if not future.cancel():
            continue  # the gathering was quicker
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        done, _ = cf.wait([future], timeout=5)
        assert done == {future}
        assert list(cf.as_completed([future], timeout=5)) == [future]
        with pytest.raises(cf.CancelledError):
            future.result(timeout=5)
        with pytest.raises(cf.CancelledError):
            future.exception(timeout=5)


def test_callbacks_of_a_cancelled_future_are_called_once(blocked):
    future = blocked.submit(tasks.square, 2)
    eventually(lambda: future.task_id)
    seen = []
    future.add_done_callback(seen.append)
    assert future.cancel()
    future.cancel()
    assert seen == [future]


def test_two_threads_cancel_the_same_future(blocked):
    futures = [blocked.submit(tasks.square, i) for i in range(6)]
    eventually(lambda: all(future.task_id for future in futures))
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append([future.cancel() for future in futures]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 2
    assert cf.wait([f for f in futures if f.cancelled()], timeout=5).not_done == set()
    # Whoever was told "cancelled" was told the truth.
    for future, told in zip(futures, zip(*answers, strict=True), strict=True):
        assert future.cancelled() or not any(told)


@both_stores
def test_shutdown_waits_for_everything(tmp_path):
    pool = starburst.Executor(progress=False)
    futures = [pool.submit(tasks.record, tmp_path, i) for i in range(5)]
    results = pool.map(tasks.record, [tmp_path] * 5, range(5, 10))
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(10))
    assert list(results) == [5, 6, 7, 8, 9]


def test_shutdown_need_not_wait(tmp_path, gate):
    pool = starburst.Executor(progress=False)
    future = pool.submit(tasks.wait_for, gate)
    pool.shutdown(wait=False)
    assert not future.done()
    gate.touch()
    assert future.result(timeout=60) == str(gate)


@both_stores
def test_shutdown_can_cancel_what_has_not_begun(warm, tmp_path, gate):
    pool = starburst.Executor(progress=False)
    held = [pool.submit(tasks.started_then_wait, tmp_path / f"held-{i}", gate) for i in range(2)]
    eventually(lambda: all((tmp_path / f"held-{i}").exists() for i in range(2)))
    late = [pool.submit(tasks.record, tmp_path, f"late-{i}") for i in range(30)]
    eventually(lambda: all(future.task_id for future in late))
    late += [pool.submit(tasks.record, tmp_path, f"late-{i}") for i in range(30, 40)]
    threading.Timer(0.3, gate.touch).start()
    pool.shutdown(wait=True, cancel_futures=True)
    assert all(future.done() for future in [*held, *late])
    assert [future.result() for future in held] == [str(gate)] * 2
    assert sum(future.cancelled() for future in late) >= len(late) // 2
    for i, future in enumerate(late):
        assert tasks.runs(tmp_path, f"late-{i}") == (0 if future.cancelled() else 1)
    assert cf.wait(late, timeout=5).not_done == set()


@pytest.mark.parametrize("wait", [True, False])
def test_nothing_is_taken_after_shutdown(wait):
    pool = starburst.Executor(progress=False)
    pool.shutdown(wait=wait)
    pool.shutdown(wait=wait)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(tasks.square, [1])


def test_the_with_block_waits(tmp_path):
    with starburst.Executor(progress=False) as pool:
        futures = [pool.submit(tasks.nap, 0.2, i) for i in range(4)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        pool.submit(tasks.square, 1)


def test_an_exception_in_the_with_block_goes_through():
    with pytest.raises(LookupError), starburst.Executor(progress=False) as pool:
        future = pool.submit(tasks.nap, 0.2, 5)
        raise LookupError
    assert future.result(timeout=0) == 5


@both_stores
def test_threads_submit_at_once(pool):
    found = []

    def work(n):
        futures = [pool.submit(tasks.add, n, i) for i in range(100)]
        found.append([future.result() for future in futures] == [n + i for i in range(100)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert found == [True] * 6


@both_stores
def test_many_functions_in_turn(pool):
    functions = [tasks.square, abs, lambda x: x + 1, functools.partial(tasks.add, 10)]
    futures = [pool.submit(functions[i % 4], i) for i in range(40)]
    expected = [functions[i % 4](i) for i in range(40)]
    assert [future.result() for future in futures] == expected


def test_a_future_can_be_waited_for_before_its_submission_is_written(pool):
    assert [pool.submit(tasks.square, i).result(timeout=60) for i in range(5)] == [0, 1, 4, 9, 16]


def test_futures_that_nobody_keeps_still_run(pool, tmp_path):
    for i in range(5):
        pool.submit(tasks.record, tmp_path, i)
    pool.shutdown()
    assert len(list(tmp_path.iterdir())) == 5


def test_options_reach_the_tasks(tmp_path):
    with starburst.Executor(retries=2, timeout=2, progress=False) as pool:
        assert pool.submit(tasks.flaky, tmp_path, "x", 3).result() == 3
        assert isinstance(pool.submit(tasks.nap, 30).exception(), starburst.TaskTimeout)


@both_stores
def test_large_arguments_are_stored_once(pool, warm):
    before = pool.requests.bytes_out
    big = b"x" * 5_000_000
    futures = [pool.submit(lambda b, i: len(b) + i, big, i) for i in range(20)]
    assert [future.result() for future in futures] == [5_000_000 + i for i in range(20)]
    assert pool.requests.bytes_out - before < 15_000_000


def test_a_future_knows_its_task(pool):
    future = pool.submit(tasks.square, 3)
    future.result()
    batch, number = future.task_id.split("-")
    assert (len(batch), len(number)) == (6, 8)


def test_a_timed_out_wait_does_not_disturb_the_task(blocked, gate):
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        blocked.held[0].result(timeout=0.01)
    assert time.monotonic() - started < 20
    gate.touch()
    assert blocked.held[0].result() == str(gate)
