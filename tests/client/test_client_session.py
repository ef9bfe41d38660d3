"""Detached sessions: submit, look, collect, change and end them, from this process and from others."""

import concurrent.futures as cf
import json
import signal

import client_tasks as tasks
import numpy as np
import psutil
import pytest
from places import EVERYWHERE

import starburst
from helpers import eventually
from starburst.client.engine import engine
from starburst.store import open_store
from starburst.testing import FaultyStore

both_stores = pytest.mark.parametrize("fresh", EVERYWHERE, indirect=True)


@pytest.fixture
def gate(tmp_path):
    path = tmp_path / "gate"
    yield path
    path.touch()


def objects(place, session_id):
    listed = engine.run(open_store(place.url).list(f"sessions/{session_id}/"))
    return sorted(info.key.partition(f"{session_id}/")[2] for info in listed)


@both_stores
def test_map_collect_and_clean_up(fresh):
    session = starburst.session(workers=2)
    submission = session.map(tasks.square, range(30))
    assert len(submission) == 30
    assert submission.task_ids[29].endswith("-00000029")
    assert session.session_id in repr(submission)
    assert session.collect(timeout=60) == [x * x for x in range(30)]
    status = session.status()
    assert (status.total, status.completed, status.failed, status.pending, status.running) == (
        30,
        30,
        0,
        0,
        0,
    )
    assert status.state == "finished"
    session.cleanup(force=True)
    eventually(lambda: not fresh.processes(), what="the end of workers and supervisor")
    assert objects(fresh, session.session_id) == []
    assert starburst.list_sessions() == []
    assert not list((fresh.data_dir / "local").glob("*"))


def test_collecting_again_and_again_removes_nothing(fresh):
    session = starburst.session(workers=1)
    session.map(tasks.fail_at, range(5))
    session.submit(tasks.add, 1, b=2)
    expected = [0, 1, 2, 4, 3]
    assert session.collect(on_error="skip", timeout=60) == expected
    before = objects(fresh, session.session_id)
    for _ in range(3):
        assert session.collect(on_error="skip") == expected
        assert len(session.collect(on_error="return", wait=False)) == 6
        with pytest.raises(starburst.TaskFailed) as caught:
            session.collect()
        assert caught.value.index == 3
        assert caught.value.__cause__.code == 3
    assert dict(session.results()).keys() == {f"000001-{i:08d}" for i in range(5)} | {"000002-00000000"}
    kept = ("batches/", "results/", "done/", "claims/", "functions/", "manifest")
    after = objects(fresh, session.session_id)
    assert [key for key in after if key.startswith(kept)] == [key for key in before if key.startswith(kept)]


def test_results_come_in_the_order_of_submission(fresh):
    session = starburst.session(workers=2)
    session.map(tasks.square, range(3))
    futures = [session.submit(tasks.add, 10, i) for i in range(3)]
    assert [future.result(60) for future in futures] == [10, 11, 12]
    session.map(tasks.square, range(3, 5))
    assert session.collect(timeout=60) == [0, 1, 4, 10, 11, 12, 9, 16]
    ids = [task for task, _ in session.results()]
    assert ids == sorted(ids)
    assert len(ids) == 8


@both_stores
def test_attach_from_another_process(fresh, script, tmp_path):
    first = script(
        f"""
import sys
sys.path.insert(0, {str(tasks.__file__).rsplit("/", 1)[0]!r})
import client_tasks as tasks, starburst

if __name__ == "__main__":
    session = starburst.session(workers=2)
    session.map(tasks.square, range(10))
    session.submit(tasks.add, 1, 2)
    print(session.session_id)
""",
        "first.py",
    )
    session_id = fresh.run(first).strip()
    second = script(
        "import sys, json, starburst\nprint(json.dumps(starburst.attach(sys.argv[1]).collect(timeout=60)))\n",
        "second.py",
    )
    assert json.loads(fresh.run(second, session_id)) == [*(x * x for x in range(10)), 3]
    session = starburst.attach(session_id)
    assert session.collect() == [*(x * x for x in range(10)), 3]
    assert starburst.attach(session.url).session_id == session_id


def test_a_session_goes_on_when_its_maker_is_killed(fresh, script, tmp_path, gate):
    path = script(
        f"""
import sys, time
sys.path.insert(0, {str(tasks.__file__).rsplit("/", 1)[0]!r})
import client_tasks as tasks, starburst

if __name__ == "__main__":
    session = starburst.session(workers=2)
    session.map(tasks.started_then_wait, [{str(tmp_path / "s")!r}], [{str(gate)!r}])
    session.map(tasks.square, range(20))
    print(session.session_id, flush=True)
    time.sleep(600)
"""
    )
    maker = fresh.start(path)
    session_id = maker.stdout.readline().strip()
    eventually((tmp_path / "s").exists, what="the work to begin")
    maker.send_signal(signal.SIGKILL)
    maker.wait(10)
    gate.touch()
    session = starburst.attach(session_id)
    assert session.collect(timeout=60) == [str(gate), *(x * x for x in range(20))]


