"""A worker as its own process: what it says and returns when it does not fit, works, is stopped, or comes late."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from worker_parts import SESSION, submit

from helpers import eventually
from starburst.clock import SystemClock
from starburst.protocol.keys import ChunkId, Keys, session_url
from starburst.protocol.records import Claim, Environment, Manifest, decode_json
from starburst.protocol.results import decode_result
from starburst.protocol.sessions import append_event, create_session, read_done, read_heartbeat
from starburst.store import open_store
from starburst.worker.main import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, main, run_worker

KEYS = Keys(SESSION)


class Folder:
    """A session in a folder, and the processes that work for it."""

    def __init__(self, root_url):
        self.root_url = root_url
        self.url = session_url(root_url, SESSION)
        self.store = open_store(root_url)
        self.processes = []

    def create(self, *, age_s=0.0, **options):
        values = {
            "workers": 1,
            "slots": 1,
            "max_attempts": 3,
            "lease_s": 1.0,
            "idle_timeout_s": 0.3,
            "session_timeout_s": 60.0,
            "absolute_timeout_s": 60.0,
            "environment": Environment(),
            **options,
        }
        manifest = Manifest(
            session_id=SESSION,
            kind="session",
            created_at=time.time() - age_s,
            owner="somebody",
            host="here",
            launch_type="LOCAL",
            **values,
        )
        assert asyncio.run(create_session(self.store, manifest))

    def submit(self, fn, items, **options):
        asyncio.run(submit(self.store, fn, items, **options))

    def start(self, *arguments):
        command = [sys.executable, "-m", "starburst.worker", self.url, "--worker", "w-test", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def work(self, *arguments):
        """Run a worker to its end; returns its exit code and what it wrote to its log."""
        process = self.start(*arguments)
        out, log = process.communicate(timeout=60)
        assert out == ""
        return process.returncode, log

    @property
    def heartbeat(self):
        return asyncio.run(read_heartbeat(self.store, KEYS, "w-test"))

    def values(self):
        found = {}
        for info in asyncio.run(self.store.list(KEYS.results(1))):
            header, outcomes = decode_result(asyncio.run(self.store.get(info.key)), info.key)
            found.update(enumerate((outcome.value for outcome in outcomes), header.first))
        return [found[task] for task in sorted(found)]

    def claims(self, first):
        listed = asyncio.run(self.store.list(KEYS.claim_log(ChunkId(1, first))))
        return [decode_json(Claim, asyncio.run(self.store.get(info.key)), info.key) for info in listed]

    def done(self):
        return {(m.chunk.first, m.ok, m.failed) for m in asyncio.run(read_done(self.store, KEYS, 1))}


@pytest.fixture
def folder(folder_url):
    folder = Folder(folder_url)
    yield folder
    for process in folder.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/prefix", "is not the URL of a session"),
        ("file:///somewhere/sessions/", "is not the URL of a session"),
        ("file:///somewhere/sessions/a b", "'a b' is not a session id"),
        ("gopher://host/sessions/s", "gopher"),
    ],
)
def test_a_url_that_is_none_is_told_in_words(capsys, url, said):
    assert main([url]) == EXIT_FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("starburst worker: ")
    assert said in err
    assert "Traceback" not in err


def test_an_unknown_session_is_told_with_those_that_look_like_it(folder, capsys):
    folder.create()
    near = folder.url[:-1] + "x"
    assert main([near]) == EXIT_FAILED
    err = capsys.readouterr().err
    assert f"there is no session {SESSION[:-1] + 'x'!r}" in err
    assert f"did you mean {SESSION}?" in err
    assert asyncio.run(folder.store.list(KEYS.workers)) == []


def test_the_command_ends_with_the_code_that_main_returns(folder):
    code, log = folder.work()
    assert code == EXIT_FAILED
    assert log.startswith(f"starburst worker: there is no session {SESSION!r}")


@pytest.mark.parametrize(
    ("environment", "theirs"),
    [
        (Environment(python="2.7"), "cpython 2.7"),
        (Environment(implementation="pypy"), f"pypy {sys.version_info.major}.{sys.version_info.minor}"),
    ],
)
def test_another_python_is_refused_and_the_session_told_why(folder, environment, theirs):
    folder.create(environment=environment, slots=3)
    folder.submit(abs, range(3))
    assert run_worker(folder.url, worker="w-test") == EXIT_REFUSED
    beat = folder.heartbeat
    assert beat.state == "refused"
    ours = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    assert f"this worker runs {ours}, the session was made with {theirs}" in beat.reason
    assert (beat.slots, beat.tasks_done) == (3, 0)
    assert asyncio.run(folder.store.list(KEYS.claims(1))) == []


def test_a_newer_protocol_is_told_in_words(folder, capsys):
    folder.create(v=2)
    assert main([folder.url]) == EXIT_FAILED
    err = capsys.readouterr().err
    assert f"{KEYS.manifest} was written in version 2 of the protocol" in err
    assert "pip install --upgrade" in err


# ---- what does ----


def test_it_works_says_so_and_leaves_when_there_is_nothing_to_do(folder):
    folder.create(slots=2)

    def shout(x):
        print(f"shouted {x}")  # noqa: T201
        return x.upper()

    folder.submit(shout, ["a", "b", "c"], chunksize=2)
    code, log = folder.work()
    assert code == EXIT_OK, log
    assert folder.values() == ["A", "B", "C"], log
    assert folder.done() == {(0, 2, 0), (2, 1, 0)}
    assert f"worker w-test works for {SESSION} in {folder.root_url}" in log
    assert "worker w-test leaves: nothing to do for the idle timeout" in log
    assert "[000001-00000002] shouted c\n" in log
    beat = folder.heartbeat
    assert (beat.state, beat.reason) == ("stopped", "nothing to do for the idle timeout")
    assert (beat.tasks_done, beat.tasks_failed, beat.slots) == (3, 0, 2)
    assert beat.python == sys.version.split()[0]
    assert beat.requests > 5


def test_options_of_the_command_win_over_the_session(folder):
    folder.create(slots=1)
    code, log = folder.work("--slots", "3")
    assert code == EXIT_OK, log
    assert folder.heartbeat.slots == 3


def test_sigterm_lets_the_task_finish_and_gives_the_rest_back(folder, tmp_path):
    folder.create()
    gate, started = tmp_path / "gate", tmp_path / "started"

    def behind_gate(i, gate=str(gate), started=str(started)):
        import pathlib
        import time

        pathlib.Path(started).touch()
        while not pathlib.Path(gate).exists():
            time.sleep(0.01)
        return i

    folder.submit(behind_gate, range(3), chunksize=3)
    process = folder.start()
    eventually(started.exists, what="the first task's start")
    process.send_signal(signal.SIGTERM)
    eventually(lambda: folder.heartbeat.state == "draining", what="the heartbeat that tells of draining")
    gate.touch()
    _, log = process.communicate(timeout=30)
    assert process.returncode == EXIT_OK, log
    assert folder.values() == [0]
    assert [claim.kind for claim in folder.claims(0)] == ["claim", "release"]
    assert folder.done() == set()
    assert (folder.heartbeat.state, folder.heartbeat.reason) == ("stopped", "asked to stop (SIGTERM)")
    assert "worker w-test leaves: asked to stop (SIGTERM)" in log


def endless(pid_file):
    """A task that writes its process id and never returns."""

    def for_ever(_, pid_file=str(pid_file)):
        import os
        import pathlib
        import time

        new = pathlib.Path(pid_file + ".new")
        new.write_text(str(os.getpid()))
        new.rename(pid_file)
        while True:
            time.sleep(60)

    return for_ever


def test_an_interrupt_waits_for_no_task(folder, tmp_path):
    folder.create()
    pid_file = tmp_path / "pid"

    folder.submit(endless(pid_file), range(1))
    process = folder.start()
    eventually(pid_file.exists, what="the task's start")
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == EXIT_OK, log
    assert folder.heartbeat.reason == "interrupted"
    assert [claim.kind for claim in folder.claims(0)] == ["claim", "release"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_runner_does_not_outlive_its_killed_agent(folder, tmp_path):
    folder.create()
    pid_file = tmp_path / "pid"

    folder.submit(endless(pid_file), range(1))
    process = folder.start()
    eventually(pid_file.exists, what="the task's start")
    process.kill()
    process.communicate(timeout=30)
    eventually(lambda: is_gone(int(pid_file.read_text())), what="the end of the runner")


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---- a session that has been going on for long ----


def test_a_worker_that_comes_after_the_deadline_runs_nothing_and_says_why(folder):
    folder.create(age_s=3600.0, absolute_timeout_s=60.0)
    folder.submit(abs, range(3))
    code, log = folder.work()
    assert code == EXIT_OK, log
    assert folder.heartbeat.reason == "the session is expired"
    assert asyncio.run(folder.store.list(KEYS.claims(1))) == []


def test_a_worker_that_comes_after_the_first_deadline_of_an_extended_session_works(folder):
    folder.create(age_s=3600.0, absolute_timeout_s=60.0)
    data = {"deadline_at": time.time() + 60}
    asyncio.run(append_event(folder.store, KEYS, SystemClock(), "extended", data=data))
    folder.submit(abs, [-1, -2])
    code, log = folder.work()
    assert code == EXIT_OK, log
    assert folder.values() == [1, 2]
    assert folder.heartbeat.reason == "nothing to do for the idle timeout"
