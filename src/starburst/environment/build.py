"""Install a lock into a folder: wheels of the worker's platform, and pure-Python sources, which are built."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Iterable
from pathlib import Path

from starburst.environment.build_errors import compiles, disk_full, explained, no_wheel, without_wheel
from starburst.environment.bytecode import compile_packages
from starburst.environment.caches import cache_path
from starburst.environment.lock import FROM_FILE, FROM_INDEX, FROM_INSTALLED, Lock, Requirement, normalized
from starburst.environment.lock_files import check_python
from starburst.environment.steps import Step, Steps
from starburst.environment.tidy import tidy
from starburst.environment.uv import UvFailed, run_uv, target_arguments
from starburst.environment.wheels import check_platform, pack_installed
from starburst.errors import EnvironmentBuildError

__all__ = ["install"]

_NO_COMPILER = dict.fromkeys(("CC", "CXX", "FC", "F77", "F90", "CARGO", "RUSTC"), "false")
"""What is built must be pure Python: a compiler would work for minutes on what is then refused. Packages that can do
without their compiled part notice, and do."""


async def install(lock: Lock, folder: Path, steps: Steps) -> None:
    """Install the packages of a lock into an empty folder, which then goes on a worker's ``PYTHONPATH``.

    The same lock gives the same files, wherever it is installed.

    Raises:
        EnvironmentBuildError: A package is not to be had for the platform, or has vanished; an index refuses us or is
            not reached; the disk is full. The message names the package and the ways out.
    """
    try:
        with steps("install") as step, tempfile.TemporaryDirectory(prefix="starburst-") as scratch:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await _install(lock, folder, Path(scratch), steps, step)
            await asyncio.to_thread(_check, lock, folder)
            await asyncio.to_thread(tidy, folder)
        with steps("compile") as step:
            packages, before = await compile_packages(folder, lock.platform)
            step.say(f"{packages} packages, {before} of them cached")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise disk_full(str(folder)) from None
        raise


async def _install(lock: Lock, folder: Path, scratch: Path, steps: Steps, step: Step) -> None:
    sources = {entry.name for entry in lock.requirements if _is_source(entry)}
    lines = await asyncio.to_thread(_lines, lock, scratch)
    command = [
        "pip",
        "install",
        "--target",
        str(folder),
        "--no-deps",
        "--python",
        _python(),
        "--requirements",
        "-",
    ]
    command += target_arguments(lock.platform) + lock.access.arguments(lock.folder)
    environment = lock.access.environment(lock.folder)
    wanting: dict[str, UvFailed] = {}
    while wheels := [line for name, line in lines.items() if name not in sources]:
        try:
            await run_uv(
                [*command, "--only-binary", ":all:"],
                steps,
                cwd=lock.folder,
                stdin="\n".join(wheels),
                environment=environment,
            )
            break
        except UvFailed as error:
            missing = without_wheel(error)
            if missing is None or normalized(missing[0]) not in lines:
                raise explained(error, lock.platform, "the packages cannot be installed") from None
            # It may be pure Python that comes as source code only.
            wanting[normalized(missing[0])] = error
            sources.add(normalized(missing[0]))
    for name in sorted(sources):
        step.say(f"building {name}")
        # In a cache of its own: a package built without its compiled part must not turn up in other projects.
        built_in = {**environment, **_NO_COMPILER, "UV_CACHE_DIR": str(cache_path() / "builds")}
        try:
            await run_uv(command, steps, cwd=lock.folder, stdin=lines[name], environment=built_in)
        except UvFailed as error:
            raise _unbuilt(lock, name, error, wanting.get(name)) from None
        _check_pure(lock, name, folder)
    step.say(f"{len(lock.requirements)} packages")


def _is_source(requirement: Requirement) -> bool:
    if requirement.source == FROM_FILE:
        return requirement.path is not None and requirement.path.suffix != ".whl"
    return requirement.source not in {FROM_INDEX, FROM_INSTALLED} and not requirement.source.endswith(".whl")


def _lines(lock: Lock, scratch: Path) -> dict[str, str]:
    """The requirements by name, with the paths and logins that the lock's text leaves out."""
    lines = {}
    for entry in lock.requirements:
        hashes = "".join(f" --hash={value}" for value in entry.hashes)
        if entry.source == FROM_FILE and entry.path is not None:
            lines[entry.name] = f"{entry.name} @ {entry.path.as_uri()}{hashes}"
        elif entry.source == FROM_INSTALLED:
            check_platform(entry, lock.platform)
            lines[entry.name] = f"{entry.name} @ {pack_installed(entry.name, scratch).as_uri()}"
        elif entry.source == FROM_INDEX:
            lines[entry.name] = entry.line
        else:
            lines[entry.name] = entry.located(lock.access.with_login(entry.source)) + hashes
    return lines


def _unbuilt(lock: Lock, name: str, error: UvFailed, before: UvFailed | None) -> EnvironmentBuildError:
    version = lock.versions[name]
    if before is not None and without_wheel(error) is not None:
        return explained(
            error, lock.platform, f"{name} {version} cannot be installed"
        )  # there is no source either
    if compiles(error):
        why = "there is no wheel for it, and its source code has to be compiled"
        return no_wheel(name, version, lock.platform, why=why)
    return explained(error, lock.platform, f"{name} {version} cannot be built")


def _check_pure(lock: Lock, name: str, folder: Path) -> None:
    for about in _abouts(folder):
        if normalized(about.name.split("-")[0]) != name:
            continue
        lines = (about / "WHEEL").read_text(encoding="utf-8").splitlines()
        tags = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
        if not all(tag.endswith("-none-any") for tag in tags):
            why = f"there is no wheel for it, and what its source code builds here is for {', '.join(tags)}"
            raise no_wheel(name, lock.versions[name], lock.platform, why=why)


def _check(lock: Lock, folder: Path) -> None:
    """Indexes need not say for which Pythons a package is; its metadata does."""
    for about in _abouts(folder):
        for line in (about / "METADATA").read_text(encoding="utf-8", errors="replace").splitlines():
            if not line:
                break  # the description begins
            if line.startswith("Requires-Python:"):
                check_python(
                    line.partition(":")[2].strip(), lock.platform, about.name.removesuffix(".dist-info")
                )


def _abouts(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("*.dist-info"))


def _python() -> str:
    """Builds sources; the same minor version as the worker's."""
    import sys

    return sys.executable
