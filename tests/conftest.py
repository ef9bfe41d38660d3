"""Fixtures for all tests: a data folder of their own, and stores of each kind."""

import asyncio
import itertools
import os
import signal
import sys

import pytest

from seaweed import Seaweed
from starburst.compute.local import LocalProvider
from starburst.store import open_store

pytest.register_assert_rewrite("starburst.testing.contracts")

_serial = itertools.count(1)

# A shell without job control starts what runs in its background deaf to Ctrl-C, and so would be what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    """An empty data folder; nothing of the user's own settings, credentials or sessions is seen."""
    for name in os.environ:
        if name.startswith(("AWS_", "STARBURST_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    folder = tmp_path / "data"
    monkeypatch.setenv("STARBURST_DATA_DIR", str(folder))
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "config"))
    return folder


@pytest.fixture(autouse=True)
def nothing_left(data_dir):
    """Warm pools are closed after each test, and then no worker or supervisor that it started may be alive."""
    yield
    if "starburst.client.pool" in sys.modules:
        sys.modules["starburst.client.pool"].close_all()
    left = asyncio.run(_end_all(data_dir))
    assert not left, f"still alive after the test: {', '.join(left)}"


async def _end_all(data_dir):
    """End what is alive of all sessions; returns what there was."""
    provider = LocalProvider(data_dir)
    left = []
    for folder in sorted((data_dir / "local").glob("*")):
        # Without a pid: its launcher was killed in the middle of starting it.
        alive = [status for status in await provider.describe(folder.name) if status.alive and status.pid]
        left += [f"{status.worker} (pid {status.pid}) of {folder.name}" for status in alive]
        await provider.stop(folder.name, grace_s=0)
    return left


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    """A running S3 server, one for the whole run; it is started when a test first asks for it."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed") / "server")
    server.start()
    try:
        server.make_bucket("starburst-tests")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    """A simulated AWS account that is set up, one for the whole run; it is started when a test first asks for it."""
    from cloud import Cloud

    account = Cloud(tmp_path_factory.mktemp("cloud"))
    try:
        yield account.start()
    finally:
        account.aws.stop()


@pytest.fixture
def s3_url(seaweed, data_dir, monkeypatch):
    """The address of an empty place in the S3 server; the environment lets other processes open it too."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://starburst-tests/test-{next(_serial)}"


@pytest.fixture
def folder_url(tmp_path):
    """The address of an empty folder."""
    return (tmp_path / "store").as_uri()


@pytest.fixture(params=["folder", "s3"])
def store_url(request):
    """An empty store that several processes can open: in a folder, then on S3."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(store_url):
    """The store at ``store_url``."""
    return open_store(store_url)
