"""pylock.toml (PEP 751), and uv.lock, which uv writes as one."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from starburst.environment.access import Access, logins_in, without_login
from starburst.environment.lock import (
    FROM_FILE,
    FROM_INDEX,
    Lock,
    Requirement,
    full_python,
    marker_environment,
    normalized,
)
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps
from starburst.environment.uv import UvFailed, run_uv
from starburst.errors import EnvironmentBuildError

__all__ = ["check_python", "file_requirement", "is_member", "pylock", "read_toml", "uv_lock"]


def is_member(path: Path, folder: Path) -> bool:
    """Whether the project in ``folder`` is a member of the workspace that a uv.lock is for."""
    return _member_name(read_toml(path), path.parent, folder) is not None


async def uv_lock(
    path: Path,
    platform: Platform,
    steps: Steps,
    *,
    project: Path,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Lock:
    """The packages of a uv.lock, without groups of developers unless they are asked for.

    Args:
        path: The file.
        platform: What workers run on.
        steps: Gets what uv says.
        project: The folder of the project whose packages these are: a member of the file's workspace, or that beside
            the file.
        extras: Of the project.
        groups: Dependency groups.

    Raises:
        EnvironmentBuildError: uv cannot read it, or it is for another Python.
    """
    content = read_toml(path)
    check_python(str(content.get("requires-python", "")), platform, path.name)
    package = _member_name(content, path.parent, project)
    arguments = ["export", "--frozen", "--no-default-groups", "--format", "pylock.toml", "--no-header"]
    arguments += ["--package", package] if package else []
    arguments += [part for extra in extras for part in ("--extra", extra)]
    arguments += [part for group in groups for part in ("--group", group)]
    try:
        text = await run_uv(arguments, steps, cwd=path.parent)
    except UvFailed as error:
        raise EnvironmentBuildError(
            f"uv cannot read {path}: {_reason(error)}",
            hint="uv lock, in the project's folder, writes it anew",
        ) from None
    # Extras and groups have been chosen; what is left are markers of platforms.
    return _locked(tomllib.loads(text), path, platform, extras=(), groups=())


def _member_name(content: Mapping[str, Any], top: Path, folder: Path) -> str | None:
    if not folder.is_relative_to(top) or folder == top:
        return None
    place = folder.relative_to(top).as_posix()
    for package in content.get("package", []):
        source = package.get("source", {})
        if place in (source.get("editable"), source.get("virtual"), source.get("directory")):
            return str(package["name"])
    return None


def pylock(path: Path, platform: Platform, *, extras: Sequence[str] = (), groups: Sequence[str] = ()) -> Lock:
    """The packages of a pylock.toml.

    Raises:
        EnvironmentBuildError: It cannot be read, or is for another Python.
    """
    content = read_toml(path)
    version = str(content.get("lock-version", ""))
    if version.split(".", maxsplit=1)[0] != "1":
        raise EnvironmentBuildError(
            f"{path} has lock-version {version or '(none)'}: version 1 is known here",
            hint="lock again with a tool that writes version 1.0, such as: uv export --format pylock.toml",
        )
    chosen = list(groups) or list(content.get("default-groups", []))
    return _locked(content, path, platform, extras=extras, groups=chosen)


def read_toml(path: Path) -> dict[str, Any]:
    """A lock file's content.

    Raises:
        EnvironmentBuildError: It cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvironmentBuildError(
            f"{path} cannot be read: {error}",
            hint="lock the project again, or take another list: environment=",
        ) from None


def check_python(required: str, platform: Platform, what: str) -> None:
    """Refuse a lock that was made for other Pythons than the worker's.

    Raises:
        EnvironmentBuildError: It was.
    """
    try:
        fits = not required or SpecifierSet(required).contains(full_python(platform), prereleases=True)
    except InvalidSpecifier:
        return
    if not fits:
        raise EnvironmentBuildError(
            f"{what} is for Python {required}, workers run Python {platform.python}, as you do here",
            hint=f"lock the project for Python {platform.python}, or run your script with a Python that fits",
        )


def file_requirement(path: Path, name: str, version: str, hashes: tuple[str, ...]) -> Requirement:
    """A wheel or source archive of this machine, known by its hash.

    Raises:
        EnvironmentBuildError: It is not there.
    """
    if not path.is_file():
        raise EnvironmentBuildError(
            f"the archive of {name} is not there: {path}", hint="put it back, or lock the project again"
        )
    if not version:
        parse = parse_wheel_filename if path.suffix == ".whl" else parse_sdist_filename
        version = str(parse(path.name)[1])
    if not hashes:
        import hashlib

        with path.open("rb") as file:
            hashes = (f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}",)
    return Requirement(name, version, FROM_FILE, hashes, path)


