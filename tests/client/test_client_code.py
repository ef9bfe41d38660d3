"""A program's own modules on its workers: in the cloud as a layer, on this machine from their folders."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import CLOUD, EVERYWHERE

import starburst
from starburst.environment.code_roots import Root

here = pytest.mark.parametrize("fresh", ["folder"], indirect=True)
in_the_cloud = pytest.mark.parametrize("fresh", list(CLOUD), indirect=True)

EDITS = """
import os, sys
from pathlib import Path
import helper, starburst

def work(_):
    return helper.value(), os.getpid(), os.getppid(), helper.__file__

def call(*options):
    return starburst.map(work, [0], workers=1, progress=False)[0]

first, again = call(), call()
assert first[0] == again[0] == 1, first
assert first[1] == again[1], "nothing has changed: the same process"
Path(helper.__file__).write_text("def value():\\n    return 20 + 2\\n")
second = call()
assert second[0] == 22, second
assert second[1] != first[1] and second[2] == first[2], "another process, the same worker"
with starburst.Executor(workers=1, progress=False) as pool:
    assert pool.submit(work, 0).result()[:3] == second[:3]
print(first[3])
"""


@pytest.mark.parametrize("fresh", EVERYWHERE, indirect=True)
def test_a_module_that_is_edited_between_two_calls_on_warm_workers(fresh, script):
    script("def value():\n    return 1\n", "helper.py")
    printed = Path(fresh.run(script(EDITS)).strip())
    if fresh.kind in CLOUD:
        assert printed.parts[-3].isalnum()
        assert "starburst-code-" in str(printed)
    else:
        assert printed == script("", "helper.py")


SESSION = """
import sys
from pathlib import Path
import helper, starburst

def work(_):
    import helper
    return helper.value()

session = starburst.session(workers=1)
session.map(work, [0, 0])
Path(helper.__file__).write_text("def value():\\n    return 20 + 2\\n")
session.map(work, [0])
assert session.submit(work, 0).result(timeout=60) == 22
results = session.collect(timeout=60)
session.cleanup(force=True)
print(results)
"""


@in_the_cloud
def test_tasks_run_with_the_code_of_the_moment_when_they_were_submitted(fresh, script):
    script("def value():\n    return 1\n", "helper.py")
    assert fresh.run(script(SESSION)) == "[1, 1, 22, 22]\n"


PACKAGE = """
import starburst
from . import names
from .deep.shape import Shape

def work(x):
    from .deep import data
    return names.hello(x), Shape(x), data()

if __name__ == "__main__":
    results = starburst.map(work, [1, 2], workers=1, progress=False)
    assert type(results[0][1]) is Shape
    print([r[0] for r in results], results[0][1].size, results[0][2])
"""


def package(tmp_path):
    folder = tmp_path / "project"
    (folder / "src" / "mine" / "deep").mkdir(parents=True)
    mine = folder / "src" / "mine"
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    (mine / "__init__.py").touch()
    (mine / "__main__.py").write_text(PACKAGE)
    (mine / "names.py").write_text("def hello(x):\n    return f'hello {x}'\n")
    (mine / "deep" / "__init__.py").write_text(
        "from pathlib import Path\ndef data():\n    return (Path(__file__).parent / 'words.txt').read_text()\n"
    )
    (mine / "deep" / "words.txt").write_text("from a file")
    (mine / "deep" / "shape.py").write_text(
        "class Shape:\n    def __init__(self, size):\n        self.size = size\n"
    )
    return folder


def test_a_package_that_is_run_with_dash_m(fresh, tmp_path):
    folder = package(tmp_path)
    command = [sys.executable, "-m", "mine"]
    done = subprocess.run(
        command, cwd=folder / "src", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("['hello 1', 'hello 2'] 1 from a file\n", 0), done.stderr


def test_a_program_without_a_file_beside_a_module_as_in_a_notebook(fresh, tmp_path):
    (tmp_path / "beside.py").write_text("def triple(x):\n    return 3 * x\n")
    text = (
        "import starburst, beside\n"
        "print(starburst.map(lambda x: beside.triple(x), [1, 2], workers=1, progress=False))\n"
        "print(starburst.map(beside.triple, [3], workers=1, progress=False))\n"
    )
    done = subprocess.run(
        [sys.executable, "-"],
        input=text,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[3, 6]\n[9]\n", 0), done.stderr


def test_functions_and_classes_of_a_test_module(fresh):
    assert starburst.map(Twice(2), [1, 2], workers=1, progress=False) == [2, 4]


class Twice:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


@in_the_cloud
def test_large_files_in_a_package_are_refused_before_anything_is_started(fresh, script, tmp_path):
    folder = package(tmp_path)
    with (folder / "src" / "mine" / "weights.bin").open("wb") as file:
        file.truncate(300_000_000)
    done = subprocess.run(
        [sys.executable, "-m", "mine"],
        cwd=folder / "src",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "EnvironmentBuildError: the code of this program takes 300.0 MB" in done.stderr
    assert "weights.bin" in done.stderr
    assert fresh.processes() == []


@here
def test_on_this_machine_nothing_is_packed_and_nothing_is_too_large(fresh, tmp_path):
    folder = package(tmp_path)
    with (folder / "src" / "mine" / "weights.bin").open("wb") as file:
        file.truncate(300_000_000)
    command = [sys.executable, "-m", "mine"]
    done = subprocess.run(
        command, cwd=folder / "src", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("['hello 1'"), done.stderr


def test_links_that_lead_out_are_told_once(tmp_path, monkeypatch):
    from starburst.client import code as own

    app = tmp_path / "app"
    app.mkdir()
    (app / "main.py").touch()
    (tmp_path / "disk").mkdir()
    (app / "data.py").symlink_to(tmp_path / "disk")
    monkeypatch.setattr(own, "find_roots", lambda: [Root(str(app))])
    with pytest.warns(
        UserWarning, match=r"data\.py leads out of the project: workers do not get what is there"
    ):
        own.OwnCode(travels=True)._look(b"")
    assert own.OwnCode(travels=True)._look(b"").archive.n_files == 1


def test_modules_that_workers_lack_are_told_with_the_fix():
    from starburst.client.code import check_modules
    from starburst.protocol.payload import LargeObjects, dump_function

    def work(x):
        import cv2
        import yaml

        return cv2, yaml, x

    function = dump_function(_by_value(work), LargeObjects())
    with pytest.raises(starburst.StarburstError) as caught:
        check_modules(function, frozenset({"numpy"}), None)
    assert (
        "workers would not find cv2 (package opencv-python-headless), yaml (package PyYAML)"
        in caught.value.message
    )
    assert caught.value.hint == "uv add opencv-python-headless; uv add PyYAML"
    check_modules(function, frozenset({"opencv-python-headless", "pyyaml"}), None)


def _by_value(fn):
    import types

    return types.FunctionType(fn.__code__, {"__name__": "__main__"})
