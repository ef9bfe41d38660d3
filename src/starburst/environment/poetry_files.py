"""poetry.lock, with the pyproject.toml beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker

from starburst.environment.access import Access, logins_in, without_login
from starburst.environment.lock import FROM_INDEX, Lock, Requirement, marker_environment, normalized
from starburst.environment.lock_files import check_python, file_requirement, read_toml
from starburst.environment.platforms import Platform
from starburst.errors import EnvironmentBuildError

__all__ = ["poetry_lock"]

_MAIN = "main"


def poetry_lock(
    path: Path, platform: Platform, *, extras: Sequence[str] = (), groups: Sequence[str] = ()
) -> Lock:
    """The packages of a poetry.lock: those of the group ``main`` and of the groups that are asked for.

    Raises:
        EnvironmentBuildError: It cannot be read, is for another Python, or is older than Poetry 1.2.
    """
    content = read_toml(path)
    version = str(content.get("metadata", {}).get("lock-version", "1.0"))
    check_python(
        str(content.get("metadata", {}).get("python-versions", "")).replace("*", ""), platform, path.name
    )
    if version.split(".", maxsplit=1)[0] != "2":
        raise EnvironmentBuildError(
            f"{path} has lock-version {version}: version 2 is known here, which Poetry 1.3 and later write",
            hint="poetry lock, with a newer Poetry",
        )
    reader = _Reader(content, path, platform, {_MAIN, *groups}, extras)
    requirements: list[Requirement] = []
    editables: list[Path] = []
    indexes: dict[str, None] = {}
    logins: dict[str, str] = {}
    for package in reader.packages():
        source = package.get("source", {})
        logins.update(logins_in(str(source.get("url", ""))))
        if source.get("type") == "directory":
            editables.append((path.parent / source["url"]).resolve())
            continue
        requirement = _requirement(package, path)
        requirements.append(requirement)
        if source.get("type") == "legacy":
            indexes[source["url"]] = None
    project = reader.project.get("tool", {}).get("poetry", {})
    if reader.project and project.get("package-mode", True):
        editables.append(path.parent)
    return Lock.of(
        platform,
        requirements,
        source_name=path.name,
        folder=path.parent,
        editables=editables,
        access=Access(indexes=tuple(indexes), logins=logins),
    )


class _Reader:
    """Which packages of the file a worker gets."""

    def __init__(
        self,
        content: Mapping[str, Any],
        path: Path,
        platform: Platform,
        groups: set[str],
        extras: Sequence[str],
    ) -> None:
        self._packages = content.get("package", [])
        self._path = path
        self._platform = platform
        self._groups = groups
        self._values = marker_environment(platform)
        self._extras = {normalized(extra) for extra in extras}
        by_extra = {normalized(name): members for name, members in content.get("extras", {}).items()}
        self._wanted = {
            normalized(member.split(" ")[0]) for extra in self._extras for member in by_extra.get(extra, [])
        }
        self.project = (
            read_toml(path.parent / "pyproject.toml") if (path.parent / "pyproject.toml").is_file() else {}
        )

    def packages(self) -> Iterable[Mapping[str, Any]]:
        """Those of the chosen groups for this platform."""
        if any("groups" in package for package in self._packages):
            return [package for package in self._packages if self._applies(package)]
        return self._followed()  # Poetry 1 does not say to which group a package belongs

    def _applies(self, package: Mapping[str, Any]) -> bool:
        groups = self._groups.intersection(package["groups"])
        if not groups:
            return False
        if package.get("optional") and groups == {_MAIN} and not self._optional(package):
            return False
        markers = package.get("markers", "")
        if isinstance(markers, str):
            return self._holds(markers)
        return any(self._holds(markers.get(group, "")) for group in groups)

    def _optional(self, package: Mapping[str, Any]) -> bool:
        """An optional package: its marker asks for an extra, or the list of extras names it."""
        markers = package.get("markers", "")
        text = markers if isinstance(markers, str) else " ".join(markers.values())
        return "extra" in text or normalized(package["name"]) in self._wanted

    def _followed(self) -> Iterable[Mapping[str, Any]]:
        by_name: dict[str, list[Mapping[str, Any]]] = {}
        for package in self._packages:
            by_name.setdefault(normalized(package["name"]), []).append(package)
        todo = list(self._roots())
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        while todo:
            name, extras = todo.pop()
            for package in by_name.get(name, []):
                key = (name, package["version"])
                known = set(found[key]["_extras"]) if key in found else None
                if not self._python_fits(package) or (known is not None and extras <= known):
                    continue
                extras = extras | (known or set())
                found[key] = {**package, "_extras": extras}
                todo += self._next(package, extras)
        return found.values()

    def _roots(self) -> Iterable[tuple[str, set[str]]]:
        poetry = self.project.get("tool", {}).get("poetry", {})
        tables = [poetry.get("dependencies", {})]
        tables += [poetry.get("group", {}).get(group, {}).get("dependencies", {}) for group in self._groups]
        if not self.project:
            raise EnvironmentBuildError(
                f"{self._path} was written by Poetry 1, which needs the pyproject.toml beside it to be understood",
                hint="poetry lock, with Poetry 2, or put the pyproject.toml beside it",
            )
        for table in tables:
            for name, constraint in table.items():
                if name != "python":
                    yield from self._edge(name, constraint)

    def _next(self, package: Mapping[str, Any], extras: set[str]) -> Iterable[tuple[str, set[str]]]:
        chosen = {
            normalized(member.split(" ")[0])
            for extra, members in package.get("extras", {}).items()
            if normalized(extra) in extras
            for member in members
        }
        for name, constraint in package.get("dependencies", {}).items():
            yield from self._edge(name, constraint, chosen)

    def _edge(
        self, name: str, constraint: Any, chosen: set[str] | None = None
    ) -> Iterable[tuple[str, set[str]]]:
        wanted = self._wanted if chosen is None else chosen
        for entry in constraint if isinstance(constraint, list) else [constraint]:
            table = entry if isinstance(entry, dict) else {}
            if table.get("optional") and normalized(name) not in wanted:
                continue
            if self._holds(str(table.get("markers", ""))):
                yield normalized(name), {normalized(extra) for extra in table.get("extras", [])}

    def _python_fits(self, package: Mapping[str, Any]) -> bool:
        try:
            check_python(
                str(package.get("python-versions", "")).replace("*", ""), self._platform, package["name"]
            )
        except EnvironmentBuildError:
            return False  # the file has another version of it for this Python
        return True

    def _holds(self, text: str) -> bool:
        if not text:
            return True
        try:
            marker = Marker(text)
        except InvalidMarker as error:
            raise EnvironmentBuildError(
                f"{self._path}: a marker cannot be read: {error}", hint="poetry lock, to write it anew"
            ) from None
        return any(marker.evaluate({**self._values, "extra": extra}) for extra in self._extras or {""})


def _requirement(package: Mapping[str, Any], path: Path) -> Requirement:
    name, version, source = normalized(package["name"]), str(package["version"]), package.get("source", {})
    hashes = tuple(entry["hash"] for entry in package.get("files", []) if entry["hash"].startswith("sha256:"))
    kind, url = source.get("type", ""), without_login(str(source.get("url", "")))
    subdirectory = str(source.get("subdirectory", ""))
    if kind == "git":
        return Requirement(
            name, version, f"git+{url}@{source['resolved_reference']}", subdirectory=subdirectory
        )
    if kind == "url":
        return Requirement(name, version, url, hashes, subdirectory=subdirectory)
    if kind == "file":
        return file_requirement((path.parent / url).resolve(), name, version, hashes)
    return Requirement(name, version, FROM_INDEX, hashes)
