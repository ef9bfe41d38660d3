"""Which files of a folder may travel to workers: never secrets, caches or environments, nothing that Git ignores."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starburst.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = ["SECRETS", "GitRules", "ProjectRules", "is_never_file", "is_never_folder", "project_of"]

_NEVER_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_NEVER_FOLDER_ENDS = (".egg-info", ".dist-info")
SECRETS = (
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "credentials",
    "credentials.json",
    "credentials.csv",
    "credentials.ini",
    "credentials.toml",
    "credentials.y*ml",
    "*service-account*.json",
    "*service_account*.json",
    "secrets.json",
    "secrets.toml",
    "secrets.y*ml",
)
"""Names of files that may never leave the machine, beside the hidden ones; as ``.dockerignore`` has them, too."""
_NEVER_FILES = (
    ".*",  # all hidden files: .env, .env.local, .netrc, .pypirc, .git in a worktree, …
    "*.py[co]",
    *SECRETS,
)
_NEVER_FILE = re.compile("|".join(map(fnmatch.translate, _NEVER_FILES)), re.IGNORECASE)


def is_never_file(name: str) -> bool:
    """Whether a file of that name may never leave the machine, or is of no use to a worker."""
    return _NEVER_FILE.match(name) is not None


def is_never_folder(path: str) -> bool:
    """The same for a folder: hidden ones (``.git``, ``.venv``, ``.ssh``, …), environments, caches."""
    name = os.path.basename(path)  # noqa: PTH119 - strings: this is asked for each folder
    return (
        name.startswith(".")
        or name in _NEVER_FOLDERS
        or name.endswith(_NEVER_FOLDER_ENDS)
        or os.path.exists(f"{path}/pyvenv.cfg")  # noqa: PTH110
        or os.path.exists(f"{path}/conda-meta")  # noqa: PTH110
    )


class GitRules:
    """What the ``.gitignore`` files of one folder's checkout say.

    Where there is no checkout, those at and below the folder count. If the folder itself is ignored, as that of a
    scratch script may be, only the files within it count: whoever runs a program there wants its modules.

    Args:
        folder: An absolute path.
    """

    def __init__(self, folder: str) -> None:
        self._specs: dict[str, GitIgnoreSpec | None] = {}
        self.top = next(
            (str(p) for p in (Path(folder), *Path(folder).parents) if (p / ".git").exists()), folder
        )
        above = Path(folder)
        while str(above) != self.top:
            if self.ignores(str(above), folder=True):
                self.top = folder
                break
            above = above.parent

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Whether a path within the folder is ignored; those above it must have been asked for before."""
        above = path
        while above != self.top and len(above) > len(self.top):
            above = os.path.dirname(above)  # noqa: PTH120
            spec = self._specs[above] if above in self._specs else self._read(above)
            if spec is not None:
                said = spec.check_file(path[len(above) :].lstrip("/") + ("/" if folder else "")).include
                if said is not None:
                    return said
        return False

    def _read(self, folder: str) -> GitIgnoreSpec | None:
        try:
            lines = Path(folder, ".gitignore").read_text(errors="replace").splitlines()
            spec = _spec_of(lines)
        except (OSError, ValueError):  # Git, too, passes over what it cannot read
            spec = None
        self._specs[folder] = spec
        return spec


class ProjectRules:
    """``include`` and ``exclude`` of ``[tool.starburst]`` in a project's ``pyproject.toml``.

    ``exclude`` has lines as in ``.gitignore``, ``include`` globs; both are relative to the project's folder. What is
    included travels although Git ignores it or it is in no package; never what may not leave the machine.

    Args:
        project: The project's folder, or None for no rules.

    Raises:
        EnvironmentBuildError: The file cannot be read, or they are not lists of text.
    """

    def __init__(self, project: Path | None) -> None:
        self._project = project
        table = {} if project is None else _starburst_table(project / "pyproject.toml")
        self._exclude = _lines(project, table, "exclude")
        self._include = _lines(project, table, "include")
        self._spec = _spec_of(self._exclude) if self._exclude else None

    def excludes(self, path: str, *, folder: bool) -> bool:
        """Whether ``exclude`` names a path."""
        if self._spec is None:
            return False
        relative = os.path.relpath(path, str(self._project))
        return not relative.startswith("..") and self._spec.match_file(relative + ("/" if folder else ""))

    def included(self) -> list[str]:
        """Files, and folders, that ``include`` names."""
        assert self._project is not None or not self._include
        return sorted({str(p) for glob in self._include for p in (self._project or Path()).glob(glob)})


def project_of(folder: Path) -> Path | None:
    """The nearest folder, from this one upwards, with a ``pyproject.toml``; none above a checkout or a home."""
    for each in (folder, *folder.parents):
        if (each / "pyproject.toml").is_file():
            return each
        if (each / ".git").exists() or each == Path.home():
            break
    return None


def _spec_of(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # not before it is needed: on this machine nothing travels

    return GitIgnoreSpec.from_lines(lines)


def _starburst_table(path: Path) -> dict[str, Any]:
    try:
        found = os.stat(path)  # noqa: PTH116
        return _read_table(str(path), found.st_mtime_ns, found.st_size)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EnvironmentBuildError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=32)
def _read_table(path: str, mtime_ns: int, size_bytes: int) -> dict[str, Any]:  # noqa: ARG001 - they are the version
    import tomllib

    try:
        table = tomllib.loads(Path(path).read_text()).get("tool", {}).get("starburst", {})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EnvironmentBuildError(f"{path} is not valid TOML: {error}") from error
    return table if isinstance(table, dict) else {}


def _lines(project: Path | None, table: dict[str, Any], name: str) -> Sequence[str]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(line, str) and line for line in value):
        raise EnvironmentBuildError(
            f"{name} in [tool.starburst] of {project}/pyproject.toml is {value!r}, not a list of patterns",
            hint=f'{name} = ["folder/*.csv"]',
        )
    if name == "include" and (bad := [line for line in value if line.startswith("/")]):
        raise EnvironmentBuildError(
            f"include in [tool.starburst] of {project}/pyproject.toml names {bad[0]!r}, outside the project",
            hint="name files relative to the folder of pyproject.toml",
        )
    return value
