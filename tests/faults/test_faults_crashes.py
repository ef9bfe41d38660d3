"""Tasks that crash, hang, fork, flood and worse: each fails alone, with its reason; its neighbours do not notice."""

import os

import fault_tasks
import psutil
import pytest
from crew import Crew, kill

import starburst
from helpers import eventually
from starburst.errors import TaskError, TaskFailed, TaskTimeout, WorkerLost

FAST = {"workers": 2, "lease": 2.0, "idle_timeout": 30, "progress": False, "on_error": "return"}


def run(fn, *columns, n=8, url, **options):
    """Run ``fn`` over ``n`` numbers; returns results and checks that the store agrees."""
    results = starburst.map(fn, range(n), *columns, store=url, **{**FAST, **options})
    Crew.of_only_session(url).assert_each_exactly_once()
    assert len(results) == n
    return results


def the_failed(results, *, of=(3,)):
    """The error of the only tasks that failed; all others are right."""
    failed = {i: result for i, result in enumerate(results) if isinstance(result, TaskError)}
    assert sorted(failed) == list(of), failed
    assert all(result == i * i for i, result in enumerate(results) if i not in failed)
    return failed[of[0]]


@pytest.mark.parametrize("chunksize", [1, 8], ids=["alone", "in a chunk"])
@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (fault_tasks.leave, "the process left with exit code 7"),
        (fault_tasks.segfault, "segmentation fault (SIGSEGV)"),
        (fault_tasks.kill_itself, "killed from outside, most often because memory ran out (SIGKILL)"),
        (fault_tasks.abort, "aborted itself (SIGABRT)"),
        (fault_tasks.close_all_files, "its process died each time it ran"),
    ],
)
def test_the_process_dies(folder_url, fn, reason, chunksize):
    error = the_failed(run(fn, url=folder_url, chunksize=chunksize, max_attempts=2))
    assert isinstance(error, WorkerLost)
    assert "its process died each time it ran, 2 times" in str(error)
    assert reason in str(error)
    assert error.index == 3
    assert error.attempt == 2


def test_the_process_dies_on_s3(s3_url):
    error = the_failed(run(fault_tasks.segfault, url=s3_url, max_attempts=3))
    assert "3 times: segmentation fault (SIGSEGV)" in str(error)
    assert "Current thread" in error.output  # the stack that faulthandler printed


def test_the_call_raises_what_became_of_the_task(folder_url):
    with pytest.raises(WorkerLost, match="exit code 7") as caught:
        starburst.map(
            fault_tasks.leave, range(8), store=folder_url, **{**FAST, "on_error": "raise", "max_attempts": 1}
        )
    assert caught.value.task_id == "000001-00000003"


def test_memory_runs_out(folder_url):
    error = the_failed(run(fault_tasks.eat_memory, url=folder_url, memory="256MB", max_attempts=2))
    assert isinstance(error, WorkerLost)
    assert "out of memory: it held" in str(error)
    assert "of 256 MB" in str(error)


def test_recursion_without_end(folder_url):
    error = the_failed(run(fault_tasks.recurse, url=folder_url))
    assert isinstance(error, TaskFailed)
    assert isinstance(error.__cause__, RecursionError)


def test_recursion_that_overflows_the_stack(folder_url):
    error = the_failed(run(fault_tasks.recurse_in_c, url=folder_url, max_attempts=1))
    assert isinstance(error, WorkerLost)
    assert "SIGSEGV" in str(error)


@pytest.mark.parametrize(
    ("fn", "cause"), [(fault_tasks.exit_politely, SystemExit), (fault_tasks.interrupt, KeyboardInterrupt)]
)
def test_exceptions_that_end_programs(folder_url, fn, cause):
    error = the_failed(run(fn, url=folder_url))
    assert isinstance(error, TaskFailed)
    assert isinstance(error.__cause__, cause)


@pytest.mark.parametrize("chunksize", [1, 8], ids=["alone", "in a chunk"])
def test_a_task_kills_its_agent(store_url, chunksize):
    """Not only its process, but the whole worker, again and again."""
    results = run(fault_tasks.kill_agent, url=store_url, chunksize=chunksize, max_attempts=2)
    error = the_failed(results)
    assert isinstance(error, WorkerLost)
    assert "its worker was lost each time it ran" in str(error)
    assert "killed by SIGKILL" in str(error)


def test_timeout_of_a_task_that_will_not_end(store_url):
    error = the_failed(run(fault_tasks.ignore_sigterm_for_ever, url=store_url, timeout=1.0, chunksize=4))
    assert isinstance(error, TaskTimeout)
    assert "longer than its timeout of 1 s" in str(error)
    assert error.index == 3


