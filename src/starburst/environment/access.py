"""How to get at packages: indexes and logins of requirements files, of uv and of pip. Nothing here is ever stored."""

from __future__ import annotations

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Access", "filled", "logins_in", "without_login"]

# Up to the last "@" before the path: uv and pip take passwords with "@" in them, too.
_LOGIN = re.compile(r"(?<=://)[^/\s'\"#?]+@")
_LOGIN_OF = re.compile(r"\w://([^/\s'\"#?]+)@([^/@\s'\"#?]+)((?:/[^/@\s'\"#?]+)*)")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")

_UV_VARIABLES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_UV_SETTINGS = {"index", "index-url", "extra-index-url", "find-links", "no-index"}


@dataclass(frozen=True, slots=True)
class Access:
    """Indexes and logins, in memory only: ``repr`` shows none of them.

    Attributes:
        default_index: Instead of the usual index.
        indexes: Further indexes.
        find_links: Folders or pages with archives.
        no_index: Look only there.
        logins: ``user:password`` by host, and by host and path, for addresses that have been stored without.
    """

    default_index: str = field(default="", repr=False)
    indexes: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    no_index: bool = False
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)

    def with_login(self, url: str) -> str:
        """The address as it can be fetched."""
        host = urlsplit(url).netloc
        # One server may want another token for each repository.
        login = self.logins.get(_place(host, urlsplit(url).path)) or self.logins.get(host)
        return url.replace(f"://{host}", f"://{login}@{host}", 1) if login else url

    def arguments(self, folder: Path) -> list[str]:
        """For uv, beside the variables: what it has no variable for."""
        return ["--no-index"] if self._completed(folder).no_index else []

    def _completed(self, folder: Path) -> Access:
        return self if uv_has_settings(folder) else _joined(self, pip_settings())

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables for uv: these indexes; pip's where uv has no settings of its own in this folder."""
        base = self._completed(folder)
        variables = {
            "UV_DEFAULT_INDEX": base.default_index,
            "UV_INDEX": " ".join(base.indexes),
            "UV_FIND_LINKS": ",".join(base.find_links),
        }
        found = {name: value for name, value in variables.items() if value}
        for name in ("UV_INDEX", "UV_FIND_LINKS"):
            if name in found and os.environ.get(name):
                found[name] += ("," if name == "UV_FIND_LINKS" else " ") + os.environ[name]
        if base.indexes and "UV_INDEX_STRATEGY" not in os.environ:
            # As pip does: whichever index has the version. uv's default looks at the first that knows the name.
            found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        return found


def without_login(text: str) -> str:
    """Addresses without ``user:password@``; ``git+ssh://git@host`` keeps its user, which is no secret."""
    return _LOGIN.sub(lambda found: found[0] if found[0] == "git@" else "", text)


def filled(text: str) -> str:
    """A text with its ``${VARIABLES}`` filled in, as uv and pip do it."""
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), text)


def logins_in(text: str) -> dict[str, str]:
    """``user:password`` by host, and by host and path, of all addresses in a text; ``${VARIABLES}`` are filled in."""
    found = [match for match in _LOGIN_OF.findall(filled(text)) if match[0] != "git"]
    by_host = {host: login for login, host, _ in found}
    return by_host | {_place(host, path): login for login, host, path in found if path}


def _place(host: str, path: str) -> str:
    """A repository or archive, whichever version of it: ``host/group/project.git``."""
    return host + path.partition("@")[0].rstrip("/")


def uv_has_settings(folder: Path) -> bool:
    """Whether uv has been told of indexes: by variables, its own files or the project's."""
    if any(os.environ.get(name) for name in _UV_VARIABLES):
        return True
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    system = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    files = [home / "uv" / "uv.toml", *(Path(part) / "uv" / "uv.toml" for part in system.split(":"))]
    files += [Path("/etc/uv/uv.toml"), *(parent / "uv.toml" for parent in (folder, *folder.parents))]
    if "UV_CONFIG_FILE" in os.environ:
        files = [Path(os.environ["UV_CONFIG_FILE"])]
    if any(_has_index(_toml(path)) for path in files):
        return True
    projects = (parent / "pyproject.toml" for parent in (folder, *folder.parents))
    project = next((path for path in projects if path.is_file()), None)
    return project is not None and _has_index(_toml(project).get("tool", {}).get("uv", {}))


def pip_settings() -> Access:
    """The indexes of pip's variables and configuration files."""
    values = _pip_values(os.environ)
    return Access(
        default_index=values.get("index-url", ""),
        indexes=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        no_index=values.get("no-index", "").lower() in {"1", "true", "yes", "on"},
    )


def pip_constraints(folder: Path) -> str:
    """Files of versions that pip keeps to; none where uv has its own settings."""
    return "" if uv_has_settings(folder) else _pip_values(os.environ).get("constraint", "")


def _pip_values(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip is set to; later files stand above earlier ones, variables above all."""
    values: dict[str, str] = {}
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself complains of it
        for section in ("global", "install"):
            if parser.has_section(section):
                values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            values[name[4:].lower().replace("_", "-")] = value
    return values


def _pip_files(environ: Mapping[str, str]) -> Iterable[Path]:
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return []
    system = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    home = Path.home()
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path(part) / "pip" / "pip.conf" for part in reversed(system.split(":"))]
    files += [
        Path("/etc/pip.conf"),
        Path("/Library/Application Support/pip/pip.conf"),
        home / ".pip" / "pip.conf",
    ]
    files += [home / "Library/Application Support/pip/pip.conf", own / "pip" / "pip.conf"]
    files += [Path(sys.prefix) / "pip.conf", *([Path(chosen)] if chosen else [])]
    return files


def _joined(first: Access, second: Access) -> Access:
    return Access(
        default_index=first.default_index or second.default_index,
        indexes=tuple(dict.fromkeys(first.indexes + second.indexes)),
        find_links=tuple(dict.fromkeys(first.find_links + second.find_links)),
        no_index=first.no_index or second.no_index,
        logins=first.logins,
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _has_index(settings: Mapping[str, Any]) -> bool:
    pip = settings.get("pip", {})
    return not _UV_SETTINGS.isdisjoint(settings) or (
        isinstance(pip, dict) and not _UV_SETTINGS.isdisjoint(pip)
    )