def _locked(
    content: Mapping[str, Any],
    path: Path,
    platform: Platform,
    *,
    extras: Sequence[str],
    groups: Sequence[str],
) -> Lock:
    check_python(str(content.get("requires-python", "")), platform, path.name)
    requirements: list[Requirement] = []
    editables: list[Path] = []
    indexes: Counter[str] = Counter()
    logins: dict[str, str] = {}
    for package in content.get("packages", []):
        name = normalized(str(package.get("name", "")))
        if not _applies(package, name, path, platform, extras=extras, groups=groups):
            continue
        check_python(str(package.get("requires-python", "")), platform, f"{name} in {path.name}")
        if folder := package.get("directory"):
            editables.append((path.parent / folder["path"]).resolve())
            continue
        logins.update(_logins(package))
        requirement = _requirement(package, name, path)
        requirements.append(requirement)
        index = str(package.get("index", ""))
        if requirement.source == FROM_INDEX and index:
            indexes[index] += 1
    further = _beside_the_usual(indexes, path)
    pages = tuple(index for index in further if not index.startswith("file:"))
    folders = tuple(unquote(urlsplit(index).path) for index in further if index.startswith("file:"))
    return Lock.of(
        platform,
        requirements,
        source_name=path.name,
        folder=path.parent,
        editables=editables,
        access=Access(indexes=pages, find_links=folders, logins=logins),
    )


def _beside_the_usual(indexes: Counter[str], path: Path) -> list[str]:
    """Indexes that have to be asked beside the one that uv or pip are set to here, which may be a mirror of the lock's.

    The lock's usual one is that of most packages, unless the project uses it for chosen packages only.
    """
    project = path.parent / "pyproject.toml"
    settings = read_toml(project).get("tool", {}).get("uv", {}).get("index", []) if project.is_file() else []
    explicit = {str(entry.get("url", "")) for entry in settings if entry.get("explicit")}
    counts = Counter(
        {index: count for index, count in indexes.items() if without_login(index) not in explicit}
    )
    usual = {index for index, count in counts.items() if count == max(counts.values()) and "://" in index}
    dropped = usual if len(usual) == 1 and not next(iter(usual)).startswith("file:") else set()
    return [index for index in indexes if index not in dropped]


def _applies(
    package: Mapping[str, Any],
    name: str,
    path: Path,
    platform: Platform,
    *,
    extras: Sequence[str],
    groups: Sequence[str],
) -> bool:
    marker = package.get("marker")
    if not marker:
        return True
    values: dict[str, Any] = {
        **marker_environment(platform),
        "extras": frozenset(extras),
        "dependency_groups": frozenset(groups),
    }
    try:
        return Marker(str(marker)).evaluate(values, context="lock_file")
    except InvalidMarker as error:
        raise EnvironmentBuildError(
            f"{path}: the marker of {name} cannot be read: {error}", hint="lock the project again"
        ) from None


def _requirement(package: Mapping[str, Any], name: str, path: Path) -> Requirement:
    version = str(package.get("version", ""))
    if vcs := package.get("vcs"):
        url = without_login(
            str(vcs.get("url") or (path.parent / str(vcs.get("path", ""))).resolve().as_uri())
        )
        source = f"{vcs['type']}+{url}@{vcs['commit-id']}"
        return Requirement(name, version, source, subdirectory=str(vcs.get("subdirectory", "")))
    if archive := package.get("archive"):
        hashes = tuple(_hashes([archive]))
        if "path" in archive:
            return file_requirement((path.parent / archive["path"]).resolve(), name, version, hashes)
        url = without_login(str(archive["url"]))
        return Requirement(name, version, url, hashes, subdirectory=str(archive.get("subdirectory", "")))
    archives = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    if not version or not archives:
        raise EnvironmentBuildError(
            f"{path}: {name or 'a package'} has neither version and archives nor an address",
            hint="lock the project again",
        )
    if not package.get("index") and all("path" in archive for archive in archives) and len(archives) == 1:
        return file_requirement(
            (path.parent / archives[0]["path"]).resolve(), name, version, tuple(_hashes(archives))
        )
    return Requirement(name, version, FROM_INDEX, tuple(_hashes(archives)))


def _hashes(archives: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for archive in archives:
        digest = archive.get("hashes", {}).get("sha256")
        if digest:
            yield f"sha256:{digest}"


def _logins(package: Mapping[str, Any]) -> dict[str, str]:
    archives = [
        package.get("vcs", {}),
        package.get("archive", {}),
        package.get("sdist", {}),
        *package.get("wheels", []),
    ]
    return logins_in(" ".join(str(archive.get("url", "")) for archive in archives))


def _reason(error: UvFailed) -> str:
    return error.output.removeprefix("error: ").split(" hint: ")[0]
