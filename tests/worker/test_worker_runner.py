# ruff: noqa: PTH104, PTH110, PTH118, PTH119, PTH123, PTH208, T201, PLW0108
"""A runner for real: a process of its own that is given jobs, trimmed, killed, and that crashes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time

import psutil
import pytest
from worker_parts import eventually_async, real_runner

from starburst.protocol.records import Segment
from starburst.worker.runner_process import describe_exit


def in_runner(scenario, **options):
    """Run ``scenario(jobs)`` with a new runner."""

    async def main():
        async with real_runner(**options) as jobs:
            return await scenario(jobs)

    return asyncio.run(main())


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_values_come_in_order():
    async def scenario(jobs):
        assert await jobs.run(lambda x: x * x, range(100)) is None
        assert [outcome.value for outcome in jobs.outcomes] == [x * x for x in range(100)]
        assert jobs.runner.current() == (-1, 0.0)

    in_runner(scenario)


def test_a_job_is_a_part_of_its_frame():
    async def scenario(jobs):
        assert await jobs.run(lambda x: -x, range(10), start=3, end=6) is None
        assert [outcome.value for outcome in jobs.outcomes] == [-3, -4, -5]

    in_runner(scenario)


def test_an_empty_job_ends_at_once():
    async def scenario(jobs):
        assert await jobs.run(lambda x: x, range(10), start=6, end=6) is None
        assert jobs.runs == []

    in_runner(scenario)


def test_values_failures_and_what_cannot_be_pickled_stay_in_order():
    def odd_ones_out(x):
        print(f"working on {x}")
        if x % 4 == 1:
            raise KeyError(x)
        if x % 4 == 2:
            return (i for i in range(x))
        return x

    async def scenario(jobs):
        assert await jobs.run(odd_ones_out, range(12)) is None
        assert len(jobs.outcomes) == 12
        for x, outcome in enumerate(jobs.outcomes):
            if x % 4 == 1:
                assert outcome.failure.kind == "raised"
                assert outcome.failure.message == f"KeyError: {x}"
                assert isinstance(outcome.error, KeyError)
                assert outcome.failure.output == f"working on {x}\n"
            elif x % 4 == 2:
                assert outcome.failure.kind == "unpicklable"
                assert "it returned a generator, which cannot be pickled" in outcome.failure.message
            else:
                assert outcome.value == x

    in_runner(scenario)


def test_the_traceback_begins_in_the_users_code():
    def outer(x):
        return inner(x)

    def inner(x):
        raise ValueError("deep down")

    async def scenario(jobs):
        await jobs.run(outer, [1])
        (outcome,) = jobs.outcomes
        assert "in outer" in outcome.failure.traceback
        assert "in inner" in outcome.failure.traceback
        assert "worker/runner.py" not in outcome.failure.traceback
        assert outcome.failure.type_name == "ValueError"

    in_runner(scenario)


@pytest.mark.parametrize(
    "leave", [lambda x: sys.exit(3), lambda x: (_ for _ in ()).throw(KeyboardInterrupt())]
)
def test_a_task_that_leaves_by_an_exception_fails_alone(leave):
    async def scenario(jobs):
        assert await jobs.run(lambda x, leave=leave: leave(x) if x == 1 else x, range(3)) is None
        first, second, third = jobs.outcomes
        assert (first.value, third.value) == (0, 2)
        assert second.failure.kind == "raised"

    in_runner(scenario)


def test_a_task_that_raises_is_run_again_as_often_as_allowed(tmp_path):
    def flaky(x, folder=str(tmp_path)):
        tries = len(os.listdir(folder))
        open(os.path.join(folder, str(tries)), "w").close()
        if tries < x:
            raise RuntimeError(f"try {tries}")
        return tries

    async def scenario(jobs):
        await jobs.run(flaky, [2], retries=2)
        assert [outcome.value for outcome in jobs.outcomes] == [2]
        assert sum(run.retried for run in jobs.runs) == 2
        await jobs.run(flaky, [100], retries=2)
        failure = jobs.outcomes[1].failure
        assert (failure.message, failure.attempt) == ("RuntimeError: try 5", 3)
        assert "try 4" in failure.output, "what the earlier tries raised is printed"

    in_runner(scenario)


def test_values_of_several_kinds_of_jobs_in_one_runner():
    async def scenario(jobs):
        for n in range(5):
            assert await jobs.run(lambda x, n=n: x + n, [1, 2]) is None
        assert [outcome.value for outcome in jobs.outcomes] == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]

    in_runner(scenario)


def test_a_function_that_cannot_be_loaded_fails_every_task():
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise ImportError('no such module here')",))

    bomb = Bomb()

    async def scenario(jobs):
        assert await jobs.run(lambda x: bomb, [1, 2]) is None
        assert [outcome.failure.kind for outcome in jobs.outcomes] == ["load", "load"]
        assert "no such module here" in jobs.outcomes[0].failure.message
        assert await jobs.run(lambda x: x, [5]) is None
        assert jobs.outcomes[2].value == 5

    in_runner(scenario)


def test_an_argument_that_cannot_be_loaded_fails_its_task_alone():
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise ImportError('not here')",))

    async def scenario(jobs):
        assert await jobs.run(type, [1, Bomb(), 3]) is None
        first, second, third = jobs.outcomes
        assert (first.value, third.value) == (int, int)
        assert (second.failure.kind, "not here" in second.failure.message) == ("load", True)

    in_runner(scenario)


def test_tasks_share_no_arguments_by_accident():
    def change(row):
        row.append(len(row))
        return row

    async def scenario(jobs):
        shared = [0]
        await jobs.run(change, [shared, shared, shared])
        assert [outcome.value for outcome in jobs.outcomes] == [[0, 1]] * 3

    in_runner(scenario)


def test_a_large_object_is_asked_for_once_and_its_absence_fails_the_task():
    import numpy as np

    asked = []

    async def locate(sha256):
        asked.append(sha256)
        raise LookupError("the store is empty")

    async def scenario(jobs):
        await jobs.run(lambda a: a.sum(), [np.ones(200_000), np.zeros(200_000)])
        assert [outcome.failure.kind for outcome in jobs.outcomes] == ["load", "load"]
        assert "the store is empty" in jobs.outcomes[0].failure.message
        assert len(set(asked)) == 2

    in_runner(scenario, locate=locate)


def test_large_results_come_whole():
    import numpy as np

    async def scenario(jobs):
        await jobs.run(lambda n: __import__("numpy").arange(n * 1_000_000), range(4))
        for n, outcome in enumerate(jobs.outcomes):
            assert np.array_equal(outcome.value, np.arange(n * 1_000_000))
            outcome.value[:] = 0

    in_runner(scenario)


def test_what_tasks_print_goes_to_the_log_with_their_names(tmp_path):
    def chat(x):
        print(f"out {x}")
        print(f"err {x}", file=sys.stderr)
        print("no end", end="")

    async def scenario(jobs):
        await jobs.run(chat, range(2))

    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    in_runner(scenario, log_fd=log)
    os.close(log)
    assert sorted((tmp_path / "log").read_text().splitlines()) == sorted(
        f"[000001-0000000{x}] {line}" for x in range(2) for line in (f"out {x}", f"err {x}", "no end")
    )


# Crashes


def die_by(number):
    def die(x):
        if x == 2:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return x

    return die


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda: os._exit(3), "the process left with exit code 3"),
        (lambda: os._exit(0), "the process left with exit code 0"),
        (lambda: ctypes.string_at(0), "segmentation fault (SIGSEGV)"),
        (lambda: os.abort(), "aborted itself (SIGABRT)"),
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            "killed from outside, most often because memory ran out",
        ),
    ],
    ids=["exit-3", "exit-0", "segfault", "abort", "kill"],
)
def test_a_crash_names_its_task_and_its_reason(end, reason):
    async def scenario(jobs):
        crash = await jobs.run(lambda x, end=end: end() if x == 2 else x, range(5))
        assert crash.task == 2
        assert reason in crash.reason
        assert len(jobs.outcomes) <= 2, "no more than what was reported before"
        if reason.startswith("segmentation"):
            assert "Fatal Python error: Segmentation fault" in crash.output
        assert await jobs.run(lambda x: x, [1]) is not None, "it does not come back to life"

    in_runner(scenario)


def test_a_process_that_dies_while_it_loads_blames_no_task():
    class Bomb:
        def __reduce__(self):
            return (os._exit, (9,))

    bomb = Bomb()

    async def scenario(jobs):
        crash = await jobs.run(lambda x: bomb, [1])
        assert (crash.task, crash.reason) == (-1, "the process left with exit code 9")

    in_runner(scenario)


def test_killing_ends_the_task_and_all_that_it_started(tmp_path):
    def start_more(x, folder=str(tmp_path)):
        import subprocess

        child = subprocess.Popen(["sleep", "600"])
        with open(os.path.join(folder, "pid.new"), "w") as file:
            file.write(str(child.pid))
        os.rename(os.path.join(folder, "pid.new"), os.path.join(folder, "pid"))
        time.sleep(600)

    async def scenario(jobs):
        running = await jobs.start(start_more, [0])
        await eventually_async((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        task, since = jobs.runner.current()
        assert task == 0
        assert 0 < since <= time.monotonic()
        assert jobs.runner.memory_bytes() > 2**20
        jobs.runner.kill("too long")
        jobs.runner.kill("a second reason changes nothing")
        crash = await running
        assert (crash.task, crash.reason) == (0, "too long")
        await eventually_async(lambda: is_gone(child))

    in_runner(scenario)


def test_closing_ends_whatever_runs():
    async def main():
        async with real_runner() as jobs:
            running = await jobs.start(lambda x: time.sleep(600), [0])
            await eventually_async(lambda: jobs.runner.current()[0] == 0)
        assert is_gone(jobs.runner.pid)
        running.cancel()

    asyncio.run(main())


def test_a_runner_ends_when_its_agent_is_gone():
    async def main():
        async with real_runner() as jobs:
            jobs.runner._reader.cancel()
            await asyncio.gather(jobs.runner._reader, return_exceptions=True)
            jobs.runner._sock.shutdown(2)
            await eventually_async(lambda: is_gone(jobs.runner.pid))

    asyncio.run(main())


def test_signals_to_the_whole_group_do_not_end_a_runner():
    async def scenario(jobs):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(jobs.runner.pid, number)
        assert await jobs.run(lambda x: x, [7]) is None
        assert jobs.outcomes[0].value == 7

    in_runner(scenario)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "the process left with exit code 1"),
        (-9, "killed from outside, most often because memory ran out (SIGKILL)"),
        (-15, "killed (SIGTERM)"),
        (-99, "killed (signal 99)"),
    ],
)
def test_exit_codes_in_words(code, said):
    assert describe_exit(code) == said


# Long tasks and trims


def wait_for():
    """What tasks of the tests below do: say that they run, and go on when they are allowed to."""

    def wait(path):
        open(f"{path}.runs", "w").close()
        deadline = time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.005)
        return os.path.basename(path)

    return wait


def gates(folder, n):
    return [str(folder / str(i)) for i in range(n)]


def open_gate(path):
    open(path, "w").close()


async def until_running(path):
    await eventually_async(lambda: os.path.exists(f"{path}.runs"))


def test_finished_tasks_are_reported_while_a_long_one_runs(tmp_path):
    paths = gates(tmp_path, 3)

    async def scenario(jobs):
        open_gate(paths[0])
        running = await jobs.start(wait_for(), paths)
        await until_running(paths[1])
        await eventually_async(lambda: len(jobs.outcomes) == 1)
        open_gate(paths[1])
        await until_running(paths[2])
        await eventually_async(lambda: len(jobs.outcomes) == 2)
        assert not running.done()
        open_gate(paths[2])
        assert await running is None
        assert [outcome.value for outcome in jobs.outcomes] == ["0", "1", "2"]

    in_runner(scenario)


@pytest.mark.parametrize(
    ("asked", "answer"), [(0, 2), (1, 2), (2, 2), (3, 3), (4, 4), (5, 5), (99, 5)], ids=lambda n: str(n)
)
def test_a_trim_never_cuts_the_task_that_runs(tmp_path, asked, answer):
    paths = gates(tmp_path, 5)

    async def scenario(jobs):
        open_gate(paths[0])
        running = await jobs.start(wait_for(), paths)
        await until_running(paths[1])
        assert await jobs.runner.trim(jobs.job, asked) == answer
        for path in paths[1:]:
            open_gate(path)
        assert await running is None
        assert [outcome.value for outcome in jobs.outcomes] == [str(i) for i in range(answer)]

    in_runner(scenario)


def test_trims_only_shrink(tmp_path):
    paths = gates(tmp_path, 5)

    async def scenario(jobs):
        running = await jobs.start(wait_for(), paths)
        await until_running(paths[0])
        assert await jobs.runner.trim(jobs.job, 3) == 3
        assert await jobs.runner.trim(jobs.job, 4) == 3
        assert await jobs.runner.trim(jobs.job, 2) == 2
        for path in paths:
            open_gate(path)
        await running
        assert len(jobs.outcomes) == 2

    in_runner(scenario)


def test_a_trim_of_another_job_changes_nothing(tmp_path):
    paths = gates(tmp_path, 3)

    async def scenario(jobs):
        await jobs.run(lambda x: x, [1])
        assert await jobs.runner.trim(jobs.job + 1, 0) == -1, "before its start"
        running = await jobs.start(wait_for(), paths)
        await until_running(paths[0])
        assert await jobs.runner.trim(jobs.job - 1, 0) == -1, "after its end"
        for path in paths:
            open_gate(path)
        await running
        assert len(jobs.outcomes) == 4

    in_runner(scenario)


def test_a_trim_after_the_end_of_the_job_gives_nothing_away():
    async def scenario(jobs):
        await jobs.run(lambda x: x, range(4))
        assert not 0 <= await jobs.runner.trim(jobs.job, 2) < 4

    in_runner(scenario)


def is_stopped(pid):
    """Whether every thread of a process stands still."""
    threads = psutil.Process(pid).threads()
    return all(psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in threads)


def test_a_trim_of_a_runner_that_dies_is_answered(tmp_path):
    paths = gates(tmp_path, 2)

    async def scenario(jobs):
        running = await jobs.start(wait_for(), paths)
        await until_running(paths[0])
        os.kill(jobs.runner.pid, signal.SIGSTOP)
        await eventually_async(lambda: is_stopped(jobs.runner.pid))  # else it may still answer
        trimming = asyncio.ensure_future(jobs.runner.trim(jobs.job, 1))
        await asyncio.sleep(0)
        jobs.runner.kill("superseded")
        assert await asyncio.wait_for(trimming, 30) == -1
        assert (await running).reason == "superseded"
        assert await jobs.runner.trim(jobs.job, 1) == -1, "and so is one after that"

    in_runner(scenario)


def test_trims_that_race_with_the_tasks_are_kept_to_exactly():
    """Whatever the answer is, the job ends there: what was given away is not run here."""

    async def scenario(jobs):
        for n in range(60):
            jobs.runs.clear()
            running = await jobs.start(lambda x: x, range(2000))
            if n % 3:
                await asyncio.sleep(0.0002 * (n % 7))
            end = await jobs.runner.trim(jobs.job, 1 + 17 * n)
            assert await running is None
            done = sum(run.count for run in jobs.runs)
            assert done == (end if 0 <= end < 2000 else 2000)

    in_runner(scenario)


def test_runs_are_segments_of_what_belongs_together():
    async def scenario(jobs):
        await jobs.run(lambda x: 1 // x, [1, 2, 0, 3])
        whole = [segment for run in jobs.runs for segment in run.segments]
        assert [(s.kind, s.count) for s in whole] == [("values", 2), ("failure", 1), ("values", 1)]
        assert all(isinstance(s, Segment) for s in whole)
        assert sum(run.ok for run in jobs.runs) == 3
        assert all(run.task_s >= 0 for run in jobs.runs)

    in_runner(scenario)


def test_modules_are_found_where_the_session_says(tmp_path):
    (tmp_path / "module_of_the_session.py").write_text("def triple(x):\n    return 3 * x\n")

    async def scenario(jobs):
        def call(x):
            import module_of_the_session

            return module_of_the_session.triple(x)

        await jobs.run(call, [4])
        assert jobs.outcomes[0].value == 12

    in_runner(scenario, sys_path=[str(tmp_path)])
