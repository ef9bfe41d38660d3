"""Before anything is launched: which modules a function needs, and which of them workers would not have."""

from __future__ import annotations

import ast
import contextlib
import dis
import importlib.metadata
import importlib.util
import io
import pickle
import re
import sys
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from starburst.environment.code import CodeTree
from starburst.environment.code_roots import loaded_modules
from starburst.errors import EnvironmentBuildError

__all__ = ["Missing", "missing", "needed_by_modules", "needed_by_script", "needed_modules"]

Buffer = bytes | bytearray | memoryview

_WORKERS_OWN = frozenset({"starburst", "cloudpickle", "msgspec", "__main__", "__mp_main__"})
_USUAL_NAMES = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "osgeo": "gdal",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "rest_framework": "djangorestframework",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "usb": "pyusb",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}


@dataclass(frozen=True, slots=True)
class Missing:
    """A module that a task would look for in vain.

    Attributes:
        module: Its name, as it is imported.
        distribution: The package that has it, as far as that can be said.
        fix: What to do.
    """

    module: str
    distribution: str
    fix: str


def needed_modules(function: Buffer, code: CodeTree | None = None) -> set[str]:
    """The modules that a pickled function needs, as it would ask for them on a worker.

    Those are the modules of what is pickled by its name; modules among its variables; what it, and functions that
    travel with it, import in their bodies; and what the local modules among these import when they are imported
    themselves. An import that may fail (within ``try``) does not count. Nothing of the pickle is run.

    Args:
        function: What :func:`starburst.protocol.payload.dump_function` gave.
        code: The local modules that travel; their own imports count, too.
    """
    reader = _Reader(io.BytesIO(function))
    with contextlib.suppress(Exception):  # what cannot be read for its names is for the worker to tell of
        reader.load()
    found = {name for name in reader.modules if name}
    if code is None:
        return found
    return _with_their_own(found, code, loaded_modules())


def needed_by_script(path: Path, code: CodeTree) -> set[str]:
    """The modules that the functions of a script need, as far as its text tells: the script is not run.

    Those are what its functions and classes import, and what they use of what the script imports; and what the local
    modules among these import when they are imported themselves. What only the script's own lines use does not count.

    Args:
        path: The script.
        code: The local modules that travel.

    Raises:
        EnvironmentBuildError: The script cannot be read.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise EnvironmentBuildError(f"{path} cannot be read as Python: {error}") from error
    scopes = [node for node in ast.walk(tree) if isinstance(node, _TRAVEL)]
    used = {node.id for scope in scopes for node in ast.walk(scope) if isinstance(node, ast.Name)}
    found = {module for name, module in _bound_names(tree.body) if name in used}
    for scope in scopes:
        if not isinstance(scope, ast.Lambda):
            found |= set(_imports_of(scope.body, ""))
    return _with_their_own(found, code, {})


def needed_by_modules(names: Collection[str], code: CodeTree) -> set[str]:
    """These local modules, and what they import when they are imported themselves."""
    return _with_their_own(set(names), code, {})


_TRAVEL = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _bound_names(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The names that a script's imports give, each with its module."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    yield (alias.asname or alias.name.partition(".")[0]), alias.name
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    yield from (
                        (alias.asname or alias.name, name) for name in _full_names(module, [alias.name])
                    )
            case ast.With(body=inner):
                yield from _bound_names(inner)
            case ast.If(test=test, orelse=orelse) if not _is_type_checking(test):
                yield from _bound_names([*statement.body, *orelse])


def _with_their_own(needed: set[str], code: CodeTree, loaded: Mapping[str, str]) -> set[str]:
    """These modules, and what the local ones among them import."""
    found = set(needed)
    open_names, seen = list(found), set[str]()
    while open_names:
        name = open_names.pop()
        for each in _with_parents(name):
            if each in seen:
                continue
            seen.add(each)
            file = code.module_file(each) or loaded.get(each)
            if file is not None:
                more = _imports_of_file(file, each) - found
                found |= more
                open_names += more
    return found


def missing(
    needed: Collection[str],
    provided: Collection[str],
    code: CodeTree | None = None,
    *,
    how_to_add: str = "uv add {}",
) -> list[Missing]:
    """Which modules workers would not have.

    Args:
        needed: What :func:`needed_modules` gave.
        provided: Names of the packages that they have, spelled in any way.
        code: The local modules that travel.
        how_to_add: How a package is added to what they have; ``{}`` stands for its name.
    """
    have = {_normal(name) for name in provided}
    local = frozenset[str]() if code is None else code.names
    found: dict[str, Missing] = {}
    for module in sorted(needed):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in _WORKERS_OWN or top in local:
            continue
        packages = _packages_of(module)
        if have.intersection(map(_normal, packages)) or (not packages and _normal(_guess(module)) in have):
            continue
        name = packages[0] if packages else _guess(module)
        found.setdefault(
            top if not packages else name, Missing(module, name, _fix(module, name, packages, how_to_add))
        )
    return list(found.values())


def _fix(module: str, name: str, packages: Sequence[str], how_to_add: str) -> str:
    top = module.partition(".")[0]
    if not packages and top in sys.modules and getattr(sys.modules[top], "__file__", None):
        return (
            f"{top} is no installed package, nor is it found on sys.path: put its folder on PYTHONPATH, or send it "
            f"with the function: cloudpickle.register_pickle_by_value({top})"
        )
    return how_to_add.format(name)


# ---- the pickle ----


class _AnythingType(type):
    """A class that takes all that a pickle may do to an object or to a class, and stays what it is."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        return cls

    def __setstate__(cls, _: Any) -> None: ...

    def __setitem__(cls, _: Any, __: Any) -> None: ...

    def append(cls, _: Any) -> None: ...

    def extend(cls, _: Any) -> None: ...

    def add(cls, _: Any) -> None: ...

    def update(cls, *_: Any) -> None: ...


