"""Workers on this machine with packages of their own: `environment="isolated"`, or a list of packages."""

import asyncio
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from environment_parts import lock_of
from msgspec import structs

import starburst
from starburst.compute.isolated import Isolated
from starburst.compute.local import LocalProvider
from starburst.environment.isolated import bare_python, unpacked_packages
from starburst.environment.platforms import Platform
from starburst.environment.settings import ProjectSettings, project_lock
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError, OptionError, ProviderError
from starburst.options import Options
from starburst.protocol.keys import Keys
from starburst.protocol.records import encode_json
from starburst.protocol.sessions import read_manifest
from starburst.store import open_store

LIBRARY = """\
from sklearn.linear_model import LinearRegression


def slope(factor):
    model = LinearRegression().fit([[0.0], [1.0], [2.0]], [0.0, factor, 2.0 * factor])
    return round(float(model.coef_[0]), 6)
"""
SCRIPT = """\
import importlib.util, json, os, subprocess, sys
import starburst
import mylib


def slope(factor):
    return mylib.slope(factor)


def place(number):
    child = "import importlib.util as it, sys; print(sys.executable, it.find_spec('sklearn') is not None)"
    return {
        "path": sys.path,
        "library": mylib.__file__,
        "pytest": importlib.util.find_spec("pyt" + "est") is not None,
        "executable": sys.executable,
        "child": subprocess.run(["python", "-c", child], capture_output=True, text=True).stdout.split(),
        "lock": os.environ["STARBURST_LOCK"],
        "folder": os.getcwd(),
    }


if __name__ == "__main__":
    choice = sys.argv[1]
    slopes = starburst.map(slope, range(4), workers=2, environment=choice, progress=False)
    session = starburst.session(workers=1, environment=choice)  # its supervisor is another process
    try:
        found = session.submit(place, 0).result()
    finally:
        session.cleanup()
    print(json.dumps([slopes, found]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path, cache, monkeypatch):
    """A script, a package beside it, and a list of requirements."""
    folder = tmp_path / "project"
    (folder / "mylib").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n')
    (folder / "requirements.txt").write_text(f"scikit-learn=={version('scikit-learn')}\n")
    (folder / "mylib" / "__init__.py").write_text(LIBRARY)
    (folder / "main.py").write_text(SCRIPT)
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(cache))
    return folder


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "PYTHONHOME": "", "VIRTUAL_ENV": "/nowhere"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_scikit_learn_and_a_local_package(project, cache):
    slopes, found = run(project, "isolated")
    assert slopes == [float(i) for i in range(4)]
    assert not found["pytest"]
    [environment] = (cache / "environments").iterdir()
    assert found["lock"] == environment.name
    # Nothing that is installed here, no folder of the project: its code comes as everywhere, packed.
    assert str(environment) in found["path"]
    for entry in map(Path, found["path"]):
        assert not entry.is_relative_to(project)
        assert entry.is_relative_to(cache) or not {"site-packages", "dist-packages"} & {*entry.parts}
    assert not Path(found["library"]).is_relative_to(project)
    assert Path(found["executable"]).is_relative_to(cache / "interpreters")
    assert found["child"] == [found["executable"], "True"]
    assert found["folder"] == str(project)
    # A line of the code is another one: nothing is installed for that.
    library = project / "mylib" / "__init__.py"
    library.write_text(library.read_text().replace("6)", "6) + 100"))
    assert run(project, "requirements.txt")[0] == [float(i) + 100 for i in range(4)]
    assert list((cache / "environments").iterdir()) == [environment]


def test_a_package_that_is_only_here_is_missed_before_anything_starts(project, monkeypatch, caplog):
    def needs_pytest(number):
        import pytest

        return pytest.__version__, number

    monkeypatch.chdir(project)
    with (project / "pyproject.toml").open("a") as settings:
        settings.write('[tool.starburst]\nsystem-packages = ["libgl1"]\n')
    (project / "few.txt").write_text(f"packaging=={version('packaging')}\n")
    with pytest.raises(EnvironmentBuildError, match="workers would not find pytest") as caught:
        starburst.map(needs_pytest, [1], workers=1, environment="few.txt", progress=False)
    assert caught.value.hint == "add pytest to few.txt"
    assert "system_packages and dockerfile are for images" in caplog.text
    with pytest.raises(OptionError, match=r"environment='none.txt': no such file"):
        starburst.map(needs_pytest, [1], workers=1, environment="none.txt", progress=False)


def test_two_builds_at_once(house, tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "requirements.txt").write_text("needs==1.0\n")
    lock, steps = lock_of(tmp_path, Platform.of_this_machine())

    async def build():
        return await asyncio.gather(
            *(unpacked_packages(lock, steps) for _ in range(3)), *(bare_python() for _ in range(3))
        )

    *packages, _, _, python = asyncio.run(build())
    assert len(set(packages[:3])) == 1
    code = "import needs, sys; print(needs.VERSION, *sys.path)"
    said = subprocess.run(
        [python, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(packages[0])},
    ).stdout.split()
    assert said[0] == "1.0"
    assert not any(
        "site-packages" in entry for entry in said if not entry.startswith(str(tmp_path / "cache"))
    )
    assert not list((tmp_path / "cache").glob("build-*"))
    again = Steps()
    assert asyncio.run(unpacked_packages(lock, again)) == packages[0]
    assert [step.state for step in again.steps] == ["cached"]


def test_a_build_that_fails_leaves_nothing(house, tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "requirements.txt").write_text("compiled==1.0\n")
    lock, steps = lock_of(tmp_path, Platform.of_this_machine())
    with pytest.raises(EnvironmentBuildError, match=r"compiled 1\.0"):
        asyncio.run(unpacked_packages(lock, steps))
    assert not list((tmp_path / "cache" / "environments").iterdir())
    assert not list((tmp_path / "cache").glob("build-*"))


def test_a_cache_that_was_emptied_is_told(tmp_path):
    provider = LocalProvider(tmp_path)
    gone = Isolated(python=sys.executable, packages=str(tmp_path / "gone"), lock="a" * 64)
    provider.attach(gone.deployment)
    spec = starburst.compute.LaunchSpec(session_url="memory://x", session_id="s", workers=("w-1",))
    with pytest.raises(ProviderError, match="gone, which the session's packages are run with, is not here"):
        asyncio.run(provider.launch(spec))
    with pytest.raises(ProviderError, match="cannot be read"):
        provider.attach({"isolated": {"image": "x"}})


def test_a_worker_without_the_sessions_packages_is_told_to_the_caller(project, folder_url, monkeypatch):
    """What is installed is that of the list still, but the session says another one."""
    monkeypatch.chdir(project)
    (project / "few.txt").write_text(f"packaging=={version('packaging')}\n")
    session = starburst.session(workers=1, environment="few.txt", store=folder_url)
    try:
        store, keys = open_store(folder_url), Keys(session.session_id)
        manifest = asyncio.run(read_manifest(store, session.session_id))
        other = structs.replace(manifest, environment=structs.replace(manifest.environment, lock="a" * 64))
        asyncio.run(store.overwrite(keys.manifest, encode_json(other)))
        session.submit(abs, -1)
        with pytest.raises(
            starburst.StarburstError, match="the session needs those of the list aaaaaaaaaaaa"
        ):
            session.collect(timeout=60)
    finally:
        session.cleanup(force=True)


def pylock(*names):
    wheels = (
        'version = "1"\nwheels = [{{url = "https://files.invalid/{0}-1.whl", hashes = {{sha256 = "aa"}}}}]\n'
    )
    entries = (f'[[packages]]\nname = "{name}"\n' + wheels.format(name) for name in names)
    return 'lock-version = "1.0"\n' + "".join(entries)


def test_what_the_option_means(tmp_path):
    (tmp_path / "pylock.toml").write_text(pylock("pure"))
    (tmp_path / "pylock.other.toml").write_text(pylock("pure", "needs"))

    def names(choice, settings):
        lock = asyncio.run(
            project_lock(
                tmp_path,
                ProjectSettings(tmp_path, settings),
                Platform.of_this_machine(),
                Steps(),
                choice=choice,
            )
        )
        return {"pure", "needs"} & set(lock.versions)

    for choice in (None, "isolated"):
        assert names(choice, None) == {"pure"}
        assert names(choice, "pylock.other.toml") == {"pure", "needs"}
    assert names("pylock.toml", "pylock.other.toml") == {"pure"}


@pytest.mark.parametrize("launch_type", ["LOCAL", "FARGATE", "EC2"])
def test_the_option_has_an_effect_everywhere(launch_type):
    options = Options(launch_type=launch_type, environment="isolated")
    assert options.without_effect(["environment"]) == ()
