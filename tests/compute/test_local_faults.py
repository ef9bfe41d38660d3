import asyncio
import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from toys import HERE, ask, lives

from starburst.compute import processes
from starburst.errors import ProviderError


def exited(bench, worker):
    bench.until(lambda: bench.describe()[worker].state == "exited", f"{worker} is exited")
    return bench.describe()[worker]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGSEGV, "killed by SIGSEGV"),
        (40, "killed by signal 40"),
    ],
)
def test_a_killed_worker_shows_its_signal(bench, number, reason):
    pid = bench.launch("w-1")["w-1"].pid
    os.kill(pid, number)
    status = exited(bench, "w-1")
    assert (status.exit_code, status.reason, status.pid) == (-number, reason, pid)
    assert bench.record("w-1")["exit_code"] == -number


def test_an_exit_code_is_shown(bench):
    bench.launch("w-1", mode="exit3", ready=False)
    status = exited(bench, "w-1")
    assert (status.exit_code, status.reason) == (3, "exit code 3")


def test_an_exit_code_is_known_to_other_processes_once_its_launcher_has_seen_it(bench):
    program = bench.program(stdin=True)
    (pid,) = ask(program, "launch w-1")
    bench.until(lambda: "ready w-1" in bench.log("w-1"), "w-1 is ready")
    assert bench.describe()["w-1"].state == "running"
    os.kill(pid, signal.SIGKILL)
    # Its launcher does not look: it stays a zombie, which is not alive.
    bench.until(lambda: (seen := processes.look(pid)) and seen.state == "zombie", "w-1 is a zombie")
    status = bench.describe()["w-1"]
    assert (status.state, status.exit_code) == ("exited", None)
    assert "only to the process that launched it" in status.reason
    bench.stop()
    assert ask(program, "describe") == {"w-1": ["exited", -9, "killed by SIGKILL"]}
    assert bench.describe()["w-1"].reason == "killed by SIGKILL"


def test_a_worker_that_its_launcher_reaped_unseen_is_no_such_process(bench):
    program = bench.program(stdin=True)
    (pid,) = ask(program, "launch w-1")
    os.kill(pid, signal.SIGKILL)
    assert ask(program, f"reap {pid}") == -9
    status = bench.describe()["w-1"]
    assert (status.state, status.exit_code, status.reason) == ("exited", None, "no such process")
    assert ask(program, "describe") == {"w-1": ["exited", None, "no such process"]}


def test_a_reused_pid_is_never_signalled(bench, bystander):
    os.kill(bench.launch("w-1")["w-1"].pid, signal.SIGKILL)
    exited(bench, "w-1")
    bench.change_record("w-1", pid=bystander.pid, exit_code=None)
    status = bench.describe()["w-1"]
    assert status.state == "exited"
    assert status.reason == f"no such process; pid {bystander.pid} is another one now"
    bench.stop(grace_s=0)
    bench.stop("w-1", grace_s=0)
    assert bystander.poll() is None


def test_a_worker_whose_recorded_time_of_creation_is_wrong_is_never_signalled(bench):
    pid = bench.launch("w-1")["w-1"].pid
    create_time = bench.record("w-1")["create_time"]
    bench.change_record("w-1", create_time=create_time - 0.01)
    bench.stop(grace_s=0)
    assert lives(pid)
    bench.change_record("w-1", create_time=create_time)
    bench.stop(grace_s=0)
    assert not lives(pid)


def test_another_child_of_this_process_is_not_reaped(bench, bystander):
    os.kill(bench.launch("w-1")["w-1"].pid, signal.SIGKILL)
    exited(bench, "w-1")
    bench.change_record("w-1", pid=bystander.pid, exit_code=None)
    bystander.terminate()
    bench.until(lambda: not lives(bystander.pid), "the bystander has ended")
    bench.describe()
    assert bystander.wait(timeout=60) in (0, -signal.SIGTERM)


def test_stop_lets_a_worker_say_goodbye(bench):
    bench.launch("w-1")
    bench.stop()
    assert bench.log("w-1").endswith("bye\n")
    assert bench.describe()["w-1"].reason == "exit code 0"


