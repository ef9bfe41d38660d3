"""A program's own code as one small archive: which files, and their bytes, the same for the same files.

From each root come the modules in it and its packages whole, with their data files. A folder without
``__init__.py`` is a package if the program has imported it, if the function names it, or in a ``src`` folder. All
else stays: the script's data, and a home folder in which a script happens to be.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.machinery
import io
import os
import stat
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starburst.environment.code_roots import Root
from starburst.environment.code_rules import (
    GitRules,
    ProjectRules,
    is_never_file,
    is_never_folder,
    project_of,
)
from starburst.errors import EnvironmentBuildError

__all__ = ["LIMIT_BYTES", "CodeArchive", "CodeFile", "CodeTree", "archive", "collect"]

LIMIT_BYTES = 50 * 2**20
_MAX_ENTRIES = 100_000
_LARGEST = 5
_MODULE_ENDS = tuple(end for end in importlib.machinery.all_suffixes() if end != ".pyc")
_BUILT = ("build", "dist")
_OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One file of a layer.

    Attributes:
        name: Its name in the archive: ``<number of the root>/package/module.py``.
        path: Where it is.
        size_bytes: Its size.
        version: Changes when it is written: times of its last changes, and its number on the disk.
        executable: Whether it may be run as a program.
    """

    name: str
    path: str
    size_bytes: int
    version: tuple[int, int, int]
    executable: bool = False


@dataclass(frozen=True, slots=True)
class CodeTree:
    """The code that travels.

    Attributes:
        files: Sorted by name.
        roots: Folders in the archive, in the order of the module path.
        outside: Links that lead out of the project and were left out.
    """

    files: tuple[CodeFile, ...]
    roots: tuple[str, ...]
    outside: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)

    def module_file(self, name: str) -> str | None:
        """The file of a module, or of a package's ``__init__``, that is in it."""
        wanted = name.replace(".", "/")
        ends = (*(f"{wanted}{end}" for end in _MODULE_ENDS), f"{wanted}/__init__.py")
        for file in self.files:
            if file.name.partition("/")[2] in ends:
                return file.path
        return None

    @property
    def names(self) -> frozenset[str]:
        """Names of the modules and packages that can be imported from it."""
        tops = (file.name.split("/", 2)[1] for file in self.files)
        return frozenset(top.partition(".")[0] for top in tops)


@dataclass(frozen=True, slots=True)
class CodeArchive:
    """A tree as a tar archive.

    Attributes:
        sha256: Of its bytes: its name in the store.
        data: Its bytes.
        roots: As in the tree.
        n_files: How many files it holds.
    """

    sha256: str
    data: bytes
    roots: tuple[str, ...]
    n_files: int


def collect(
    roots: Sequence[Root],
    *,
    loaded: Mapping[str, str] | None = None,
    names: Collection[str] = (),
    limit_bytes: int = LIMIT_BYTES,
) -> CodeTree:
    """Choose the files that travel.

    Args:
        roots: Where modules are imported from, in order.
        loaded: Imported modules and their files: these travel even if Git ignores them, as generated ones may be.
        names: Further names of modules that are needed.
        limit_bytes: How large all files together may be.

    Raises:
        EnvironmentBuildError: They are larger, there are too many, one cannot be read, a module that the program has
            imported is a link to elsewhere, or ``[tool.starburst]`` is wrong.
    """
    picker = _Picker(loaded or {}, frozenset(name.partition(".")[0] for name in (*(loaded or ()), *names)))
    taken: list[str] = []
    for root in roots:
        number = str(len(taken))
        if picker.take_root(root, number):
            taken.append(number)
    tree = CodeTree(
        tuple(sorted(picker.files.values(), key=lambda file: file.name)),
        tuple(taken),
        tuple(sorted(picker.outside)),
    )
    if tree.size_bytes > limit_bytes:
        raise _too_large(tree, limit_bytes)
    return tree


def archive(tree: CodeTree) -> CodeArchive:
    """The tree as a tar archive; same names, bytes and rights give the same archive anywhere.

    Raises:
        EnvironmentBuildError: A file cannot be read.
    """
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in tree.files:
            try:
                data = Path(file.path).read_bytes()
            except OSError as error:
                raise _unreadable(file.path, error) from error
            about = tarfile.TarInfo(file.name)
            about.size = len(data)
            about.mode = 0o755 if file.executable else 0o644
            tar.addfile(about, io.BytesIO(data))
    data = body.getvalue()
    return CodeArchive(hashlib.sha256(data).hexdigest(), data, tree.roots, len(tree.files))


