"""Installing locks: real uv, small packages made here, an index over HTTP, and real wheels for ARM64."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from environment_parts import ARM, CPYTHON, PLATFORM, PYTHON, lock_of, run
from wheelhouse import make_sdist, make_wheel, serve_index

import starburst
from starburst.environment.access import Access
from starburst.environment.build import install
from starburst.environment.lock import FROM_FILE, Lock, Requirement
from starburst.environment.lock_files import file_requirement
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps
from starburst.environment.wheels import as_installed, starburst_wheel
from starburst.errors import EnvironmentBuildError


def lock_with(folder, *lines, platform=PLATFORM, access=None):
    requirements = [Requirement(*line.split("==")) if isinstance(line, str) else line for line in lines]
    return Lock.of(platform, requirements, source_name="uv.lock", folder=folder, access=access)


def installed(tmp_path, *lines, name="out", **options):
    folder, steps = tmp_path / name, Steps()
    run(install(lock_with(tmp_path, *lines, **options), folder, steps))
    return folder, steps


def refused(tmp_path, *lines, **options):
    steps = Steps()
    with pytest.raises(EnvironmentBuildError) as caught:
        run(install(lock_with(tmp_path, *lines, **options), tmp_path / "out", steps))
    assert caught.value.hint
    return caught.value, "\n".join(steps.log)


def tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_wheels_and_pure_sources_are_installed_and_compiled(tmp_path, house):
    folder, steps = installed(tmp_path, "pure==1.0", "native==1.0", "puresd==1.0")
    program = "import pure, native, puresd; print(pure.__cached__, puresd.VERSION)"
    out = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(folder)}, check=True, capture_output=True
    )
    cached, version = out.stdout.decode().split()
    assert Path(cached).exists()
    assert version == "1.0"
    assert [(step.name, step.state) for step in steps.steps] == [("install", "done"), ("compile", "done")]
    assert "Built puresd==1.0" in "\n".join(steps.log)


def test_the_same_lock_gives_the_same_files(tmp_path, house, monkeypatch):
    script = {
        "withscript.py": b"def main(): pass\n",
        "withscript-1.0.dist-info/entry_points.txt": b"[console_scripts]\nws = withscript:main\n",
    }
    wheel = make_wheel(tmp_path / "w", "withscript", files=script)
    lines = ["pure==1.0", "puresd==1.0", file_requirement(wheel, "withscript", "1.0", ())]
    first, _ = installed(tmp_path, *lines)
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(tmp_path / "new-cache"))
    second, _ = installed(tmp_path, *lines, name="elsewhere")
    third, steps = installed(tmp_path, *lines, name="third")
    assert tree(first) == tree(second) == tree(third)
    assert steps.steps[1].detail == "3 packages, 3 of them cached"
    assert (first / "bin" / "ws").read_text().startswith("#!/usr/bin/env python3\n")
    for path in first.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


def test_no_wheel_for_the_platform_names_the_three_ways_out(tmp_path, house):
    error, log = refused(tmp_path, "pure==1.0", "native==1.0", platform=ARM)
    assert f"native 1.0 cannot be had for Python {PYTHON} on Linux aarch64 (glibc 2.36)" in str(error)
    assert "there are wheels for manylinux_2_17_x86_64 only" in str(error)
    for way in ("another version of native", 'architecture="X86_64"', '"docker"'):
        assert way in error.hint
    assert "uv pip install" in log


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("newlibc==1.0", r"newlibc 1.0 cannot be had .*manylinux_2_40_x86_64 only"),
        ("otherpython==1.0", r"otherpython 1.0 cannot be had .*cp37"),
        ("later==1.0", rf"later-1.0 is for Python >=3.99, workers run Python {PYTHON}"),
        ("pure==9.0", r"no index has pure 9.0"),
        ("pure==1.0+cpu", r"no index that is set has pure 1.0\+cpu"),
        ("nothere==1.0", r"no index knows a package nothere"),
        ("compiled==1.0", r"compiled 1.0 cannot be had .*its source code has to be compiled"),
        ("builtnative==1.0", r"builtnative 1.0 cannot be had .*builds here is for .*linux_x86_64"),
        ("broken==1.0", r"broken 1.0 comes as source code, and its build failed: .*set-up is wrong"),
    ],
)
def test_packages_that_cannot_be_had(tmp_path, house, line, says):
    error, _ = refused(tmp_path, "pure==1.0" if not line.startswith("pure") else "needs==1.0", line)
    assert re.search(says, str(error), re.DOTALL), str(error)


def test_a_platform_wheel_from_source_for_another_architecture_is_refused(tmp_path, house):
    error, _ = refused(tmp_path, "builtnative==1.0", platform=ARM)
    assert "builtnative 1.0 cannot be had" in str(error)


def test_a_changed_archive_is_refused(tmp_path, house):
    error, _ = refused(tmp_path, Requirement("pure", "1.0", hashes=("sha256:" + "0" * 64,)))
    assert "archive of pure==1.0 is not the one that was locked" in str(error)


@pytest.fixture
def index_only(house, monkeypatch):
    """Neither uv nor pip has settings."""
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    return house


@pytest.mark.parametrize(("status", "says"), [(401, "401 Unauthorized"), (403, "403 Forbidden")])
def test_a_private_index_without_credentials(tmp_path, index_only, monkeypatch, status, says):
    with serve_index(index_only, login="joe:secret", refuse=status) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        error, _ = refused(tmp_path, "pure==1.0")
    assert f"{url} refused us ({says}" in str(error)
    assert ".netrc" in error.hint


def test_pips_settings_serve_where_uv_has_none(tmp_path, index_only, monkeypatch):
    with serve_index(index_only, login="joe:secret", yanked=("pure-1.0-py3-none-any.whl",)) as url:
        configuration = tmp_path / "pip.conf"
        configuration.write_text(f"[global]\nindex-url = {url.replace('://', '://joe:secret@')}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
        folder, steps = installed(tmp_path, "pure==1.0")
    log = "\n".join(steps.log)
    assert (folder / "pure.py").is_file()
    assert "`pure==1.0` is yanked" in log
    assert "secret" not in log
    assert not [path for path in folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_logins_of_addresses_are_used_and_not_kept(tmp_path, index_only, monkeypatch):
    with serve_index(index_only, login="joe:secret") as url:
        monkeypatch.setenv("PIP_INDEX_URL", url.replace("://", "://joe:secret@"))
        address = url.replace("simple/", "files/pure-1.0-py3-none-any.whl").replace(
            "://", "://${WHO}:secret@"
        )
        monkeypatch.setenv("WHO", "joe")
        (tmp_path / "requirements.txt").write_text(f"pure @ {address}\nneeds\n")
        for _ in range(2):  # resolved, and remembered
            lock, steps = lock_of(tmp_path)
            folder = tmp_path / f"out-{len(steps.log)}"
            run(install(lock, folder, steps))
            assert (folder / "pure.py").is_file()
            assert "secret" not in lock.text() + repr(lock) + "\n".join(steps.log)
    kept = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != "requirements.txt")
    assert not [path for path in kept if b"secret" in path.read_bytes()]


def test_an_index_out_of_reach(tmp_path, index_only, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    error, _ = refused(tmp_path, "notcached==1.0")
    assert "http://127.0.0.1:9/simple/notcached/ cannot be reached" in str(error)
    assert "network" in error.hint


def test_a_repository_out_of_reach(tmp_path, house):
    error, _ = refused(tmp_path, Requirement("far", "1", f"git+http://127.0.0.1:9/x.git@{'a' * 40}"))
    assert "far" in str(error)
    assert "cannot be fetched by git" in str(error)


def test_a_package_from_git(tmp_path, house):
    source = tmp_path / "repository"
    with tarfile.open(make_sdist(tmp_path / "s", "puresd")) as archive:
        archive.extractall(source, filter="data")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x.invalid", "-C", str(source / "puresd-1.0")]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    folder, _ = installed(tmp_path, Requirement("puresd", "1.0", f"git+file://{source}/puresd-1.0@{commit}"))
    assert (folder / "puresd.py").is_file()


def test_a_full_disk(tmp_path, house):
    if os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted by root")
    small = tmp_path / "out"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", small], check=True)
    try:
        big = make_wheel(tmp_path / "w", "big", files={"big.bin": os.urandom(100_000)})
        error, _ = refused(tmp_path, file_requirement(big, "big", "1.0", ()))
    finally:
        subprocess.run(["umount", small], check=True)
    assert "the disk is full" in str(error)
    assert "STARBURST_CACHE_DIR" in error.hint


def test_starburst_travels_as_it_runs_here(tmp_path, house):
    wheel = starburst_wheel(tmp_path)
    (tmp_path / "again").mkdir()
    assert wheel.read_bytes() == starburst_wheel(tmp_path / "again").read_bytes()
    own = as_installed("starburst-cloud")
    assert own == as_installed("starburst-cloud")
    folder, _ = installed(tmp_path, own)
    program = (
        "import importlib.metadata as m, json, starburst, starburst.worker\n"
        "names = [e.name for e in m.distribution('starburst-cloud').entry_points]\n"
        "print(json.dumps([starburst.__file__, m.version('starburst-cloud'), names]))"
    )
    environment = {"PYTHONPATH": str(folder)}
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE
    ).stdout
    where, version, names = json.loads(out)
    assert where == str(folder / "starburst" / "__init__.py")
    assert version == own.version
    assert {"starburst", "LOCAL"} <= set(names)
    assert starburst.__file__ != where


def test_files_for_another_platform_are_not_copied(tmp_path, house):
    wheel = make_wheel(tmp_path, "native", tag=f"{CPYTHON}-{CPYTHON}-manylinux_2_17_x86_64")
    error, _ = refused(tmp_path, Requirement("native", "1.0", FROM_FILE, (), wheel), platform=ARM)
    assert "native" in str(error)


def test_settings_of_a_persons_own_installations_do_not_matter(tmp_path, house, monkeypatch):
    monkeypatch.setenv("UV_REQUIRE_HASHES", "1")
    monkeypatch.setenv("UV_NO_BINARY", "1")
    monkeypatch.setenv("UV_TARGET", str(tmp_path / "wrong"))
    folder, _ = installed(tmp_path, "pure==1.0")
    assert (folder / "pure.py").is_file()


def test_access_shows_no_secrets():
    access = Access(
        "https://a:secret@x.invalid", ("https://b:secret@y.invalid",), (), False, {"h": "c:secret"}
    )
    assert "secret" not in repr(access)


def test_real_wheels_for_arm64(tmp_path):
    """numpy, pandas and scikit-learn with all that starburst needs: every shared object is for the worker's machine."""
    (tmp_path / "requirements.txt").write_text("numpy\npandas\nscikit-learn\n")
    lock, steps = lock_of(tmp_path, Platform(PYTHON, "ARM64"), worker=True)
    folder = tmp_path / "out"
    run(install(lock, folder, steps))
    assert {"numpy", "pandas", "scikit-learn", "boto3", "obstore", "starburst-cloud"} <= lock.versions.keys()
    machines = {}
    for path in folder.rglob("*.so*"):
        with path.open("rb") as file:
            header = file.read(20)
        if header.startswith(b"\x7fELF"):
            machines.setdefault(int.from_bytes(header[18:20], "little"), []).append(path)
    assert set(machines) == {183}
    assert len(machines[183]) > 100
