"""What the worker itself needs, beside the user's packages: starburst as it runs here, and what it imports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement as Needed
from packaging.version import InvalidVersion, Version

from starburst.environment.installed import needed_by
from starburst.environment.lock import Lock, Requirement, marker_environment, normalized
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps
from starburst.environment.uv import UvFailed, run_uv, target_arguments
from starburst.environment.wheels import DISTRIBUTION, as_installed
from starburst.errors import EnvironmentBuildError

__all__ = ["direct_needs", "pins_here", "with_worker"]

_SAME_ON_BOTH_SIDES = "cloudpickle"
"""Functions are pickled by the client's version and loaded by the worker's."""

_ONLY_HERE = {"uv"}


async def with_worker(lock: Lock, steps: Steps) -> Lock:
    """Add the running starburst and the packages that it needs and the lock lacks.

    They come in the versions that run here, or, where those do not go with the lock's, in others that do.

    Raises:
        EnvironmentBuildError: The lock has a version that no starburst of this version works with.
    """
    wanted = {entry.name: entry for entry in lock.requirements if entry.name != DISTRIBUTION}
    here = distribution(_SAME_ON_BOTH_SIDES).version
    locked = wanted.get(_SAME_ON_BOTH_SIDES)
    if locked is None or locked.version != here:
        if locked is not None:
            steps.note(
                f"{locked} of {lock.source_name} becomes {here}: workers need the version that pickles here"
            )
        wanted[_SAME_ON_BOTH_SIDES] = Requirement(_SAME_ON_BOTH_SIDES, here)

    conflict = next(_conflicts(lock.platform, wanted), None)
    if conflict is None or lock.source_name == "installed":  # the latter works here as it is
        added = {name: Requirement(name, version) for name, version in pins_here(lock.platform).items()}
    else:
        steps.note(conflict)
        added = await _resolved(lock, wanted, conflict, steps)
    wanted = {**added, **wanted, DISTRIBUTION: as_installed(DISTRIBUTION)}
    return replace(lock, requirements=tuple(wanted[name] for name in sorted(wanted)))


def direct_needs(platform: Platform) -> list[str]:
    """What starburst asks for, as lines of a requirements file; cloudpickle in the version that is here."""
    dist = distribution(DISTRIBUTION)
    needs = [
        f"{need.name}{need.specifier}"
        for need in needed_by(dist, _extras(), marker_environment(platform))
        if normalized(need.name) not in _ONLY_HERE
    ]
    return [*needs, f"{_SAME_ON_BOTH_SIDES}=={distribution(_SAME_ON_BOTH_SIDES).version}"]


def pins_here(platform: Platform) -> dict[str, str]:
    """All that starburst needs, in the versions that run here."""
    names = {normalized(need.name) for need, _ in _closure(platform)}
    return {name: distribution(name).version for name in sorted(names)}


def _conflicts(platform: Platform, wanted: dict[str, Requirement]) -> Iterator[str]:
    for need, asked_by in _closure(platform):
        locked = wanted.get(normalized(need.name))
        if locked is not None and not _fits(need, locked.version):
            yield f"it has {locked}, but {asked_by}, which every worker runs, needs {need.name}{need.specifier}"


async def _resolved(
    lock: Lock, wanted: dict[str, Requirement], conflict: str, steps: Steps
) -> dict[str, Requirement]:
    """Other versions of what starburst needs, which go with the lock's."""
    with tempfile.TemporaryDirectory(prefix="starburst-") as scratch:
        pins = Path(scratch) / "lock.txt"
        pins.write_text(
            "".join(f"{entry.name}=={entry.version}\n" for entry in wanted.values() if entry.version)
        )
        try:
            text = await run_uv(
                [
                    *("pip", "compile", "-", "--constraints", str(pins), "--no-header", "--no-annotate"),
                    *target_arguments(lock.platform),
                    *lock.access.arguments(lock.folder),
                ],
                steps,
                cwd=lock.folder,
                stdin="\n".join(direct_needs(lock.platform)),
                environment=lock.access.environment(lock.folder),
            )
        except UvFailed:
            raise EnvironmentBuildError(
                f"{lock.source_name} does not go with starburst: {conflict}",
                hint="add starburst-cloud[aws] to the project's dependencies and lock it again",
            ) from None
    needs = (Needed(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return {
        normalized(need.name): Requirement(normalized(need.name), next(iter(need.specifier)).version)
        for need in needs
    }


def _closure(platform: Platform) -> Iterator[tuple[Needed, str]]:
    """All that starburst needs, with what needs it."""
    environment = marker_environment(platform)
    todo, seen = [(DISTRIBUTION, frozenset(_extras()))], set()
    while todo:
        entry = todo.pop()
        if entry in seen:
            continue
        seen.add(entry)
        dist = distribution(entry[0])
        for need in needed_by(dist, set(entry[1]), environment):
            name = normalized(need.name)
            if name in _ONLY_HERE or not _installed(name):  # not here: what starburst does here works without
                continue
            yield need, f"{dist.name} {dist.version}"
            todo.append((name, frozenset({"", *need.extras})))


def _extras() -> set[str]:
    """Without boto3 here nothing runs in the cloud, and workers elsewhere do without."""
    return {"", "aws"} if _installed("boto3") else {""}


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _fits(need: Needed, version: str) -> bool:
    try:
        return not version or need.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True  # the index will tell