@dataclass(slots=True)
class _Picker:
    loaded: Mapping[str, str]
    wanted: frozenset[str]
    files: dict[str, CodeFile] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    entries: int = 0
    git: GitRules = field(init=False)
    project: ProjectRules = field(init=False)
    home: str = field(init=False)

    def take_root(self, root: Root, number: str) -> bool:
        """Take what is imported from a root; whether there was anything."""
        before = len(self.files)
        self.git = GitRules(root.path)
        around = project_of(Path(root.path))
        self.project = ProjectRules(around)
        self.home = os.path.realpath(self.git.top)
        chain = (os.path.realpath(root.path),)
        for entry in _listed(root.path):
            stem = entry.name.partition(".")[0]
            if root.only is not None and stem not in root.only:
                continue
            if entry.name.endswith(_MODULE_ENDS) or self._is_package(entry, root):
                self._take(entry, f"{number}/{entry.name}", chain)
        self._take_loaded(root, number)
        for path in self.project.included() if around is not None else ():
            self._take_included(root, number, path, chain)
        return len(self.files) > before

    def _is_package(self, entry: os.DirEntry[str], root: Root) -> bool:
        if not entry.name.isidentifier() or not os.path.isdir(entry.path):  # noqa: PTH112
            return False
        if os.path.realpath(entry.path) == _OUR_FOLDER:
            return False
        if os.path.exists(f"{entry.path}/__init__.py"):  # noqa: PTH110
            return True
        return entry.name in self.wanted or (root.namespaces and entry.name not in _BUILT)

    def _take(self, entry: os.DirEntry[str], name: str, chain: tuple[str, ...]) -> None:
        """Take a file, or all that is in a folder, as far as the rules allow."""
        self.entries += 1
        if self.entries > _MAX_ENTRIES:
            raise EnvironmentBuildError(
                f"{chain[0]} holds more than {_MAX_ENTRIES:,} files and folders that workers would get",
                hint=_LEAVE_OUT,
            )
        path = entry.path
        folder = os.path.isdir(path)  # noqa: PTH112
        real = os.path.realpath(path) if folder or entry.is_symlink() else path
        if not self._may_travel(path, real, folder=folder):
            return
        if not folder:
            self._add(name, path)
        elif real not in chain:
            for each in _listed(path):
                self._take(each, f"{name}/{each.name}", (*chain, real))

    def _may_travel(self, path: str, real: str, *, folder: bool) -> bool:
        never = is_never_folder if folder else _is_never
        if never(path) or never(real) or self.git.ignores(path, folder=folder):
            return False
        if self.project.excludes(path, folder=folder):
            return False
        if os.path.islink(path) and not _is_within(real, self.home):  # noqa: PTH114
            self._leave_out(path, real)
            return False
        return True

    def _take_loaded(self, root: Root, number: str) -> None:
        """Modules that the program has imported are needed, whatever Git ignores."""
        for module, file in self.loaded.items():
            relative = module.replace(".", "/")
            top = module.partition(".")[0]
            end = file.removeprefix(f"{root.path}/{relative}")
            known = end in _MODULE_ENDS or (end.startswith("/__init__.") and end[9:] in _MODULE_ENDS)
            if not known or (root.only is not None and top not in root.only):
                continue
            name = f"{number}/{relative}{end}"
            real = os.path.realpath(file)
            if name in self.files or _is_in_never(file, root.path) or _is_never(file):
                continue
            if _is_within(real, self.home) and not self.project.excludes(file, folder=False):
                self._add(name, file)

    def _take_included(self, root: Root, number: str, path: str, chain: tuple[str, ...]) -> None:
        """What ``include`` names in this root travels, but for what never may."""
        real = os.path.realpath(path)
        if (
            not _is_within(path, root.path)
            or not _is_within(real, self.home)
            or _is_in_never(path, root.path)
        ):
            return
        if os.path.isdir(path):  # noqa: PTH112
            if not is_never_folder(path) and real not in chain:
                for each in _listed(path):
                    self._take_included(root, number, each.path, (*chain, real))
        elif not _is_never(path) and not _is_never(real):
            self._add(f"{number}/{path[len(root.path) + 1 :]}", path)

    def _leave_out(self, path: str, real: str) -> None:
        """A link leads out of the project: an error if the program has imported something through it."""
        for module, file in self.loaded.items():
            if file == path or file.startswith(path + os.sep):
                raise EnvironmentBuildError(
                    f"the module {module} is imported through the link {path}, which leads out of the project "
                    f"to {real}: what is there does not travel to workers",
                    hint="install that package (pip install -e), or put its folder on sys.path or PYTHONPATH",
                )
        self.outside.add(path)

    def _add(self, name: str, path: str) -> None:
        try:
            found = os.stat(path)  # noqa: PTH116
        except FileNotFoundError:
            return  # a link to nothing, or removed since the folder was listed
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise _unreadable(path, error) from error
        if stat.S_ISREG(found.st_mode):
            version = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            executable = bool(found.st_mode & stat.S_IXUSR)
            self.files[name] = CodeFile(name, path, found.st_size, version, executable)


_LEAVE_OUT = (
    'leave out what workers do not need, in .gitignore or with exclude = ["folder/"] in [tool.starburst] of '
    "pyproject.toml; large data is better put into the bucket, and tasks given its address"
)


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_never(path: str) -> bool:
    return is_never_file(os.path.basename(path))  # noqa: PTH119


def _is_in_never(path: str, top: str) -> bool:
    """Whether one of the folders between a folder and a file in it may not travel."""
    above = os.path.dirname(path)  # noqa: PTH120
    while len(above) > len(top):
        if is_never_folder(above):
            return True
        above = os.path.dirname(above)  # noqa: PTH120
    return False


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _unreadable(path: str, error: OSError) -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"{path} is part of the code that workers get, and cannot be read: {error.strerror}",
        hint="make it readable, or leave it out with exclude = [...] in [tool.starburst] of pyproject.toml",
    )


def _too_large(tree: CodeTree, limit_bytes: int) -> EnvironmentBuildError:
    largest = sorted(tree.files, key=lambda file: -file.size_bytes)[:_LARGEST]
    lines = "".join(f"\n  {file.size_bytes / 1e6:8.1f} MB  {file.path}" for file in largest)
    return EnvironmentBuildError(
        f"the code of this program takes {tree.size_bytes / 1e6:.1f} MB in {len(tree.files):,} files, more than the "
        f"{limit_bytes / 1e6:.0f} MB that are sent to workers; the largest files are{lines}",
        hint=_LEAVE_OUT,
    )
