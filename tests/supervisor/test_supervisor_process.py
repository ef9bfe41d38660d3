"""``python -m starburst.supervisor`` as a real process, over a folder, with real workers."""

import asyncio
import getpass
import os
import signal
import subprocess
import sys

import psutil
import pytest

from helpers import eventually
from starburst.clock import SystemClock
from starburst.compute.local import LocalProvider
from starburst.protocol.keys import Keys, new_session_id, session_url
from starburst.protocol.pack import encode_pack
from starburst.protocol.payload import LargeObjects, dump_function, pack_calls
from starburst.protocol.records import BatchHeader, Environment, FunctionHeader, Manifest
from starburst.protocol.sessions import EventLog, append_event, create_session, read_done
from starburst.store import open_store
from starburst.supervisor import ensure_supervisor
from starburst.supervisor.leader import latest_term, process_is_alive


class Session:
    """A session in a folder, whose tasks wait until a gate is opened."""

    def __init__(self, folder, url, *, workers=2):
        self.gate = folder / "gate"
        self.url = url
        self.store = open_store(url)
        self.provider = LocalProvider()
        self.keys = Keys(new_session_id())
        self.clock = SystemClock()
        self.manifest = Manifest(
            session_id=self.keys.session_id,
            kind="session",
            created_at=self.clock.time(),
            owner=getpass.getuser(),
            host=os.uname().nodename,
            launch_type="LOCAL",
            workers=workers,
            slots=1,
            max_attempts=3,
            lease_s=10.0,
            idle_timeout_s=60.0,
            session_timeout_s=600.0,
            absolute_timeout_s=600.0,
            environment=Environment(cwd=str(folder), sys_path=tuple(sys.path)),
        )
        asyncio.run(create_session(self.store, self.manifest))

    def submit(self, n_tasks):
        gate = str(self.gate)

        def task(i):
            import pathlib
            import time

            while not pathlib.Path(gate).exists():
                time.sleep(0.01)
            return i

        def uncut(counts, sizes):
            return list(counts)

        async def write():
            large = LargeObjects()
            function = dump_function(task, large)
            calls = pack_calls([((i,), {}) for i in range(n_tasks)], [1] * n_tasks, uncut, large)
            await self.store.create(self.keys.function("f"), encode_pack(FunctionHeader(), [function]))
            header = BatchHeader(
                n_tasks=n_tasks,
                firsts=tuple(range(n_tasks)),
                counts=(1,) * n_tasks,
                function="f",
                layout=calls.layout,
            )
            assert await self.store.create(self.keys.batch(1), encode_pack(header, calls.frames))

        asyncio.run(write())

    def ensure(self):
        return asyncio.run(ensure_supervisor(self.store, self.manifest, self.provider, self.url))

    def processes(self, kind):
        listed = asyncio.run(self.provider.describe(self.keys.session_id))
        return [status for status in listed if status.alive and status.worker.startswith(kind)]

    def heartbeats(self):
        return [info.key.rsplit("/", 1)[1] for info in asyncio.run(self.store.list(self.keys.workers))]

    def standing(self):
        return asyncio.run(latest_term(self.store, self.keys))

    def events(self):
        return [event.what for event in asyncio.run(EventLog(self.store, self.keys).news())]

    def say(self, what, **data):
        asyncio.run(append_event(self.store, self.keys, self.clock, what, data=data))

    def done(self):
        return sum(mark.ok for mark in asyncio.run(read_done(self.store, self.keys)))

    def logs(self):
        folder = self.provider._root / self.keys.session_id
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.log")))


@pytest.fixture
def session(tmp_path, folder_url):
    session = Session(tmp_path, folder_url)
    yield session
    sys.stdout.write(session.logs())
    asyncio.run(session.provider.stop(session.keys.session_id, grace_s=0))


def test_detached_session_outlives_its_supervisor(session):
    session.submit(6)
    assert session.ensure().worker == "supervisor-1"
    eventually(lambda: len(session.heartbeats()) == 2, what="both workers beat")
    [first] = session.processes("supervisor-")
    assert session.ensure() is None

    os.kill(first.pid, signal.SIGKILL)
    victim = session.processes("w-")[0]
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: not session.processes("supervisor-"), what="the supervisor is gone")
    eventually(lambda: len(session.processes("w-")) == 1, what="the worker is gone")

    assert session.ensure().worker == "supervisor-2"
    eventually(lambda: len(session.processes("w-")) == 2, what="the lost worker is replaced")
    assert session.standing().term == 2
    assert "worker-lost" in session.events()

    session.gate.touch()
    eventually(lambda: session.done() == 6, what="all tasks are done")
    session.say("terminated", reason="closed")
    eventually(lambda: not session.processes(""), what="nobody is left", timeout_s=40)
    assert session.standing().resigned


def test_sigterm_resigns_and_leaves_the_workers(session):
    session.submit(2)
    session.ensure()
    eventually(lambda: len(session.heartbeats()) == 2, what="both workers beat")
    [first] = session.processes("supervisor-")
    os.kill(first.pid, signal.SIGHUP)
    os.kill(first.pid, signal.SIGINT)
    assert not session.standing().resigned
    os.kill(first.pid, signal.SIGTERM)
    eventually(lambda: not session.processes("supervisor-"), what="the supervisor is gone")
    assert session.standing().resigned
    assert len(session.processes("w-")) == 2
    assert b"leaving" in asyncio.run(session.provider.logs(session.keys.session_id, "supervisor-1"))

    session.ensure()
    eventually(lambda: session.standing().term == 2, what="the successor leads")


def test_second_supervisor_leaves(session):
    session.ensure()
    eventually(session.standing, what="the first leads")
    second = asyncio.run(
        session.provider.launch_supervisor(
            session_url(session.url, session.keys.session_id), session.keys.session_id
        )
    )
    eventually(lambda: len(session.processes("supervisor-")) == 1, what="the second has left")
    assert session.processes("supervisor-")[0].worker != second.worker
    assert session.standing().term == 1


def run(url):
    command = [sys.executable, "-m", "starburst.supervisor", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_unknown_session_is_an_error_in_words(folder_url):
    ended = run(session_url(folder_url, "session-nobody"))
    assert ended.returncode == 1
    assert "there is no session 'session-nobody'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_bad_url_is_an_error_in_words():
    ended = run("file:///no/session/here")
    assert ended.returncode == 1
    assert "is not the URL of a session" in ended.stderr


def test_expired_session_needs_no_supervisor(tmp_path, folder_url):
    session = Session(tmp_path, folder_url)
    session.say("cancelled")
    ended = run(session_url(session.url, session.keys.session_id))
    assert ended.returncode == 0
    assert session.processes("") == []


def test_whether_a_process_is_alive():
    now = SystemClock().time()
    assert process_is_alive(os.getpid(), now)
    # This pid was given away anew long after that.
    assert not process_is_alive(os.getpid(), psutil.Process().create_time() - 3600)
    child = subprocess.Popen(["true"])
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, what="it is a zombie")
    assert not process_is_alive(child.pid, now)
    child.wait()
    assert not process_is_alive(child.pid, now)
