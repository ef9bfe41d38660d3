"""Where a program's own modules are found: folders of the module path that hold no installed packages."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from starburst.container import LOCK_VARIABLE
from starburst.environment.code_rules import project_of

__all__ = ["Root", "find_roots", "loaded_modules"]

_INSTALLED = ("site-packages", "dist-packages")
_OURS = "starburst"


@dataclass(frozen=True, slots=True)
class Root:
    """A folder from which modules are imported.

    Attributes:
        path: Its absolute path.
        only: Names of the modules and packages that are imported from it; None for all.
        namespaces: Folders without ``__init__.py`` are packages, too, as in the ``src`` folder of a project.
    """

    path: str
    only: frozenset[str] | None = None
    namespaces: bool = False


def find_roots(
    *,
    path: Sequence[str] | None = None,
    modules: Mapping[str, ModuleType] | None = None,
    editable: Iterable[Path] = (),
) -> list[Root]:
    """The folders of a program's own code, in the order in which it looks into them.

    Those are the folders of the module path that are neither the standard library's nor those of installed packages
    (so the script's folder, or the current one of a notebook), the ``src`` folder of the project around the first
    of them, projects that are installed to be edited, and the folders of whatever else the program has imported.

    Args:
        path: The module path; None for this program's.
        modules: What is imported; None for this program's.
        editable: Folders of projects that are installed to be edited.
    """
    loaded = dict(sys.modules) if modules is None else modules
    roots: dict[str, Root] = {}

    def add(root: Root) -> None:
        known = roots.setdefault(root.path, root)
        if known.only is not None and known is not root:
            only = None if root.only is None else known.only | root.only
            roots[root.path] = Root(root.path, only, known.namespaces or root.namespaces)

    for entry in sys.path if path is None else path:
        folder = os.path.abspath(entry)  # noqa: PTH100 - "" is the current folder
        if os.path.isdir(folder) and not is_installed(folder):  # noqa: PTH112
            add(Root(folder, namespaces=os.path.basename(folder) == "src"))  # noqa: PTH119
    first = next(iter(roots), None)
    project = None if first is None else project_of(Path(first))
    if project is not None and (project / "src").is_dir():
        add(Root(str(project / "src"), namespaces=True))
    for each in editable:
        source = each.absolute() / "src"
        add(Root(str(source), namespaces=True) if source.is_dir() else Root(str(each.absolute())))
    for name, file in _redirected(loaded):
        add(Root(os.path.dirname(file), frozenset({name})))  # noqa: PTH120
    for name, file in loaded_modules(loaded).items():
        if "." not in name and not any(_holds(root, name, file) for root in roots.values()):
            above = _folder_above(file)
            if not is_installed(above):
                add(Root(above, frozenset({name})))
    return list(roots.values())


def loaded_modules(modules: Mapping[str, ModuleType] | None = None) -> dict[str, str]:
    """Imported modules that are neither installed nor the standard library's nor ours, with their files."""
    found: dict[str, str] = {}
    for name, module in list((sys.modules if modules is None else modules).items()):
        known = getattr(module, "__dict__", {})  # a lazy module must not be made to load by this
        file = known.get("__file__")
        if (
            isinstance(file, str)
            and _is_own(file)
            and name not in ("__main__", "__mp_main__")
            and name.partition(".")[0] != _OURS
            and known.get("__name__") == name
        ):
            found[name] = file
    return found


@lru_cache(maxsize=100_000)
def _is_own(file: str) -> bool:
    return os.path.isabs(file) and not is_installed(os.path.dirname(file))  # noqa: PTH117, PTH120


@lru_cache(maxsize=4096)
def is_installed(folder: str) -> bool:
    """Whether a folder holds installed packages, the standard library or an environment's programs."""
    if not _INSTALLED_PARTS.isdisjoint(folder.split("/")):
        return True
    return any(folder == top or folder.startswith(top + os.sep) for top in _system_folders())


_INSTALLED_PARTS = frozenset(_INSTALLED)


@lru_cache(maxsize=1)
def _system_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    found = {sysconfig.get_path(name) for name in names}
    if os.environ.get(LOCK_VARIABLE):  # a worker finds its packages by this variable
        found |= {entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    found |= {os.path.realpath(folder) for folder in found}
    return tuple(sorted(found))


def _redirected(modules: Mapping[str, ModuleType]) -> list[tuple[str, str]]:
    """Packages that setuptools has installed to be edited by a finder of its own, not by the module path."""
    found = []
    for name, module in modules.items():
        mapping = getattr(module, "MAPPING", None) if name.startswith("__editable___") else None
        if isinstance(mapping, dict):
            found += [(str(package), str(file)) for package, file in mapping.items() if "." not in package]
    return found


def _folder_above(file: str) -> str:
    """The folder in which a top-level module or package is found."""
    path = Path(file)
    return str(path.parent.parent if path.stem == "__init__" else path.parent)


def _holds(root: Root, name: str, file: str) -> bool:
    within = (f"{root.path}{os.sep}{name}{os.sep}", f"{root.path}{os.sep}{name}.")
    return (root.only is None or name in root.only) and file.startswith(within)
