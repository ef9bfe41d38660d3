"""The packages of a lock in a folder of this machine, and a Python that has nothing but its standard library.

    <cache>/environments/<hash of the lock>/     the packages
    <cache>/interpreters/<hash of the Python>/   a virtual environment without packages

Both are made aside and then renamed, so that what is there is whole. Two that make the same one at once do not disturb
each other: one of them stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from starburst.environment.build import install
from starburst.environment.caches import cache_path
from starburst.environment.layers import writing
from starburst.environment.lock import Lock
from starburst.environment.steps import Steps

__all__ = ["bare_python", "unpacked_packages"]


async def unpacked_packages(lock: Lock, steps: Steps) -> Path:
    """The folder with the packages of a lock: it is there, or is made.

    Raises:
        EnvironmentBuildError: They cannot be had for this machine, or there is no room.
    """
    place = cache_path() / "environments" / lock.sha256
    if place.is_dir():
        with steps("install") as step:
            step.cached(str(place))
        return place
    await _made(place, lambda folder: install(lock, folder, steps))
    return place


async def bare_python() -> Path:
    """A program that runs the Python of this process without anything that is installed for it.

    It is one of its own, not this one with options: programs that tasks start by ``sys.executable`` find the same.

    Raises:
        EnvironmentBuildError: There is no room.
    """
    place = cache_path() / "interpreters" / _name_of_python()
    if not place.is_dir():
        await _made(place, lambda folder: asyncio.to_thread(_make_python, folder))
    return place / "bin" / "python"


def _name_of_python() -> str:
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return hashlib.sha256(f"{base}\n{sys.version}".encode()).hexdigest()[:32]


def _make_python(folder: Path) -> None:
    import venv

    venv.create(folder, symlinks=True, with_pip=False)


async def _made(place: Path, make: Callable[[Path], Awaitable[None]]) -> None:
    cache = cache_path()
    with writing(cache):
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="build-", dir=cache)
    with scratch as name:
        folder = Path(name) / "made"
        folder.mkdir()
        await make(folder)
        with writing(cache):
            _settle(folder, place)


def _settle(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():  # else somebody else was first
            raise
