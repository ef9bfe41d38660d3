import asyncio
import json
import subprocess
import sys
import time

import psutil
import pytest
from toys import HERE, toy_provider

from starburst.compute import processes
from starburst.compute.base import LaunchSpec


class Bench:
    """A provider, one session, and short ways to drive them."""

    session_id = "session-1"

    def __init__(self, folder):
        self._others = set(psutil.Process().children())  # such as the S3 server of other tests
        self.data_dir = folder
        self.provider = toy_provider(folder)
        self.folder = folder / "local" / self.session_id
        self.programs = []

    def children(self):
        return set(psutil.Process().children()) - self._others

    def spec(self, *workers, mode="polite", env=None, **fields):
        return LaunchSpec(
            session_url="memory://x",
            session_id=self.session_id,
            workers=workers,
            env={"TOY_MODE": mode, **(env or {})},
            **fields,
        )

    def launch(self, *workers, ready=True, **fields):
        statuses = asyncio.run(self.provider.launch(self.spec(*workers, **fields)))
        for worker in workers if ready else ():
            self.until(lambda worker=worker: f"ready {worker}\n" in self.log(worker), f"{worker} is ready")
        return {status.worker: status for status in statuses.workers}

    def describe(self):
        return {status.worker: status for status in asyncio.run(self.provider.describe(self.session_id))}

    def stop(self, *workers, grace_s=10.0):
        asyncio.run(self.provider.stop(self.session_id, workers or None, grace_s=grace_s))

    def forget(self):
        asyncio.run(self.provider.forget(self.session_id))

    def log(self, worker):
        return asyncio.run(self.provider.logs(self.session_id, worker)).decode()

    def record_path(self, worker):
        return self.folder / f"{worker}.json"

    def record(self, worker):
        return json.loads(self.record_path(worker).read_bytes())

    def change_record(self, worker, **fields):
        self.record_path(worker).write_text(json.dumps({**self.record(worker), **fields}))

    def until(self, check, what):
        deadline = time.monotonic() + 60
        while not check():
            assert time.monotonic() < deadline, f"not within 60 s: {what}"
            time.sleep(0.01)

    def program(self, *args, stdin=False):
        """Start toy_launcher.py; with ``stdin`` it takes commands there, see :func:`ask`."""
        started = subprocess.Popen(
            [sys.executable, str(HERE / "toy_launcher.py"), str(self.data_dir), self.session_id, *args],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.programs.append(started)
        return started

    def close(self):
        for program in self.programs:
            program.kill()
            program.wait()
            for pipe in filter(None, (program.stdin, program.stdout)):
                pipe.close()
        for folder in (self.data_dir / "local").glob("*"):
            asyncio.run(self.provider.stop(folder.name, grace_s=0))


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def bystander(bench):
    """A process of ours that no provider may touch."""
    process = subprocess.Popen(
        [sys.executable, "-IS", str(HERE / "toy_worker.py"), "polite", "bystander"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Times of creation count in ticks of 10 ms: those that are launched next shall have another one.
    created = processes.look(process.pid).create_time
    bench.until(lambda: created_now() > created, "a tick has passed")
    yield process
    process.kill()
    process.wait()


def created_now():
    """The time of creation of a process that is started now."""
    process = subprocess.Popen(["true"])
    try:
        return processes.look(process.pid).create_time
    finally:
        process.wait()
