"""Where the lock comes from: a file of the project, or the running interpreter."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from starburst.environment.installed import installed_lock
from starburst.environment.lock import Lock, normalized
from starburst.environment.lock_files import is_member, pylock, uv_lock
from starburst.environment.needs import with_worker
from starburst.environment.platforms import Platform
from starburst.environment.poetry_files import poetry_lock
from starburst.environment.requirements_files import requirements_lock
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError, OptionError

__all__ = ["find_lock", "lock_file_of", "project_root", "script_folder"]

_LOCK_FILES = ("uv.lock", "pylock.toml", "poetry.lock")
_DEVELOPERS = re.compile(
    r"(?:^|[-_.]|(?<=requirements))(?:dev|devel|development|tests?|testing|docs?|lint|linting|build|ci)(?=$|[-_.])"
)


async def find_lock(
    folder: Path,
    platform: Platform,
    steps: Steps,
    *,
    choice: str | None = None,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    exclude: Collection[str] = (),
    worker: bool = True,
    refresh: bool = False,
) -> Lock:
    """Find the list of packages for a script in ``folder``.

    Args:
        folder: Of the script.
        platform: What workers run on; markers are evaluated for it.
        steps: Gets the step ``lock``.
        choice: None: what the project has, in the order uv.lock, pylock.toml, poetry.lock, requirements*.txt, else
            what the running interpreter has. ``"installed"``: the latter. Else the path of such a file.
        extras: Of the project, for uv.lock, pylock.toml and poetry.lock.
        groups: Dependency groups, likewise; without, those of developers are left out.
        exclude: Names of packages that workers do without.
        worker: Add starburst itself and what it needs.
        refresh: Resolve requirements*.txt anew, though nothing in them has changed.

    Raises:
        OptionError: There is no such file, or several that could be meant.
        EnvironmentBuildError: The file cannot be read, is for another Python, or cannot be resolved.
    """
    root = project_root(folder) or folder
    with steps("lock") as step:
        path = _chosen(folder, choice) if choice not in {None, "installed"} else None
        if choice is None:
            path = lock_file_of(folder)
        if path is None:
            lock = installed_lock(platform, root)
        elif path.name == "uv.lock":
            lock = await uv_lock(path, platform, steps, project=root, extras=extras, groups=groups)
        elif path.name == "poetry.lock":
            lock = poetry_lock(path, platform, extras=extras, groups=groups)
        elif path.suffix == ".toml":
            lock = pylock(path, platform, extras=extras, groups=groups)
        else:
            lock = await requirements_lock(path, platform, steps, worker=worker, refresh=refresh)
        left_out = {normalized(name) for name in exclude}
        kept = tuple(requirement for requirement in lock.requirements if requirement.name not in left_out)
        lock = replace(lock, requirements=kept)
        if worker:
            lock = await with_worker(lock, steps)
        if step.state == "running" and not step.detail:
            step.say(f"{lock.source_name}, {len(lock.requirements)} packages")
    return lock


def project_root(folder: Path) -> Path | None:
    """The nearest folder upwards that has a lock file, a requirements file or pyproject.toml."""
    folder = folder.resolve()
    for parent in (folder, *folder.parents):
        if any((parent / name).is_file() for name in (*_LOCK_FILES, "pyproject.toml")):
            return parent
        if any(parent.glob("requirements*.txt")):
            return parent
    return None


def lock_file_of(folder: Path) -> Path | None:
    """The project's lock file; of several kinds the first of the order, None if there is none.

    A member of a uv workspace without a list of its own has that of the workspace.

    Raises:
        OptionError: There are several requirements files, and none is called requirements.txt.
    """
    root = project_root(folder)
    if root is None:
        return None
    for name in (*_LOCK_FILES, "requirements.txt"):
        if (root / name).is_file():
            return root / name
    others = [path for path in sorted(root.glob("requirements*.txt")) if not _for_developers(path)]
    if len(others) > 1:
        raise OptionError(
            f"{root} has several lists of packages and no lock file: {', '.join(path.name for path in others)}",
            hint=f'say which one: environment="{others[0].name}", or environment="installed"',
        )
    return others[0] if others else _of_workspace(root)


def _of_workspace(root: Path) -> Path | None:
    locks = (parent / "uv.lock" for parent in root.parents)
    return next((path for path in locks if path.is_file() and is_member(path, root)), None)


def script_folder(main: object) -> Path:
    """The folder of the program's script; the present one where there is none, or it is somebody else's program.

    Args:
        main: The module ``__main__``.
    """
    path = getattr(main, "__file__", None)
    if path is None or _is_installed(Path(path)):
        return Path.cwd()
    return Path(path).resolve().parent


def _is_installed(path: Path) -> bool:
    """Whether it is a program such as ``ipython`` or ``pytest``, not the user's script."""
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    return any(path.resolve().is_relative_to(prefix) for prefix in prefixes)


def _for_developers(path: Path) -> bool:
    return _DEVELOPERS.search(path.stem.lower()) is not None


def _chosen(folder: Path, choice: str | None) -> Path:
    path = Path(choice or "").expanduser()
    root = project_root(folder) or folder
    candidates = [path] if path.is_absolute() else [folder / path, root / path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        places = " or ".join(sorted({str(entry.parent) for entry in candidates}))
        raise OptionError(
            f"environment={choice!r}: no such file in {places}",
            hint='name a uv.lock, pylock.toml, poetry.lock or requirements file, or say "installed"',
        )
    known = found.name in _LOCK_FILES or (found.suffix == ".toml" and found.name.startswith("pylock."))
    if not known and found.suffix not in {".txt", ".in"}:
        raise EnvironmentBuildError(
            f"environment={choice!r} is not a kind of lock file that is known",
            hint="it may be uv.lock, pylock.toml (pylock.*.toml), poetry.lock or a requirements file (.txt)",
        )
    return found.resolve()