@both_stores
def test_a_session_whose_processes_were_all_killed_comes_back_to_life(fresh, tmp_path, gate):
    session = starburst.session(workers=2)
    session.map(tasks.started_then_wait, [tmp_path / "s"] * 2, [gate] * 2, chunksize=1)
    session.map(tasks.square, range(10))
    eventually((tmp_path / "s").exists, what="the work to begin")
    eventually(lambda: not fresh.end(), what="the end of all processes")
    gate.touch()
    assert starburst.attach(session.session_id).collect(timeout=90) == [
        *[str(gate)] * 2,
        *(x * x for x in range(10)),
    ]


def test_collect_without_waiting_and_with_too_little_time(fresh, gate):
    session = starburst.session(workers=1)
    session.map(tasks.square, range(3))
    assert session.collect(timeout=60) == [0, 1, 4]
    session.map(tasks.wait_for, [gate])
    assert session.collect(wait=False) == [0, 1, 4]
    with pytest.raises(starburst.CollectTimeout) as caught:
        session.collect(timeout=0.3)
    assert isinstance(caught.value, TimeoutError)
    assert "1 of 4" in str(caught.value)
    assert session.session_id in str(caught.value)
    gate.touch()
    assert session.collect(timeout="1m") == [0, 1, 4, str(gate)]


def test_an_empty_session(fresh):
    session = starburst.session(workers=1)
    assert session.collect() == []
    assert list(session.results()) == []
    assert len(session.map(tasks.square, [])) == 0
    status = session.status()
    assert (status.state, status.total) == ("open", 0)
    assert fresh.processes() == []


@both_stores
def test_status_tells_what_runs(fresh, tmp_path, gate):
    session = starburst.session(workers=2, slots=1)
    session.map(tasks.started_then_wait, [tmp_path / f"s{i}" for i in range(5)], [gate] * 5, chunksize=1)
    eventually(lambda: (tmp_path / "s0").exists() and (tmp_path / "s1").exists())
    status = eventually(
        lambda: (s := session.status()).running == 2 and s.workers == 2 and s,
        what="two running tasks in the status",
    )
    assert (status.total, status.pending, status.completed, status.failed, status.failed_tasks) == (
        5,
        3,
        0,
        0,
        0,
    )
    assert {worker.state for worker in status.worker_list} == {"running"}
    assert all(worker.task.startswith("000001-") for worker in status.worker_list)
    assert {worker.pid for worker in status.worker_list} <= {process.pid for process in fresh.processes()}
    assert "2 running" in repr(status)
    assert session.session_id in status._repr_html_()
    [row] = starburst.list_sessions()
    assert (row.session_id, row.kind, row.state, row.total, row.pending) == (
        session.session_id,
        "session",
        "open",
        5,
        5,
    )
    gate.touch()
    session.collect(timeout=60)


def test_failed_tasks_are_counted(fresh):
    session = starburst.session(workers=1)
    session.map(tasks.fail_at, range(6), [(1, 4)] * 6)
    session.collect(timeout=60, on_error="skip")
    status = session.status()
    assert (status.completed, status.failed, status.failed_tasks) == (4, 2, 2)


def test_retries_and_timeout_of_a_submission(fresh, tmp_path):
    session = starburst.session(workers=1, retries=1)
    session.map(tasks.flaky, [tmp_path], ["a"], [2])
    session.map(tasks.flaky, [tmp_path], ["b"], [4], retries=3)
    session.map(tasks.nap, [60], timeout=0.5)
    first, second, third = session.collect(timeout=60, on_error="return")
    assert (first, second) == (2, 4)
    assert type(third) is starburst.TaskTimeout


@both_stores
def test_shared_data_is_put_once_and_arrives_as_itself(fresh):
    session = starburst.session(workers=1)
    array = np.arange(10.0)
    shared, table = session.put(array), session.put({"a": array, "b": [1]})
    session.map(lambda a, i: float(a[i]), [shared] * 5, range(5))
    session.submit(lambda a, t: (type(a).__name__, t["b"], float(t["a"].sum())), shared, t=table)
    assert session.collect(timeout=60) == [0.0, 1.0, 2.0, 3.0, 4.0, ("ndarray", [1], 45.0)]
    assert session.put(array.copy()) == shared
    assert len([key for key in objects(fresh, session.session_id) if key.startswith("objects/")]) == 2


