"""Places for clients: a store and a data folder, warm for a whole module or fresh for one test."""

import asyncio
import contextlib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from places import CLOUD, EVERYWHERE, USUAL

from helpers import eventually
from starburst.client import pool as pools
from starburst.store import open_store


def pytest_generate_tests(metafunc):
    """A test that does not say where it runs does so on this machine, on Fargate and on EC2."""
    local = metafunc.definition.get_closest_marker("this_machine")
    said = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    # One that has both is in the fresh place.
    names = [name for name in ("fresh", "warm") if name in metafunc.fixturenames]
    if names and not set(names) & set(said) and local is None:
        metafunc.parametrize(names[0], USUAL, indirect=True)


@dataclass
class Place:
    """Where a test's sessions live: the environment names it, for this process and for those that it starts."""

    kind: str
    url: str
    data_dir: Path
    started: list = field(default_factory=list)

    def start(self, script, *args, cwd=None):
        """Start a script in a process of its own, which is ended with the test if it does not end itself."""
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=cwd or Path(script).parent,
        )
        self.started.append(process)
        return process

    def run(self, script, *args, cwd=None, timeout_s=60, code=0):
        """Run a script to its end; what it printed."""
        process = self.start(script, *args, cwd=cwd)
        out, err = process.communicate(timeout=timeout_s)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        self.last_stderr = err
        return out

    def processes(self):
        """Worker and supervisor processes of this place that are alive."""
        return processes_of(self.data_dir)

    def end(self):
        """Kill what is there; those that one of them has just started are found the next time."""
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)
        return left


class CloudPlace(Place):
    """A place whose workers are tasks of a simulated account."""

    cloud = None

    def processes(self):
        """The first process of each task, and of those that this test started itself."""
        tasks = [task.pid for task in self.cloud.alive() if task.pid]
        return [
            *processes_of(self.data_dir),
            *(psutil.Process(pid) for pid in tasks if psutil.pid_exists(pid)),
        ]

    def end(self):
        """Kill all tasks; those that one of them has just started are found the next time."""
        left = super().end()
        tasks = self.cloud.alive()
        self.cloud.clean()
        return [*left, *tasks]


def processes_of(folder):
    found = []
    for process in psutil.process_iter():
        try:
            ours = any("starburst" in part for part in process.cmdline())
            if ours and process.environ().get("STARBURST_DATA_DIR") == str(folder):
                found.append(process)
        except psutil.Error:  # another user's, or just gone
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left():
    """In place of the fixture for all tests: here pools stay warm between tests, and the places below look after."""


@pytest.fixture(scope="module")
def _warm_dirs(tmp_path_factory):
    """Folders that a module's tests share; when it ends all pools are closed and nobody may be left."""
    dirs = {kind: tmp_path_factory.mktemp(f"warm-{kind}") for kind in EVERYWHERE}
    used = []
    yield dirs, used
    with pytest.MonkeyPatch.context() as patch:
        for cloud in used:
            cloud.use(patch)
        pools.close_all()
    for folder in dirs.values():
        eventually(lambda f=folder: not processes_of(f), what=f"the end of all processes of {folder}")
    for cloud in used:
        eventually(lambda c=cloud: not c.alive(), what="the end of all tasks")


def _set_place(monkeypatch, kind, url, data_dir, cloud=None):
    monkeypatch.setenv("STARBURST_DATA_DIR", str(data_dir))
    monkeypatch.setenv("STARBURST_WORKERS", "2")
    monkeypatch.setenv("STARBURST_IDLE_TIMEOUT", "30")
    if cloud is None:
        monkeypatch.setenv("STARBURST_STORE", url)
        return Place(kind, url, data_dir)
    monkeypatch.delenv("STARBURST_STORE", raising=False)
    cloud.use(monkeypatch, CLOUD[kind])
    monkeypatch.setenv("STARBURST_CPU", "1")
    monkeypatch.setenv("STARBURST_MEMORY", "2GB")
    place = CloudPlace(kind, url, data_dir)
    place.cloud = cloud
    return place


@pytest.fixture
def warm(request, _warm_dirs, monkeypatch, data_dir):
    """A place whose two workers stay warm from test to test of a module: on a folder store, or on S3 if asked."""
    kind = getattr(request, "param", "folder")
    dirs, used = _warm_dirs
    folder = dirs[kind]
    if kind in CLOUD:
        cloud = request.getfixturevalue("cloud")
        used[:] = [cloud]
        return _set_place(monkeypatch, kind, cloud.url, folder, cloud)
    url = (folder / "store").as_uri()
    if kind == "s3":
        for name, value in request.getfixturevalue("seaweed").environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://starburst-tests/{folder.name}"
    return _set_place(monkeypatch, kind, url, folder)


@pytest.fixture
def fresh(request, monkeypatch, data_dir):
    """A place of this test's own, on a folder store, or on S3 if asked; all its processes are ended with it."""
    kind = getattr(request, "param", "folder")
    if kind in CLOUD:
        cloud = request.getfixturevalue("cloud")
        place = _set_place(monkeypatch, kind, cloud.url, data_dir, cloud)
        # All places of an account share its bucket, and sessions of one name their results.
        empty(cloud.url, "sessions/resume-")
    else:
        place = _set_place(monkeypatch, kind, request.getfixturevalue(f"{kind}_url"), data_dir)
    monkeypatch.setenv("STARBURST_IDLE_TIMEOUT", "5")
    monkeypatch.setenv("STARBURST_LEASE", "2")
    yield place
    _end_all(place)
    if kind in CLOUD:
        empty(place.url)


def _end_all(place):
    for process in place.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    pools.close_all()
    # What is left belongs to detached sessions and to scripts that were killed: found by this test's own folder.
    eventually(lambda: not place.end(), what=f"the end of all processes of {place.data_dir}")


def empty(url, prefix="sessions/"):
    """Remove all sessions from a store, or those whose keys begin so."""

    async def remove():
        store = open_store(url)
        await store.delete([info.key for info in await store.list(prefix)])

    asyncio.run(remove())


@pytest.fixture
def script(tmp_path):
    """Writes a script; returns its path."""
    folder = tmp_path / "scripts"
    folder.mkdir()

    def write(text, name="script.py"):
        path = folder / name
        path.write_text(text)
        # A rewritten script must not meet the bytecode of the one before, within the same second.
        for stale in folder.glob(f"__pycache__/{Path(name).stem}.*"):
            stale.unlink()
        return path

    return write
