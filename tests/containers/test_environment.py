"""A project's own packages and code in real containers, from images that no engine built, and that one did."""

import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

from engine_parts import push_base
from worker_image import BASE

DEBIAN = "base/debian"
PROJECT = """\
[project]
name = "mine"
version = "1"
requires-python = ">=3.11"

[tool.starburst]
{settings}
"""
# How a Debian package comes into the image: a list, or a Dockerfile.
STANDS_ON = 'base_image = "{registry}/{base}:latest"'
LISTED = f'{STANDS_ON}\nsystem_packages = ["libfoo1"]\nengine = "podman"'
WRITTEN = 'dockerfile = "Dockerfile"\nengine = "buildah"'
DOCKERFILE = """\
FROM {registry}/{base}:latest
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y libfoo1
"""
LIBRARY = """\
from sklearn.linear_model import LinearRegression


def slope(factor):
    model = LinearRegression().fit([[0.0], [1.0], [2.0]], [0.0, factor, 2.0 * factor])
    return round(float(model.coef_[0]), 6)
"""
SCRIPT = """\
import json, os, sys
import starburst
import mylib


def where(factor):
    return [mylib.slope(factor), sys.prefix, os.path.exists("/opt/starburst/packages/sklearn")]


def system(factor):
    return [mylib.slope(factor), os.path.exists("/usr/lib/debian/libfoo1")]


task = {"system": system, "where": where}[sys.argv[1]]
print(json.dumps(starburst.map(task, range(4), progress=False)))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Packages are installed and packed for the first test."""
    return tmp_path_factory.mktemp("cache")


def project_with(settings, registry, base):
    return PROJECT.format(settings=settings.format(registry=registry.address, base=base))


@pytest.fixture
def project(tmp_path, registry, cache, monkeypatch):
    """A script, a package beside it, and a list of requirements."""
    folder = tmp_path / "project"
    (folder / "mylib").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(project_with(STANDS_ON, registry, BASE))
    (folder / "requirements.txt").write_text(f"scikit-learn=={version('scikit-learn')}\n")
    (folder / "mylib" / "__init__.py").write_text(LIBRARY)
    (folder / "main.py").write_text(SCRIPT)
    monkeypatch.delenv("STARBURST_IMAGE")
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(cache))
    monkeypatch.setenv("STARBURST_MEMORY", "1GB")
    return folder


@pytest.fixture
def engines(tmp_path, podman, monkeypatch):
    """The engines of this machine keep what they make where podman keeps it for these tests."""
    settings = dict(option[2:].split("=", 1) for option in shlex.split(podman)[1:])
    file = tmp_path / "storage.conf"
    file.write_text(
        f'[storage]\ndriver = "{settings["storage-driver"]}"\n'
        f'graphroot = "{settings["root"]}"\nrunroot = "{settings["runroot"]}"\n'
        '[storage.options.overlay]\nskip_mount_home = "true"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(file))
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")


def run(folder, task):
    done = subprocess.run(
        [sys.executable, "main.py", task],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_scikit_learn_and_a_local_package(project):
    assert run(project, "where") == [[float(i), "/usr/local", True] for i in range(4)]
    # A line of the code is another one: no image is built for that.
    library = project / "mylib" / "__init__.py"
    library.write_text(library.read_text().replace("6)", "6) + 100"))
    assert run(project, "where") == [[float(i) + 100, "/usr/local", True] for i in range(4)]


@pytest.mark.parametrize("more", [LISTED, WRITTEN], ids=["listed", "Dockerfile"])
def test_with_a_package_of_the_system(more, project, registry, engines):
    push_base(registry, DEBIAN, "latest")
    (project / "Dockerfile").write_text(DOCKERFILE.format(registry=registry.address, base=DEBIAN))
    (project / "pyproject.toml").write_text(project_with(more, registry, DEBIAN))
    assert run(project, "system") == [[float(i), True] for i in range(4)]