def test_collecting_waits_for_calls_that_are_being_written(fresh):
    session = starburst.session(workers=1)
    connection = session._connection
    slow = FaultyStore(connection.store)
    slow.delay("create", "*/batches/*", delay_s=0.5)
    connection.store = slow
    future = session.submit(tasks.square, 4)
    eventually(lambda: not slow.pending_faults, timeout_s=10)  # now it is on its way
    assert session.collect(timeout=60) == [16]
    assert future.result(timeout=60) == 16


def test_futures_of_a_session(fresh, tmp_path, gate):
    session = starburst.session(workers=1)
    held = session.submit(tasks.started_then_wait, tmp_path / "s", gate)
    eventually((tmp_path / "s").exists)
    late = [session.submit(tasks.record, tmp_path, f"late-{i}") for i in range(5)]
    eventually(lambda: all(future.task_id for future in late))
    cancelled = [future.cancel() for future in late]
    assert any(cancelled)
    gate.touch()
    assert held.result(60) == str(gate)
    cf.wait(late, timeout=60)
    assert [tasks.runs(tmp_path, f"late-{i}") for i in range(5)] == [0 if gone else 1 for gone in cancelled]


def test_scale(fresh, tmp_path, gate):
    session = starburst.session(workers=1)
    session.map(tasks.started_then_wait, [tmp_path / f"s{i}" for i in range(4)], [gate] * 4, chunksize=1)
    eventually((tmp_path / "s0").exists)
    session.scale(3)
    eventually(lambda: session.status().workers == 3, what="three workers")
    eventually(lambda: sum((tmp_path / f"s{i}").exists() for i in range(4)) == 3)
    session.scale(1)
    gate.touch()
    assert session.collect(timeout=60) == [str(gate)] * 4
    assert any(event.what == "scaled" for event in session.status().events)


def test_no_more_workers_than_tasks(fresh):
    session = starburst.session(workers=5)
    session.map(tasks.nap, [0.3, 0.3])
    session.collect(timeout=60)
    assert len(session.status().worker_list) <= 2


@both_stores
def test_cancel(fresh, tmp_path):
    session = starburst.session(workers=1)
    session.map(tasks.record, [tmp_path] * 2, ["a", "b"])
    assert session.collect(timeout=60) == ["a", "b"]
    session.map(tasks.started_then_wait, [tmp_path / "s"], [tmp_path / "never"])
    session.map(tasks.record, [tmp_path], ["c"])
    eventually((tmp_path / "s").exists)
    session.cancel()
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert session.status().state == "cancelled"
    assert session.collect(wait=False) == ["a", "b"]
    with pytest.raises(starburst.SessionEnded) as caught:
        session.collect(timeout=30)
    assert "cancelled" in str(caught.value)
    for call in (
        lambda: session.map(tasks.square, [1]),
        lambda: session.submit(tasks.square, 1),
        lambda: session.extend("1h"),
    ):
        with pytest.raises(starburst.SessionEnded):
            call()
    assert starburst.attach(session.session_id).collect(wait=False) == ["a", "b"]
    assert tasks.runs(tmp_path, "c") == 0
    assert fresh.processes() == []


@both_stores
def test_cleanup_keeps_results_unless_forced(fresh):
    session = starburst.session(workers=1)
    session.map(tasks.square, range(3))
    session.collect(timeout=60)
    session.cleanup()
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert session.status().state == "closed"
    assert session.collect() == [0, 1, 4]
    with pytest.raises(starburst.SessionEnded, match="closed"):
        session.map(tasks.square, [1])
    assert starburst.attach(session.session_id).collect() == [0, 1, 4]
    session.cleanup(force=True)
    with pytest.raises(starburst.SessionNotFound):
        starburst.attach(session.session_id)
    session.cleanup(force=True)
    assert objects(fresh, session.session_id) == []


def test_cleanup_without_stopping_workers(fresh, tmp_path, gate):
    session = starburst.session(workers=1)
    session.map(tasks.started_then_wait, [tmp_path / "s"], [gate])
    eventually((tmp_path / "s").exists)
    eventually(lambda: session.status().workers == 1)
    with pytest.raises(starburst.SessionError, match="still has 1 workers") as caught:
        session.cleanup(stop_workers=False, force=True)
    assert "stop_workers=True" in caught.value.hint
    session.cleanup(stop_workers=False)
    gate.touch()
    assert session.collect(timeout=60) == [str(gate)]


def test_a_cleaned_up_session_that_still_ran_leaves_nothing(fresh, tmp_path):
    session = starburst.session(workers=2)
    session.map(tasks.started_then_wait, [tmp_path / f"s{i}" for i in range(2)], [tmp_path / "never"] * 2)
    eventually(lambda: (tmp_path / "s0").exists() and (tmp_path / "s1").exists())
    session.cleanup(force=True)
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert objects(fresh, session.session_id) == []
    assert starburst.list_sessions() == []


