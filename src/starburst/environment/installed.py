"""The packages of the running interpreter, from their metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Needed

from starburst.environment.access import Access, logins_in, without_login
from starburst.environment.lock import Lock, Requirement, normalized
from starburst.environment.platforms import Platform
from starburst.environment.wheels import DISTRIBUTION, as_installed

__all__ = ["installed_lock", "needs_of"]

_ONLY_HERE = "uv"
"""Builds environments; workers do not, and it is large."""


def installed_lock(platform: Platform, folder: Path) -> Lock:
    """Everything that the running interpreter finds, in the versions that it has; but starburst itself."""
    found: dict[str, Distribution] = {}
    for dist in distributions():  # the first on the path is the one that is imported
        if dist.metadata["Name"]:
            found.setdefault(normalized(dist.metadata["Name"]), dist)
    found.pop(DISTRIBUTION, None)
    if not any(name == _ONLY_HERE for dist in found.values() for name in needs_of(dist)):
        found.pop(_ONLY_HERE, None)

    requirements, editables, logins = [], [], {}
    for name, dist in found.items():
        origin = _origin(dist)
        local = _worked_on(dist, origin)
        if local is not None:
            editables.append(local)
        else:
            requirements.append(_requirement(name, dist, origin))
            logins.update(logins_in(origin.get("url", "")))
    return Lock.of(
        platform,
        requirements,
        source_name="installed",
        folder=folder,
        editables=editables,
        access=Access(logins=logins),
    )


def needs_of(dist: Distribution, extra: str = "", environment: dict[str, str] | None = None) -> Iterator[str]:
    """Names of the packages that a package needs."""
    for need in needed_by(dist, {extra}, environment):
        yield normalized(need.name)


def needed_by(
    dist: Distribution, extras: set[str], environment: dict[str, str] | None = None
) -> Iterator[Needed]:
    """What a package asks for with these extras, on the platform whose markers these are."""
    values: dict[str, Any] = dict(environment or default_environment())
    for text in dist.requires or ():
        try:
            need = Needed(text)
        except InvalidRequirement:
            continue  # of packages from before the rules; pip has passed over it too
        if need.marker is None or any(
            need.marker.evaluate({**values, "extra": extra}) for extra in extras or {""}
        ):
            yield need


def _origin(dist: Distribution) -> dict[str, Any]:
    """Where it was installed from, if not from an index (PEP 610)."""
    if (dist.read_text("INSTALLER") or "").strip() == "conda":
        return {}  # names folders of the machine that built the package for conda
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _worked_on(dist: Distribution, origin: dict[str, Any]) -> Path | None:
    """The folder of an editable installation."""
    if origin.get("dir_info", {}).get("editable"):
        return _local_path(origin["url"])
    # `setup.py develop` of old: the metadata lies beside the sources.
    about = Path(str(dist.locate_file("")))
    egg = getattr(dist, "_path", None)
    if isinstance(egg, Path) and egg.suffix == ".egg-info" and egg.is_dir():
        for folder in (about, *about.parents[:1]):
            if (folder / "setup.py").is_file() or (folder / "pyproject.toml").is_file():
                return folder.resolve()
    return None


def _requirement(name: str, dist: Distribution, origin: dict[str, Any]) -> Requirement:
    url = without_login(str(origin.get("url", "")))
    subdirectory = str(origin.get("subdirectory", ""))
    if vcs := origin.get("vcs_info"):
        source = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        return Requirement(name, dist.version, source, subdirectory=subdirectory)
    if url.startswith("file:"):
        return as_installed(name) if dist.files else Requirement(name, dist.version)
    if url:
        return Requirement(name, dist.version, url, _archive_hashes(origin), subdirectory=subdirectory)
    return Requirement(name, dist.version)


def _archive_hashes(origin: dict[str, Any]) -> tuple[str, ...]:
    info = origin.get("archive_info", {})
    hashes = info.get("hashes") or dict([info["hash"].split("=", 1)] if "=" in info.get("hash", "") else [])
    return tuple(f"{kind}:{value}" for kind, value in sorted(hashes.items()) if kind == "sha256")


def _local_path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path)).resolve()