class _Anything(metaclass=_AnythingType):
    """Stands for all in a pickle that is not code."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return cls


class _Reader(pickle.Unpickler):
    """Reads a pickle for its names; what it refers to is neither imported nor called, except for making code."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()

    def persistent_load(self, pid: Any) -> Any:
        del pid
        return _Anything

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "cloudpickle":
            return {"subimport": self._module, "_builtin_type": self._builtin}.get(name, _Anything)
        self.modules.add(module)
        return _Anything

    def _module(self, name: str) -> Any:
        self.modules.add(name)
        return _Anything

    def _builtin(self, name: str) -> Any:
        return self._code if name == "CodeType" else _Anything

    def _code(self, *parts: Any) -> Any:
        code = types.CodeType(*parts)
        self.modules |= set(_imports_of_code(code))
        return code


def _imports_of_code(code: types.CodeType) -> Iterator[str]:
    """Modules that a function's body imports by their full names, outside of ``try``."""
    guarded = _guarded(code)
    before: list[Any] = [None, None]
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            level, names = before
            if not level and step.offset not in guarded:
                yield from _full_names(str(step.argval), names or ())
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            before = [before[1], step.argval]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports_of_code(constant)


def _full_names(module: str, names: Sequence[str]) -> Iterator[str]:
    """``import a.b`` needs ``a.b``; of ``from a import b``, b may be a module of a namespace, or anything."""
    yield module
    for name in names:
        if f"{module}.{name}" in sys.modules:
            yield f"{module}.{name}"


def _guarded(code: types.CodeType) -> set[int]:
    """Offsets within ``try``, as the table of exceptions says; those within ``with`` alone are not meant."""
    handlers = {step.offset: step for step in dis.get_instructions(code)}
    offsets: set[int] = set()
    for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
        following = [o for o in sorted(handlers) if o >= entry.target][:3]
        if not any(handlers[o].opname == "WITH_EXCEPT_START" for o in following):
            offsets.update(range(entry.start, entry.end + 1))
    return offsets


# ---- local modules ----


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for i in range(len(parts)):
        yield ".".join(parts[: i + 1])


def _imports_of_file(path: str, module: str) -> set[str]:
    """What a local module imports when it is imported."""
    try:
        source = Path(path).read_bytes()
        if not path.endswith(".py"):
            return set()
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):  # the task itself will tell
        return set()
    package = module if Path(path).stem == "__init__" else module.rpartition(".")[0]
    return set(_imports_of(tree.body, package))


def _imports_of(body: Sequence[ast.stmt], package: str) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([name] if name else [])])
                if base:
                    yield from _full_names(base, [alias.name for alias in names])
                    if level:
                        yield from (f"{base}.{alias.name}" for alias in names if alias.name != "*")
            case ast.ClassDef(body=inner) | ast.With(body=inner):
                yield from _imports_of(inner, package)
            case ast.If(test=test, orelse=orelse) if not _is_type_checking(test):
                yield from _imports_of([*statement.body, *orelse], package)
            case ast.Try(handlers=[], body=inner):
                yield from _imports_of(inner, package)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


# ---- packages ----


def _packages_of(module: str) -> list[str]:
    """The installed packages that have a module; of a name that several share, those with that very part of it."""
    packages = sorted(set(_distributions().get(module.partition(".")[0], ())))
    if "." not in module or not (len(packages) > 1 or _is_namespace(module.partition(".")[0])):
        return packages
    place = module.replace(".", "/")
    exact = [name for name in packages if any(_is_at(str(file), place) for file in _files_of(name))]
    return exact if exact or _is_namespace(module.partition(".")[0]) else packages


def _is_namespace(top: str) -> bool:
    """Whether a name is one that packages share, such as ``google``: a folder without a file of its own."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is None


def _is_at(file: str, place: str) -> bool:
    return file.startswith((f"{place}/", f"{place}."))


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@lru_cache(maxsize=64)
def _files_of(distribution: str) -> Sequence[Any]:
    return importlib.metadata.files(distribution) or ()


def _guess(module: str) -> str:
    top = module.partition(".")[0]
    if top == "google":
        return "protobuf" if module.startswith("google.protobuf") else "-".join(module.split(".")[:3])
    return _USUAL_NAMES.get(top, top.replace("_", "-"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