@both_stores
def test_workers_leave_after_the_idle_timeout_and_come_back_for_new_work(fresh):
    session = starburst.session(workers=2, idle_timeout=0.5)
    session.map(tasks.square, range(4))
    assert session.collect(timeout=60) == [0, 1, 4, 9]
    eventually(lambda: session.status().workers == 0, what="the workers to leave")
    assert session.status().state == "finished"
    session.map(tasks.square, [5])
    assert session.collect(timeout=60) == [0, 1, 4, 9, 25]


def test_the_session_timeout_closes_an_idle_session(fresh):
    session = starburst.session(workers=1, idle_timeout=0.5, session_timeout=1.5)
    session.map(tasks.square, [1, 2])
    assert session.collect(timeout=60) == [1, 4]
    eventually(lambda: session.status().state == "idle", what="the session to be closed")
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert session.collect() == [1, 4]
    with pytest.raises(starburst.SessionEnded) as caught:
        session.map(tasks.square, [3])
    assert "session_timeout" in str(caught.value)
    assert "starburst extend" in caught.value.hint
    session.extend("1h")
    session.map(tasks.square, [3])
    assert session.collect(timeout=60) == [1, 4, 9]


def test_the_session_timeout_does_not_end_a_long_task(fresh):
    session = starburst.session(workers=1, idle_timeout=0.3, session_timeout=0.5)
    session.map(tasks.nap, [2.0], ["done"])
    assert session.collect(timeout=60) == ["done"]


@both_stores
def test_the_absolute_timeout_ends_everything_and_results_stay(fresh, tmp_path):
    session = starburst.session(workers=2, absolute_timeout=4)
    session.map(tasks.square, range(3))
    session.map(tasks.started_then_wait, [tmp_path / "s"], [tmp_path / "never"])
    eventually((tmp_path / "s").exists)
    with pytest.raises(starburst.SessionEnded) as caught:
        session.collect(timeout=60)
    assert "absolute_timeout" in str(caught.value)
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert session.status().state == "expired"
    again = starburst.attach(session.session_id)
    assert fresh.processes() == []  # attaching does not wake the dead
    assert again.collect(wait=False) == [0, 1, 4]
    with pytest.raises(starburst.SessionEnded):
        again.map(tasks.square, [1])


def test_an_expired_session_can_be_extended_and_finishes(fresh, tmp_path, gate):
    session = starburst.session(workers=1, absolute_timeout=2)
    session.map(tasks.started_then_wait, [tmp_path / "s"], [gate])
    eventually(lambda: session.status().state == "expired")
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    gate.touch()
    session.extend(600)
    assert session.status().state == "open"
    assert session.collect(timeout=60) == [str(gate)]


def test_extend_moves_the_deadline(fresh):
    session = starburst.session(workers=1, absolute_timeout=1000)
    before = session.status().deadline_at
    session.extend("2h")
    assert session.status().deadline_at == pytest.approx(before + 7200)
    session.extend(60)
    assert session.status().deadline_at == pytest.approx(before + 7260)


def test_sessions_are_listed_oldest_first(fresh):
    made = [starburst.session(workers=1).session_id for _ in range(3)]
    assert [row.session_id for row in starburst.list_sessions()] == made
    assert starburst.list_sessions(store=fresh.url) == starburst.list_sessions()


@both_stores
def test_two_clients_submit_to_one_session(fresh):
    one = starburst.session(workers=2)
    two = starburst.attach(one.session_id)
    for i in range(5):
        one.map(tasks.add, [i] * 4, range(4))
        two.map(tasks.add, [100 + i] * 4, range(4))
    results = one.collect(timeout=60)
    assert results == two.collect(timeout=60)
    expected = [base + i + j for i in range(5) for base in (0, 100) for j in range(4)]
    assert sorted(results) == sorted(expected)
    assert results == expected  # they took turns


def test_requests_are_counted(fresh):
    session = starburst.session(workers=1)
    session.map(tasks.square, range(100))
    session.collect(timeout=60)
    assert session.requests.total > 0
    assert session.requests.put >= 3


def test_a_program_joins_a_session_by_its_url(fresh, script):
    session = starburst.session(workers=1)
    path = script(
        "import sys\nfrom starburst.worker.main import main\n"
        "if __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n",
        "join.py",
    )
    worker = fresh.start(path, session.url, "--worker", "w-by-hand")
    eventually(
        lambda: "w-by-hand" in [w.worker for w in session.status().worker_list], what="the worker to join"
    )
    pid = {w.worker: w.pid for w in session.status().worker_list}["w-by-hand"]
    assert pid == worker.pid
    session.map(tasks.nap, [0.2] * 8, range(8), chunksize=1)
    assert session.collect(timeout=60) == list(range(8))
    assert psutil.pid_exists(pid)
    session.cleanup(force=True)
    worker.wait(30)
