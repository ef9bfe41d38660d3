"""A project's own packages and code in real containers, from an image that no engine built."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import BASE

PROJECT = """\
[project]
name = "mine"
version = "1"
requires-python = ">=3.11"

[tool.starburst]
base_image = "{registry}/{base}:latest"
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


print(json.dumps(starburst.map(where, range(4), progress=False)))
"""


@pytest.fixture
def project(tmp_path, registry, monkeypatch):
    """A script, a package beside it, and a list of requirements; its first image is built without anything cached."""
    folder = tmp_path / "project"
    (folder / "mylib").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT.format(registry=registry.address, base=BASE))
    (folder / "requirements.txt").write_text(f"scikit-learn=={version('scikit-learn')}\n")
    (folder / "mylib" / "__init__.py").write_text(LIBRARY)
    (folder / "main.py").write_text(SCRIPT)
    monkeypatch.delenv("STARBURST_IMAGE")
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("STARBURST_MEMORY", "1GB")
    return folder


def run(folder):
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=folder, capture_output=True, text=True, timeout=150, env={**os.environ}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_scikit_learn_and_a_local_package(project):
    assert run(project) == [[float(i), "/usr/local", True] for i in range(4)]
    # A line of the code is another one: no image is built for that.
    library = project / "mylib" / "__init__.py"
    library.write_text(library.read_text().replace("6)", "6) + 100"))
    assert run(project) == [[float(i) + 100, "/usr/local", True] for i in range(4)]
