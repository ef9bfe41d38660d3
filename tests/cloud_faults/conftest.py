"""A simulated account in the hands of a saboteur, and sessions in it whose workers are small and die soon."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from cloud import Cloud
from helpers import eventually
from starburst.client.pool import close_all
from starburst.protocol.sessions import list_session_ids
from starburst.store import open_store

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "faults"))  # its auditor serves here, too

SMALL = {
    "STARBURST_CPU": "0.25",
    "STARBURST_MEMORY": "512MB",
    "STARBURST_LEASE": "2",
    "STARBURST_IDLE_TIMEOUT": "3",
    "STARBURST_SESSION_TIMEOUT": "3",
    "STARBURST_WARM_POOL_TIMEOUT": "2",
}


class Site:
    """One account, as a test sees it from outside: its tasks, and sessions in its bucket."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.aws = cloud.aws
        self.url = cloud.url
        self._clients = []
        self._former = self._session_ids()  # the object store may list folders in which nothing is any more

    def crew(self, session_id=None):
        """The auditor of a session; without an id, of the only one that this test has made, or is about to."""
        from story import Story  # not before its folder can be found

        if session_id is None:
            [session_id] = eventually(lambda: self._session_ids() - self._former, what="a session")
        return Story(self.url, session_id)

    def _session_ids(self):
        return set(asyncio.run(list_session_ids(open_store(self.url))))

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

    def hosts(self):
        """EC2 hosts that have not ended."""
        return [host for host in self.aws.hosts() if host.state != "terminated"]

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

        def gone():
            self.cloud.clean()
            return not self.alive()

        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("AWS_PROFILE", raising=False)
            self.cloud.use(patch)
            close_all()
            eventually(gone, what="the end of all tasks")
            asyncio.run(_empty(self.url))


def _words(options):
    return [f"{name}={value!r}" for name, value in options.items()]


async def _empty(url):
    store = open_store(url)
    await store.delete([info.key for info in await store.list("sessions/")])


@pytest.fixture(scope="session")
def account(tmp_path_factory):
    """An account of this folder's own, because tests change it; its notices are long enough to be seen."""
    account = Cloud(tmp_path_factory.mktemp("account"), interruption_s=9.0)
    try:
        yield account.start()
    finally:
        account.aws.stop()


@pytest.fixture
def site(account, monkeypatch, data_dir):
    """The account that all tests here share; nothing of this test is left in it."""
    used = _use(account, monkeypatch)
    yield used
    used.end()


@pytest.fixture
def make_site(tmp_path, monkeypatch, data_dir):
    """Makes an account of this test's own, with options of SimulatedAws."""
    made = []

    def make(**options):
        cloud = Cloud(tmp_path / f"cloud-{len(made)}", **options)
        made.append(cloud)
        cloud.start(fargate_only=True)
        return _use(cloud, monkeypatch)

    yield make
    close_all()
    for cloud in made:
        cloud.aws.stop()


def _use(cloud, monkeypatch):
    cloud.use(monkeypatch, "FARGATE")
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    return Site(cloud)
