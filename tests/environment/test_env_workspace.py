"""Members of a uv workspace, whose list of packages stands above them."""

import subprocess

import pytest
import uv
from environment_parts import lock_of

ROOT = """
[project]
name = "root"
version = "1"
requires-python = ">=3.11"
dependencies = ["native"]
[tool.uv.workspace]
members = ["libs/*"]
"""
MEMBER = """
[project]
name = "{name}"
version = "1"
requires-python = ">=3.11"
dependencies = [{needs}]
[build-system]
requires = []
build-backend = "b"
[tool.uv.sources]
core = {{workspace = true}}
"""


@pytest.fixture
def workspace(tmp_path, house):
    root = tmp_path / "space"
    for name, needs in {"core": '"pure"', "study": '"core"'}.items():
        (root / "libs" / name / "src").mkdir(parents=True)
        (root / "libs" / name / "pyproject.toml").write_text(MEMBER.format(name=name, needs=needs))
    (root / "pyproject.toml").write_text(ROOT)
    command = [uv.find_uv_bin(), "lock", "--quiet", "--no-index", "--find-links", house]
    subprocess.run(command, cwd=root, check=True)
    return root


@pytest.mark.parametrize("choice", [None, "../../uv.lock"])
def test_a_member_has_what_the_workspaces_lock_says_of_it(workspace, choice):
    study = workspace / "libs" / "study"
    lock, _ = lock_of(study, choice=choice)
    assert [str(entry) for entry in lock.requirements] == ["pure 1.0"]
    assert lock.source_name == "uv.lock"
    assert lock.editables == (workspace / "libs" / "core", study)
    (study / "scripts").mkdir()
    assert lock_of(study / "scripts")[0].sha256 == lock.sha256


def test_the_root_has_its_own(workspace):
    assert [str(entry) for entry in lock_of(workspace)[0].requirements] == ["native 1.0"]


def test_a_list_of_the_member_goes_before(workspace):
    study = workspace / "libs" / "study"
    (study / "requirements.txt").write_text("native==1.0\n")
    assert lock_of(study)[0].source_name == "requirements.txt"


def test_a_project_that_is_no_member_has_what_is_installed(workspace):
    (workspace / "other").mkdir()
    (workspace / "other" / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "1"\n')
    assert lock_of(workspace / "other")[0].source_name == "installed"
