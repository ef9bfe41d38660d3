"""Locks: every kind of file, the running interpreter, what the worker needs."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import version

import pytest
import uv
from environment_parts import ARM, PLATFORM, PYTHON, lock_of, run
from wheelhouse import make_sdist, make_wheel, serve_index

from starburst.environment.finding import find_lock, lock_file_of, project_root
from starburst.environment.lock import FROM_FILE, FROM_INSTALLED, Lock, Requirement
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError, OptionError

PROJECT = """
[project]
name = "proj"
version = "1"
requires-python = "{python}"
dependencies = ["pure", "native; platform_machine=='x86_64'", "winonly; sys_platform=='win32'", "foo", "localwheel"]
[project.optional-dependencies]
more = ["puresd"]
[dependency-groups]
dev = ["devtool"]
[build-system]
requires = []
build-backend = "b"
[tool.uv.sources]
foo = {{path = "libs/foo", editable = true}}
localwheel = {{path = "w/localwheel-1.0-py3-none-any.whl"}}
"""


@pytest.fixture
def project(tmp_path, house):
    """A project with a uv.lock that uv itself has made."""
    root = tmp_path / "proj"
    (root / "libs" / "foo").mkdir(parents=True)
    foo = '[project]\nname = "foo"\nversion = "1"\n[build-system]\nrequires = []\nbuild-backend = "b"\n'
    (root / "libs" / "foo" / "pyproject.toml").write_text(foo)
    make_wheel(root / "w", "localwheel")
    (root / "pyproject.toml").write_text(PROJECT.format(python=">=3.11"))
    subprocess.run(
        [uv.find_uv_bin(), "lock", "--quiet", "--no-index", "--find-links", house], cwd=root, check=True
    )
    return root


def test_a_uv_lock_gives_its_versions_for_the_workers_platform(project):
    script = project / "scripts"
    script.mkdir()
    lock, steps = lock_of(script)
    assert [str(entry) for entry in lock.requirements] == ["localwheel 1.0", "native 1.0", "pure 1.0"]
    assert lock.source_name == "uv.lock"
    assert lock.editables == (project, project / "libs" / "foo")
    assert lock.requirements[0].source == FROM_FILE
    assert steps.steps[0].name == "lock"
    arm, _ = lock_of(script, ARM)
    assert [entry.name for entry in arm.requirements] == ["localwheel", "pure"]
    assert arm.sha256 != lock.sha256


def test_extras_and_groups_are_there_when_they_are_asked_for(project):
    lock, _ = lock_of(project, extras=["more"], groups=["dev"])
    assert {"puresd", "devtool"} <= lock.versions.keys()


def test_packages_can_be_left_out(project):
    lock, _ = lock_of(project, exclude=["Pure"])
    assert "pure" not in lock.versions


def test_a_lock_holds_no_path_of_this_machine(project):
    lock, _ = lock_of(project)
    assert str(project) not in lock.text()
    assert all("/" not in line for line in lock.text().splitlines())


def test_the_name_of_a_lock_is_that_of_its_text_and_platform():
    def lock(**changes):
        return Lock.of(
            changes.get("platform", PLATFORM),
            [Requirement("b", "1"), Requirement("a", changes.get("version", "1"))],
            source_name=changes.get("source", "x"),
            folder=PLATFORM and changes.get("folder"),
        )

    assert lock().text() == "a==1\nb==1\n"
    assert lock().sha256 == lock(source="y").sha256
    assert len({lock().sha256, lock(version="2").sha256, lock(platform=ARM).sha256}) == 3


def test_a_lock_for_another_python_is_refused(project):
    lock = project / "uv.lock"
    lock.write_text(lock.read_text().replace('">=3.11"', '">=3.99"'))
    with pytest.raises(
        EnvironmentBuildError, match=f"uv.lock is for Python >=3.99, workers run Python {PYTHON}"
    ) as caught:
        lock_of(project)
    assert f"lock the project for Python {PYTHON}" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("uv.lock", "version = 99\n", "uv cannot read"),
        ("uv.lock", "nonsense", "cannot be read"),
        ("pylock.toml", 'lock-version = "7.0"', "lock-version 7.0"),
        ("pylock.toml", 'lock-version = "1.0"\n[[packages]]\nname = "a"\n', "neither version and archives"),
        ("pylock.toml", 'lock-version = "1.0"\n[[packages]]\nname = "a"\nmarker = "x y"\n', "marker of a"),
        ("poetry.lock", '[metadata]\nlock-version = "1.1"\n', "lock-version 1.1"),
        (
            "poetry.lock",
            '[metadata]\nlock-version = "2.1"\npython-versions = ">=3.99"\n',
            "is for Python >=3.99",
        ),
    ],
)
def test_a_damaged_lock_is_named(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(python=">=3.11"))
    with pytest.raises(EnvironmentBuildError, match=says):
        lock_of(tmp_path)


def test_a_pylock_with_all_kinds_of_sources(tmp_path):
    make_wheel(tmp_path, "localwheel")
    (tmp_path / "pylock.toml").write_text(
        textwrap.dedent(
            """
            lock-version = "1.0"
            default-groups = ["default"]
            [[packages]]
            name = "Some.Name"
            version = "2.0"
            index = "https://joe:secret@index.invalid/simple"
            wheels = [{url = "https://joe:secret@files.invalid/some_name-2.0.whl", hashes = {sha256 = "aa"}}]
            [[packages]]
            name = "fromgit"
            vcs = {type = "git", url = "https://tok@git.invalid/x.git", commit-id = "abc", subdirectory = "py"}
            [[packages]]
            name = "fromurl"
            version = "3.0"
            archive = {url = "https://a.invalid/fromurl-3.0.tar.gz", hashes = {sha256 = "bb"}}
            [[packages]]
            name = "localwheel"
            archive = {path = "localwheel-1.0-py3-none-any.whl", hashes = {sha256 = "cc"}}
            [[packages]]
            name = "here"
            directory = {path = "src", editable = true}
            [[packages]]
            name = "windows"
            version = "1"
            marker = "sys_platform == 'win32'"
            wheels = []
            [[packages]]
            name = "dev"
            version = "1"
            marker = "'dev' in dependency_groups"
            wheels = []
            [[packages]]
            name = "usual"
            version = "1"
            marker = "'default' in dependency_groups and platform_machine == 'x86_64'"
            wheels = [{url = "https://f.invalid/usual-1.whl", hashes = {sha256 = "dd"}}]
            """
        )
    )
    lock, _ = lock_of(tmp_path)
    assert lock.text().splitlines() == [
        "fromgit @ git+https://git.invalid/x.git@abc#subdirectory=py",
        "fromurl @ https://a.invalid/fromurl-3.0.tar.gz --hash=sha256:bb",
        "localwheel==1.0 --hash=sha256:cc  # a file",
        "some-name==2.0 --hash=sha256:aa",
        "usual==1 --hash=sha256:dd",
    ]
    assert lock.editables == (tmp_path / "src",)
    assert lock.access.with_login("https://files.invalid/x") == "https://joe:secret@files.invalid/x"
    assert "secret" not in repr(lock)


def test_indexes_beside_the_usual_one_are_asked_too(tmp_path):
    text = 'lock-version = "1.0"\n'
    for name, host in {
        "a": "usual",
        "b": "usual",
        "c": "other",
        "d": "chosen",
        "e": "chosen",
        "f": "chosen",
    }.items():
        text += f'[[packages]]\nname = "{name}"\nversion = "1"\nindex = "https://{host}.invalid/simple"\n'
        text += f'wheels = [{{url = "https://{host}.invalid/{name}-1.whl", hashes = {{sha256 = "aa"}}}}]\n'
    (tmp_path / "pylock.toml").write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.uv.index]]\nname = "chosen"\nurl = "https://chosen.invalid/simple"\nexplicit = true\n'
    )
    lock, _ = lock_of(tmp_path)
    assert lock.access.indexes == ("https://other.invalid/simple", "https://chosen.invalid/simple")


POETRY_2 = """
[[package]]
name = "Main.Thing"
version = "1.5"
optional = false
python-versions = ">=3.8"
groups = ["main"]
files = [{file = "main_thing-1.5-py3-none-any.whl", hash = "sha256:aa"}]
[[package]]
name = "tool"
version = "1"
optional = false
python-versions = "*"
groups = ["dev"]
files = []
[[package]]
name = "windows"
version = "1"
optional = false
python-versions = "*"
groups = ["main", "dev"]
files = []
[package.markers]
main = "sys_platform == 'win32'"
dev = "python_version < '4'"
[[package]]
name = "extra"
version = "1"
optional = true
python-versions = "*"
groups = ["main"]
markers = "extra == 'more'"
files = []
[[package]]
name = "fromgit"
version = "0.1"
optional = false
python-versions = "*"
groups = ["main"]
files = []
[package.source]
type = "git"
url = "https://git.invalid/x.git"
reference = "main"
resolved_reference = "abc"
[[package]]
name = "here"
version = "0.1"
optional = false
python-versions = "*"
groups = ["main"]
files = []
[package.source]
type = "directory"
url = "libs/here"
[extras]
more = ["extra"]
[metadata]
lock-version = "2.1"
python-versions = ">=3.11"
"""


def test_a_poetry_lock_gives_the_main_group(tmp_path):
    (tmp_path / "poetry.lock").write_text(POETRY_2)
    (tmp_path / "pyproject.toml").write_text("[tool.poetry]\npackage-mode = false\n")
    lock, _ = lock_of(tmp_path)
    assert lock.text() == "fromgit @ git+https://git.invalid/x.git@abc\nmain-thing==1.5 --hash=sha256:aa\n"
    assert lock.editables == (tmp_path / "libs" / "here",)
    more, _ = lock_of(tmp_path, extras=["more"], groups=["dev"])
    assert {"extra", "tool", "windows"} <= more.versions.keys()


def test_a_lock_of_poetry_1_is_followed_from_the_project(tmp_path):
    packages = {
        "direct": "a = {version = '*', markers = 'os_name == \"posix\"'}\n"
        "w = {version = '*', markers = 'os_name == \"nt\"'}",
        "a": "",
        "w": "",
        "tool": "",
    }
    text = ""
    for name, needs in packages.items():
        text += f'[[package]]\nname = "{name}"\nversion = "1"\noptional = false\npython-versions = "*"\nfiles = []\n'
        text += f"[package.dependencies]\n{needs}\n" if needs else ""
    text += '[metadata]\nlock-version = "2.0"\npython-versions = ">=3.11"\n'
    (tmp_path / "poetry.lock").write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.poetry]\n[tool.poetry.dependencies]\npython = ">=3.11"\ndirect = "^1"\n'
        '[tool.poetry.group.dev.dependencies]\ntool = "*"\n'
    )
    lock, _ = lock_of(tmp_path)
    assert list(lock.versions) == ["a", "direct"]
    assert lock.editables == (tmp_path,)
    assert "tool" in lock_of(tmp_path, groups=["dev"])[0].versions


def test_requirements_are_resolved_once(tmp_path, house):
    (tmp_path / "more.txt").write_text("native==1.0\n")
    file = tmp_path / "requirements.txt"
    file.write_text('-r more.txt\nneeds  # a comment\nwinonly; sys_platform == "win32"\n')
    lock, _ = lock_of(tmp_path)
    assert lock.text() == "native==1.0\nneeds==1.0\npure==1.0\n"

    make_wheel(house, "pure", "1.1")
    try:
        again, steps = lock_of(tmp_path)
        assert again == lock
        assert "has not changed" in "\n".join(steps.log)
        assert lock_of(tmp_path, refresh=True)[0].versions["pure"] == "1.1"
        (tmp_path / "more.txt").write_text("native\npuresd\n")
        assert "puresd" in lock_of(tmp_path)[0].versions
    finally:
        (house / "pure-1.1-py3-none-any.whl").unlink()


def test_requirements_are_resolved_anew_for_other_constraints_and_variables(tmp_path, house, monkeypatch):
    make_wheel(house, "pure", "1.1")
    locks = []
    try:
        (tmp_path / "requirements.txt").write_text("pure\n")
        constraints = tmp_path / "constraints.txt"
        constraints.write_text("pure<2\n")
        monkeypatch.setenv("PIP_CONSTRAINT", str(constraints))
        assert lock_of(tmp_path)[0].versions["pure"] == "1.1"
        constraints.write_text("pure<1.1\n")
        assert lock_of(tmp_path)[0].versions["pure"] == "1.0"
        monkeypatch.delenv("PIP_CONSTRAINT")
        assert lock_of(tmp_path)[0].versions["pure"] == "1.1"
        monkeypatch.setenv("UV_RESOLUTION", "lowest")
        assert lock_of(tmp_path)[0].versions["pure"] == "1.0"
        (tmp_path / "requirements.txt").write_text("pure @ file://${PLACE}\n")
        for version in ("1.1", "1.0"):
            monkeypatch.setenv("PLACE", f"{house}/pure-{version}-py3-none-any.whl")
            assert lock_of(tmp_path)[0].versions["pure"] == version
        with serve_index(house) as url:
            address = url.replace("simple/", "files/pure-${VERSION}-py3-none-any.whl")
            (tmp_path / "requirements.txt").write_text(f"pure @ {address}\n")
            for version in ("1.1", "1.0"):
                monkeypatch.setenv("VERSION", version)
                locks.append(lock_of(tmp_path)[0])
                assert locks[-1].versions["pure"] == version
        assert locks[0].sha256 != locks[1].sha256
    finally:
        (house / "pure-1.1-py3-none-any.whl").unlink()


def test_requirements_may_name_folders_files_and_hashes(tmp_path, house):
    (tmp_path / "lib").mkdir()
    foo = '[project]\nname = "foo"\nversion = "1"\ndependencies = ["pure"]\n[build-system]\nrequires = []\n'
    (tmp_path / "lib" / "pyproject.toml").write_text(foo)
    wheel = make_wheel(tmp_path / "w", "localwheel")
    (tmp_path / "requirements.txt").write_text(f"-e ./lib\n./w/{wheel.name}\n")
    lock, _ = lock_of(tmp_path)
    assert list(lock.versions) == ["localwheel", "pure"]
    assert lock.requirements[0].path == wheel
    assert lock.editables == (tmp_path / "lib",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nothere==1", "no index knows a package nothere"),
        ("pure==9", "no index has pure 9"),
        ("needs\npure==0.1", "no index has pure 0.1"),
        ("clashes\npure==1.0", "requirements.txt cannot be resolved: .*pure>=5"),
        ("-r gone.txt", "gone.txt cannot be read"),
    ],
)
def test_requirements_that_cannot_be_had_are_named(tmp_path, house, line, says):
    (tmp_path / "requirements.txt").write_text(line + "\n")
    with pytest.raises(EnvironmentBuildError, match=f"(?s){says}"):
        lock_of(tmp_path)


def test_the_choice_of_the_file(tmp_path, house):
    (tmp_path / "sub").mkdir()
    assert lock_file_of(tmp_path / "sub") is None or project_root(tmp_path / "sub") not in {
        tmp_path,
        tmp_path / "sub",
    }
    (tmp_path / "requirements-dev.txt").write_text("devtool\n")
    (tmp_path / "requirements-prod.txt").write_text("pure==1.0\n")
    assert lock_file_of(tmp_path / "sub").name == "requirements-prod.txt"
    (tmp_path / "requirements-gpu.txt").write_text("native\n")
    with pytest.raises(OptionError, match="several lists of packages"):
        lock_of(tmp_path)
    assert lock_of(tmp_path / "sub", choice="requirements-prod.txt")[0].text() == "pure==1.0\n"
    (tmp_path / "poetry.lock").write_text(POETRY_2)
    assert lock_of(tmp_path / "sub")[0].source_name == "poetry.lock"
    assert lock_of(tmp_path, choice="installed")[0].source_name == "installed"
    with pytest.raises(OptionError, match="no such file"):
        lock_of(tmp_path, choice="other.txt")
    (tmp_path / "Pipfile").write_text("")
    with pytest.raises(EnvironmentBuildError, match="not a kind of lock file"):
        lock_of(tmp_path, choice="Pipfile")


@pytest.mark.parametrize("name", ["docker", "special", "latest", "buildings"])
def test_lists_that_only_sound_like_those_of_developers(tmp_path, name):
    (tmp_path / f"requirements-{name}.txt").write_text("pure==1.0\n")
    for other in ("dev", "test", "tests", "docs", "lint", "ci", "dev.linux"):
        (tmp_path / f"requirements-{other}.txt").write_text("devtool\n")
    (tmp_path / "requirements_dev.txt").write_text("devtool\n")
    assert lock_file_of(tmp_path).name == f"requirements-{name}.txt"


INSTALLED = """
import json, sys
from pathlib import Path
from starburst.environment.installed import installed_lock
from starburst.environment.platforms import Platform
lock = installed_lock(Platform("3.11", "X86_64"), Path.cwd())
print(json.dumps({"text": lock.text(), "editables": [str(path) for path in lock.editables], "repr": repr(lock)}))
"""


def about(folder, name, **files):
    path = folder / f"{name}-1.0.dist-info"
    path.mkdir(parents=True)
    record = ""
    (folder / f"{name}.py").write_text("")
    for entry, text in {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", **files}.items():
        (path / entry).write_text(text if isinstance(text, str) else json.dumps(text))
        record += f"{path.name}/{entry},,\n"
    (path / "RECORD").write_text(f"{name}.py,,\n{record}")


def test_the_running_interpreters_packages(tmp_path):
    site = tmp_path / "site"
    about(site, "plain")
    about(site, "second")
    git = {
        "url": "https://me:tok@git.invalid/x.git",
        "vcs_info": {"vcs": "git", "commit_id": "abc"},
        "subdirectory": "p",
    }
    about(site, "fromgit", **{"direct_url.json": git})
    url = {"url": "https://u.invalid/fromurl-1.0.tar.gz", "archive_info": {"hash": "sha256=aa"}}
    about(site, "fromurl", **{"direct_url.json": url})
    about(site, "fromfolder", **{"direct_url.json": {"url": "file:///gone/x", "dir_info": {}}})
    edited = {"url": tmp_path.joinpath("my code").as_uri(), "dir_info": {"editable": True}}
    about(site, "edited", **{"direct_url.json": edited})
    about(
        site,
        "conda_one",
        INSTALLER="conda\n",
        **{"direct_url.json": {"url": "file:///croot/x", "dir_info": {}}},
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    out = subprocess.run(
        [sys.executable, "-c", INSTALLED], env=environment, check=True, stdout=subprocess.PIPE
    ).stdout
    found = json.loads(out)
    lines = {line.split("==")[0].split(" @")[0]: line for line in found["text"].splitlines()}
    assert lines["plain"] == "plain==1.0"
    assert lines["conda-one"] == "conda-one==1.0"
    assert lines["fromgit"] == "fromgit @ git+https://git.invalid/x.git@abc#subdirectory=p"
    assert lines["fromurl"] == "fromurl @ https://u.invalid/fromurl-1.0.tar.gz --hash=sha256:aa"
    assert lines["fromfolder"].startswith("fromfolder==1.0  # as installed, sha256:")
    assert lines["pytest"] == f"pytest=={version('pytest')}"
    assert str(tmp_path / "my code") in found["editables"]
    assert not {"starburst-cloud", "uv", "edited"} & lines.keys()
    assert "me:tok" not in found["repr"]
    assert str(tmp_path) not in found["text"]


def test_a_worker_gets_this_starburst_and_what_it_needs(tmp_path, house):
    (tmp_path / "poetry.lock").write_text(
        POETRY_2.replace('name = "Main.Thing"\nversion = "1.5"', 'name = "cloudpickle"\nversion = "2.2.1"')
    )
    lock, steps = lock_of(tmp_path, worker=True)
    for name in ("cloudpickle", "msgspec", "obstore", "boto3"):
        assert lock.versions[name] == version(name)
    own = next(entry for entry in lock.requirements if entry.name == "starburst-cloud")
    assert own.source == FROM_INSTALLED
    assert "uv" not in lock.versions
    assert "cloudpickle 2.2.1 of poetry.lock becomes" in "\n".join(steps.log)


def test_a_lock_that_starburst_does_not_work_with(tmp_path, house):
    (tmp_path / "poetry.lock").write_text(
        POETRY_2.replace('name = "Main.Thing"\nversion = "1.5"', 'name = "msgspec"\nversion = "0.10"')
    )
    with pytest.raises(
        EnvironmentBuildError, match=r"it has msgspec 0.10, but starburst-cloud .*needs msgspec>=0.19"
    ):
        lock_of(tmp_path, worker=True)


def test_what_starburst_needs_gives_way_to_the_lock(tmp_path):
    """pydantic works with one version of its core only; the lock's core stays, an older pydantic is added."""
    here = version("pydantic-core")
    (tmp_path / "poetry.lock").write_text(
        POETRY_2.replace('name = "Main.Thing"\nversion = "1.5"', 'name = "pydantic-core"\nversion = "2.41.5"')
    )
    lock, steps = lock_of(tmp_path, worker=True)
    assert here != lock.versions["pydantic-core"] == "2.41.5"
    assert lock.versions["pydantic"] == "2.12.5"
    assert lock.versions["cloudpickle"] == version("cloudpickle")
    assert "it has pydantic-core 2.41.5, but" in "\n".join(steps.log)


def test_a_lock_can_be_found_from_a_loop(tmp_path, house):
    (tmp_path / "requirements.txt").write_text("pure\n")

    async def both():
        one = find_lock(tmp_path, PLATFORM, Steps(), worker=False)
        return await asyncio.gather(one, find_lock(tmp_path, ARM, Steps(), worker=False))

    here, arm = run(both())
    assert here.text() == arm.text()
    assert here.sha256 != arm.sha256


def test_a_source_archive_of_this_machine(tmp_path, house):
    sdist = make_sdist(tmp_path, "localsd")
    (tmp_path / "requirements.txt").write_text(f"./{sdist.name}\n")
    lock, _ = lock_of(tmp_path)
    assert lock.requirements[0].path == sdist
    sdist.unlink()
    with pytest.raises(EnvironmentBuildError, match="the archive of localsd is not there"):
        lock_of(tmp_path)
