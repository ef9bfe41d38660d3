"""A registry with the worker image, a podman with a storage of its own, and an account whose tasks are containers."""

import shlex
import sys

import pytest

from cloud import Cloud
from helpers import eventually
from oci_registry import OciRegistry
from podman import own_podman
from simulated import client_of
from starburst import __version__
from starburst.aws.names import REPOSITORY
from starburst.client import pool as pools
from worker_image import BASE, architecture, image_config, packages_layer, python_layer, starburst_layer

TAG = f"{__version__}-py{sys.version_info.major}.{sys.version_info.minor}"


class Containers(Cloud):
    """An account whose tasks are containers; ``registry`` stands for its ECR."""

    def __init__(self, folder, registry, podman):
        super().__init__(folder, runtime="podman", podman=podman, registry=registry.address)
        self.registry = registry

    @property
    def repository(self):
        """The repository's name in ECR."""
        options = self.aws.options
        return f"{options.account}.dkr.ecr.{options.region}.amazonaws.com/{REPOSITORY}"

    def client(self, service):
        """A client of the control plane."""
        return client_of(self.aws.environment, service)

    def tell_ecr(self, tag):
        """What is in the registry under this tag is in the account's repository, too; returns its name there."""
        manifest = self.registry.manifest(REPOSITORY, tag)
        self.client("ecr").put_image(
            repositoryName=REPOSITORY,
            imageManifest=manifest.data.decode(),
            imageManifestMediaType=manifest.media_type,
            imageDigest=manifest.digest,
            imageTag=tag,
        )
        return f"{self.repository}:{tag}"


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A registry on loopback, with the worker image of the tree under test."""
    server = OciRegistry(tmp_path_factory.mktemp("registry") / "server")
    try:
        server.start()
        layers = [python_layer(), packages_layer(), starburst_layer()]
        server.push_image(REPOSITORY, layers, image_config(), architecture=architecture(), tag=TAG)
        # What stands for the stock image of this Python.
        server.push_image(
            BASE, layers[:1], image_config(), architecture=architecture(), tag="latest", history=True
        )
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def podman():
    """The podman command, with a storage of its own."""
    with own_podman() as command:
        yield shlex.join(command)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory, registry, podman):
    """An account that is set up, with the worker image under the name that workers take unasked."""
    account = Containers(tmp_path_factory.mktemp("cloud"), registry, podman)
    try:
        account.start(image=None)
        account.tell_ecr(TAG)
        yield account
    finally:
        account.aws.stop()


@pytest.fixture(autouse=True)
def place(cloud, monkeypatch, data_dir):
    """Everything goes to the account: two workers of a quarter of a vCPU; no task outlives its test."""
    cloud.use(monkeypatch, "FARGATE")
    monkeypatch.setenv("STARBURST_IMAGE", f"{cloud.repository}:{TAG}")
    for name, value in {"WORKERS": "2", "CPU": "0.25", "MEMORY": "512MB", "IDLE_TIMEOUT": "20"}.items():
        monkeypatch.setenv(f"STARBURST_{name}", value)
    yield cloud
    pools.close_all()
    cloud.clean()
    eventually(lambda: not cloud.alive(), 30, what="the end of all tasks")
