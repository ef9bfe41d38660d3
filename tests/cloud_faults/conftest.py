"""A simulated account in the hands of a saboteur, and sessions in it whose workers are small and die soon."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "faults"))  # its auditor and its tasks serve here, too

from cloud import Cloud
from helpers import eventually
from starburst.client.pool import close_all
from starburst.store import open_store
from story import Story

SMALL = {
    "STARBURST_CPU": "0.25",
    "STARBURST_MEMORY": "512MB",
    "STARBURST_LEASE": "2",
    "STARBURST_IDLE_TIMEOUT": "3",
    "STARBURST_SESSION_TIMEOUT": "3",
}


class Site:
    """One account, as a test sees it from outside: its tasks, and sessions in its bucket."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.aws = cloud.aws
        self.url = cloud.url
        self._clients = []

    def crew(self, session_id=None):
        """The auditor of a session; without an id, of the only one that there is, or is about to be."""
        return Story(self.url, session_id) if session_id else Story.of_only_session(self.url)

    # ---- tasks ----

    def workers(self, **filters):
        """Tasks of workers that have not ended."""
        return [task for task in self.alive(**filters) if task.definition.startswith("starburst-worker")]

    def supervisors(self):
        """Tasks of supervisors that have not ended."""
        return [task for task in self.alive() if task.definition.startswith("starburst-supervisor")]

    def alive(self, **filters):
        """Tasks that have not ended."""
        return [task for task in self.aws.tasks(**filters) if task.last_status != "STOPPED"]

    def started_for(self, crew):
        """Tasks of a session's workers, also those that have ended."""
        tasks = self.aws.tasks(started_by=crew.session_id)
        return [task for task in tasks if task.definition.startswith("starburst-worker")]

    def kill(self, tasks):
        """SIGKILL to each; returns when they are gone."""
        for task in tasks:
            self.aws.kill(task.task_id)
        ids = {task.task_id for task in tasks}
        eventually(lambda: not ids & {task.task_id for task in self.alive()}, what="the killed are gone")

    # ---- clients ----

    def start(self, script, *arguments):
        """Start a script of this folder as a client of its own; it is ended with the test."""
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._clients.append(client)
        return client

    def submit(self, function, n_tasks, seconds, **options):
        """A client makes a session, submits work and ends; the auditor of that session."""
        client = self.start("client_submits.py", function, n_tasks, seconds, *_words(options))
        printed, _ = client.communicate(timeout=60)
        assert client.returncode == 0
        return self.crew(printed.strip())

    def end(self):
        """Kill what is there, of clients, sessions and tasks, and empty the bucket."""
        self.aws.clear()
        for client in self._clients:
            client.kill()
            client.communicate()
        close_all()

        def gone():
            self.cloud.clean()
            return not self.alive()

        eventually(gone, what="the end of all tasks")
        asyncio.run(_empty(self.url))


def _words(options):
    return [f"{name}={value!r}" for name, value in options.items()]


async def _empty(url):
    store = open_store(url)
    await store.delete([info.key for info in await store.list("sessions/")])


def _use(cloud, monkeypatch):
    cloud.use(monkeypatch, os.environ.get("STARBURST_LAUNCH_TYPE", "FARGATE"))
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    return Site(cloud)


@pytest.fixture
def site(cloud, monkeypatch, data_dir):  # noqa: ARG001 - the environment is clean before it is set
    """The account that all tests share; nothing of this test is left in it."""
    used = _use(cloud, monkeypatch)
    yield used
    used.end()


@pytest.fixture
def make_site(tmp_path, monkeypatch, data_dir):  # noqa: ARG001
    """Makes an account of this test's own, with options of SimulatedAws."""
    made = []

    def make(setup=None, **options):
        cloud = Cloud(tmp_path / f"cloud-{len(made)}", **options)
        made.append(cloud)
        cloud.start(**(setup or {}))
        return _use(cloud, monkeypatch)

    yield make
    close_all()
    for cloud in made:
        cloud.aws.stop()