def test_a_deaf_worker_is_killed_after_its_grace(bench):
    bench.launch("deaf", mode="deaf")
    bench.launch("polite")
    bench.stop(grace_s=0.3)
    described = bench.describe()
    assert described["deaf"].reason == "killed by SIGKILL"
    assert described["polite"].reason == "exit code 0"


@pytest.mark.parametrize(("mode", "reason"), [("polite", "exit code 0"), ("deaf", "killed by SIGKILL")])
def test_a_frozen_worker_is_stopped(bench, mode, reason):
    pid = bench.launch("w-1", mode=mode)["w-1"].pid
    os.kill(pid, signal.SIGSTOP)
    bench.until(lambda: bench.describe()["w-1"].reason == "frozen by a signal", "w-1 is frozen")
    assert bench.describe()["w-1"].state == "running"
    bench.stop(grace_s=10 if mode == "polite" else 0.1)
    assert bench.describe()["w-1"].reason == reason


@pytest.mark.parametrize("grace_s", [10.0, 0.0])
def test_the_children_of_a_worker_end_with_it(bench, grace_s):
    bench.launch("w-1", mode="parent")
    bench.until(lambda: "ready child" in bench.log("w-1"), "the child is ready")
    (child,) = [int(line.split()[1]) for line in bench.log("w-1").splitlines() if line.startswith("child ")]
    bench.stop(grace_s=grace_s)
    bench.until(lambda: not lives(child), "the child has ended too")


def test_the_children_of_a_worker_that_ends_just_before_it_is_killed(bench, monkeypatch):
    bench.launch("w-1", mode="parent")
    bench.until(lambda: "ready child" in bench.log("w-1"), "the child is ready")
    (child,) = [int(line.split()[1]) for line in bench.log("w-1").splitlines() if line.startswith("child ")]
    terminate = processes.terminate

    def terminate_and_see_it_end(pid):
        terminate(pid)
        bench.until(lambda: processes.look(pid).state == "zombie", "the worker has ended")

    monkeypatch.setattr(processes, "terminate", terminate_and_see_it_end)
    bench.stop(grace_s=0.0)
    bench.until(lambda: not lives(child), "the child has ended too")


def test_a_worker_launched_while_all_are_stopped_is_stopped_too(bench):
    program = bench.program("late-worker-at-sigterm")
    assert program.stdout.readline() == "ready\n"
    seen = processes.look(program.pid)
    bench.launch("w-1")
    # The program stands in the records as a supervisor would.
    record = {**bench.record("w-1"), "pid": program.pid, "create_time": seen.create_time}
    (bench.folder / "supervisor-1.json").write_text(json.dumps({**record, "worker": "supervisor-1"}))
    bench.stop()
    described = bench.describe()
    assert described.keys() == {"supervisor-1", "w-1", "late"}
    assert {status.state for status in described.values()} == {"exited"}


def test_the_process_that_stops_all_is_spared(bench):
    bench.launch("w-1")
    seen = processes.look(os.getpid())
    record = {**bench.record("w-1"), "pid": os.getpid(), "create_time": seen.create_time}
    path = bench.folder / "supervisor-1.json"
    path.write_text(json.dumps({**record, "worker": "supervisor-1"}))
    bench.stop()
    assert bench.describe()["w-1"].state == "exited"
    assert bench.describe()["supervisor-1"].state == "running"
    path.unlink()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "damaged"),
        (b'{"version": 1, "pid": 12', "damaged"),
        (b"\x00" * 300, "damaged"),
        (b'{"version": 1, "worker": "bad"}', "damaged"),
        (b"[]", "damaged"),
        (b'{"version": 2, "anything": true}', "newer starburst"),
    ],
)
def test_a_bad_record_is_reported_and_does_not_stop_the_rest(bench, body, why, caplog):
    bench.launch("good")
    bench.record_path("bad").write_bytes(body)
    described = bench.describe()
    assert described["good"].state == "running"
    assert described["bad"].state == "unknown"
    assert why in described["bad"].reason
    assert str(bench.record_path("bad")) in described["bad"].reason
    with caplog.at_level(logging.WARNING):
        bench.stop()
    assert "bad of session session-1 was not stopped" in caplog.text
    bench.forget()
    assert bench.describe().keys() == {"bad"}


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_a_record_cannot_name_everybody(bench, pid):
    """kill(2) takes 0 and -1 for whole groups of processes."""
    bench.launch("w-1")
    record = {**bench.record("w-1"), "worker": "bad", "pid": pid}
    bench.record_path("bad").write_text(json.dumps(record))
    assert bench.describe()["bad"].state == "unknown"