def test_every_task_times_out(folder_url):
    results = run(fault_tasks.sleep_for_ever, url=folder_url, n=4, timeout=0.5)
    assert all(isinstance(result, TaskTimeout) for result in results)


@pytest.mark.parametrize("fn", [fault_tasks.leave_a_thread, fault_tasks.leave_a_lasting_thread])
def test_threads_that_go_on(folder_url, fn):
    """They hold up neither later tasks nor the worker's leaving."""
    assert run(fn, url=folder_url, n=20) == [i * i for i in range(20)]
    workers = [status.pid for status in Crew.of_only_session(folder_url).alive("w-")]
    starburst.client.pool.close_all()
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_a_fork_that_comes_back_from_the_task(folder_url):
    """Its copy of the runner must not go on where the runner does."""
    assert run(fault_tasks.fork_and_return, url=folder_url, n=20, chunksize=10) == [i * i for i in range(20)]


def test_a_fork_outlives_the_process_and_holds_what_it_inherited(folder_url, tmp_path):
    """The agent sees the end of its runner, though the other end of the socket stays open."""
    pids = tmp_path / "pids"
    try:
        results = run(fault_tasks.fork_a_daemon_and_leave, [str(pids)] * 8, url=folder_url, max_attempts=1)
        assert "exit code 7" in str(the_failed(results))
    finally:
        for line in pids.read_text().split():
            kill(int(line))


def test_multiprocessing_inside_a_task(folder_url):
    results = run(fault_tasks.use_a_process_pool, url=folder_url, n=4)
    assert results == [sum(j * j for j in range(i)) for i in range(4)]


def test_programs_that_a_task_starts_can_be_terminated(folder_url):
    """They do not inherit that runners pass over SIGTERM."""
    assert run(fault_tasks.start_and_terminate, url=folder_url, n=2) == [-15, -15]


def test_children_that_a_task_forks_can_be_terminated_at_once(folder_url):
    """No signal is lost between the fork and the child's first step."""
    assert run(fault_tasks.fork_and_terminate, url=folder_url, n=2) == [{-15}, {-15}]


def test_floods_of_output(folder_url):
    """The tail goes into the failure, all of it into the log, and nothing blocks."""
    error = the_failed(run(fault_tasks.flood, url=folder_url, n=4))
    assert isinstance(error.__cause__, ValueError)
    assert 1000 < len(error.output) < 20_000
    crew = Crew.of_only_session(folder_url)
    lines = crew.logs().splitlines()
    for i in range(4):
        assert f"[000001-{i:08d}] task {i} line 19999 " + "x" * 80 in lines


def test_the_runner_is_killed_from_outside_once(folder_url):
    """A process that the kernel or a person kills costs an attempt, not the task."""
    session = starburst.session(store=folder_url, workers=1, lease=2.0, idle_timeout=30)
    try:
        crew = Crew(folder_url, session.session_id)
        session.map(fault_tasks.slow_square, range(40), [0.03] * 40, chunksize=40)
        eventually(crew.flushed, what="the first results")
        [worker] = crew.alive("w-")
        [runner] = psutil.Process(worker.pid).children()
        runner.kill()
        assert session.collect(timeout=30) == [i * i for i in range(40)]
        crew.assert_each_exactly_once()
        assert [status.worker for status in crew.alive("w-")] == [worker.worker]
    finally:
        session.cleanup(force=True)


def test_an_interrupt_for_the_whole_group_of_the_terminal_passes_workers_by(folder_url):
    """Workers have a session of their own: Ctrl-C in the terminal reaches the client alone."""
    session = starburst.session(store=folder_url, workers=1, lease=2.0, idle_timeout=30)
    try:
        crew = Crew(folder_url, session.session_id)
        session.map(fault_tasks.slow_square, range(4), [0.01] * 4)
        session.collect(timeout=30)
        assert crew.alive()
        for status in crew.alive():
            assert os.getsid(status.pid) == status.pid
    finally:
        session.cleanup(force=True)


def test_bad_tasks_do_not_slow_down_the_good_for_ever(folder_url):
    """Every fourth task kills its process: the others are all there, and it takes no more than 20 restarts."""
    results = run(fault_tasks.leave_every_fourth, url=folder_url, n=40, max_attempts=2)
    deaths = Crew.of_only_session(folder_url).logs().count("took its process down")
    assert deaths == 20
    assert [i for i, result in enumerate(results) if isinstance(result, WorkerLost)] == list(range(3, 40, 4))
    assert all(result == i * i for i, result in enumerate(results) if i % 4 != 3)
