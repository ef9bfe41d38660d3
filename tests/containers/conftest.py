"""A registry with the worker image, a podman with a storage of its own, and an account whose tasks are containers."""

import resource
import shlex
import subprocess

import pytest

from oci_registry import OciRegistry
from worker_image import architecture, image_config, packages_layer, python_layer, starburst_layer

REPOSITORY = "starburst-worker"


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """An empty registry on loopback, for the whole run."""
    server = OciRegistry(tmp_path_factory.mktemp("registry") / "server")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def image_digest(registry):
    """The worker image of the tree under test is in the registry; its digest."""
    layers = [python_layer(), packages_layer(), starburst_layer()]
    return registry.push_image(
        REPOSITORY, layers, image_config(), architecture=architecture(), tag="under-test"
    )


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    """The podman command; nothing of it stays on the machine."""
    folder = tmp_path_factory.mktemp("podman")
    command = [
        "podman",
        f"--root={folder / 'root'}",
        f"--runroot={folder / 'run'}",
        "--runtime=runc",
        "--storage-opt=overlay.skip_mount_home=true",  # no mount outlives a run that is killed
    ]
    yield shlex.join(command)
    subprocess.run([*command, "rm", "--all", "--force", "--time=0"], check=True, capture_output=True)
    subprocess.run([*command, "rmi", "--all", "--force"], check=True, capture_output=True)