def test_a_record_that_is_a_folder_is_reported(bench):
    bench.launch("good")
    bench.record_path("bad").mkdir()
    assert "cannot be read" in bench.describe()["bad"].reason


def test_files_of_others_are_left_alone(bench):
    bench.launch("w-1")
    for name in ("notes.txt", ".hidden.json", "UPPER case.json"):
        (bench.folder / name).touch()
    assert bench.describe().keys() == {"w-1"}
    bench.stop()
    bench.forget()
    assert {path.name for path in bench.folder.iterdir()} == {"notes.txt", ".hidden.json", "UPPER case.json"}


def test_a_log_without_a_record_is_a_launch_that_goes_on_or_broke_off(bench):
    bench.folder.mkdir(parents=True)
    log = bench.folder / "w-1.log"
    log.touch()
    (bench.folder / ".w-1.0123.tmp").touch()
    assert bench.describe()["w-1"].state == "starting"
    bench.forget()
    assert bench.describe()["w-1"].reason == "being launched"
    os.utime(log, (1e9, 1e9))
    assert bench.describe()["w-1"].state == "unknown"
    bench.forget()
    assert not bench.folder.exists()


def test_after_a_restart_of_the_machine_nothing_is_taken_for_a_worker(bench):
    pid = bench.launch("w-1")["w-1"].pid
    bench.change_record("w-1", boot_id="another")
    assert bench.describe()["w-1"].reason == "the machine was restarted"
    bench.stop(grace_s=0)
    assert lives(pid)
    bench.change_record("w-1", boot_id=processes.boot_id())


def test_workers_of_another_machine_that_shares_the_folder_are_not_judged(bench):
    pid = bench.launch("w-1")["w-1"].pid
    bench.change_record("w-1", boot_id="another", host="elsewhere")
    status = bench.describe()["w-1"]
    assert (status.state, status.reason) == ("unknown", "started on another machine, elsewhere; ask there")
    bench.stop(grace_s=0)
    bench.forget()
    assert lives(pid)
    bench.change_record("w-1", boot_id=processes.boot_id())


def test_a_forget_that_cannot_remove_is_an_error(bench):
    bench.launch("w-1")
    bench.stop()
    log = bench.folder / "w-1.log"
    log.unlink()
    log.mkdir()
    with pytest.raises(ProviderError, match="cannot be removed"):
        bench.forget()


@pytest.mark.skipif(sys.platform != "linux", reason="compares the two ways to look at a process")
def test_psutil_sees_what_proc_shows(bench):
    process = subprocess.Popen(
        [sys.executable, "-IS", str(HERE / "toy_worker.py"), "polite", "x"], stdout=subprocess.DEVNULL
    )
    try:
        assert (
            processes.look(process.pid).state == processes._look_with_psutil(process.pid).state == "running"
        )
        first = processes._look_with_psutil(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        bench.until(lambda: processes.look(process.pid).state == "frozen", "it is frozen")
        assert processes._look_with_psutil(process.pid) == first._replace(state="frozen")
        process.kill()
        bench.until(lambda: processes.look(process.pid).state == "zombie", "it is a zombie")
        assert processes._look_with_psutil(process.pid) == first._replace(state="zombie")
    finally:
        process.kill()
        process.wait()
    assert processes.look(process.pid) is processes._look_with_psutil(process.pid) is None


def test_describe_and_stop_go_on_when_workers_die_meanwhile(bench):
    names = [f"w-{number}" for number in range(6)]
    launched = bench.launch(*names)

    async def go():
        stop = asyncio.create_task(bench.provider.stop(bench.session_id, grace_s=5))
        for status in launched.values():
            await asyncio.sleep(0)
            if lives(status.pid):
                os.kill(status.pid, signal.SIGKILL)
        await stop

    asyncio.run(go())
    assert {status.state for status in bench.describe().values()} == {"exited"}
