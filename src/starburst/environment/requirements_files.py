"""requirements*.txt: resolved by uv for the worker's platform, and remembered until something in them changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from starburst.environment.access import Access, filled, logins_in, pip_constraints, without_login
from starburst.environment.build_errors import explained
from starburst.environment.caches import cache_path
from starburst.environment.lock import FROM_INDEX, Lock, Requirement, normalized
from starburst.environment.lock_files import file_requirement
from starburst.environment.needs import direct_needs, pins_here
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps
from starburst.environment.uv import KEPT_TO_RESOLVE, UvFailed, run_uv, target_arguments
from starburst.errors import EnvironmentBuildError

__all__ = ["requirements_lock"]

_OPTION = re.compile(r"^(-[a-zA-Z]|--[a-z-]+)[ =]?\s*(.*)$")
_INCLUDES = {"-r", "--requirement", "-c", "--constraint"}
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_HASH = re.compile(r"--hash[= ](\S+)")


async def requirements_lock(
    path: Path, platform: Platform, steps: Steps, *, worker: bool = True, refresh: bool = False
) -> Lock:
    """The packages of a requirements file and what they need in turn, in exact versions.

    With ``worker`` they go with what starburst needs, if possible in the versions that run here. Resolved once: as
    long as the file, those that it includes, constraints, the platform and starburst stay, so do the versions.

    Raises:
        EnvironmentBuildError: There is no set of versions that fits, or a file cannot be read.
    """
    texts = dict(_with_included(path))
    access = _access(texts)
    needs = direct_needs(platform) if worker else []
    pins = [f"{name}=={version}" for name, version in pins_here(platform).items()] if worker else []
    remembered = cache_path() / "locks" / f"{_key(texts, platform, needs + pins + _wishes(path.parent))}.txt"
    text = None if refresh else _read(remembered)
    if text is None:
        hashed = any("--hash" in entry for entry in texts.values())
        text = await _resolve(path, platform, steps, access, needs=needs, pins=pins, hashed=hashed)
        _remember(remembered, text)
    else:
        steps.note(f"{path.name} has not changed since it was resolved")
    requirements, editables = _parsed(text, path)
    return Lock.of(
        platform, requirements, source_name=path.name, folder=path.parent, editables=editables, access=access
    )


async def _resolve(
    path: Path,
    platform: Platform,
    steps: Steps,
    access: Access,
    *,
    needs: list[str],
    pins: list[str],
    hashed: bool,
) -> str:
    arguments = ["pip", "compile", str(path), *(["-"] if needs else []), "--no-header", "--no-annotate"]
    arguments += [*target_arguments(platform), *access.arguments(path.parent)]
    arguments += ["--generate-hashes"] if hashed else []
    environment = access.environment(path.parent)
    for constraints in _constraints(path.parent):
        arguments += ["--constraints", constraints]
    with tempfile.TemporaryDirectory(prefix="starburst-") as scratch:
        here = Path(scratch) / "here.txt"
        here.write_text("\n".join(pins), encoding="utf-8")

        async def resolve(*more: str) -> str:
            return await run_uv(
                [*arguments, *more],
                steps,
                cwd=path.parent,
                stdin="\n".join(needs),
                environment=environment,
                resolving=True,
            )

        try:
            if pins:
                # (As preferences, which uv knows too, these are passed over where one index has them for another
                # architecture only.)
                with contextlib.suppress(UvFailed):
                    return without_login(await resolve("--constraints", str(here)))
                steps.note("not with the versions of what starburst needs that are here: with any")
            text = await resolve()
        except UvFailed as error:
            beside = " together with what starburst needs" if needs else ""
            raise explained(error, platform, f"{path.name} cannot be resolved{beside}") from None
    return without_login(text)


def _with_included(path: Path, seen: set[Path] | None = None) -> Iterator[tuple[Path, str]]:
    """The file and those that it includes; of local projects the files that say what they need."""
    seen = set() if seen is None else seen
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentBuildError(
            f"{path} cannot be read: {error}", hint="see where it is included"
        ) from None
    yield path, text
    for option, value in _options(text):
        if option in _INCLUDES and "://" not in value:
            yield from _with_included(path.parent / value, seen)
    for line in _lines(text):
        folder = path.parent / re.sub(r"^(-e|--editable)[ =]+", "", line).split("[")[0].split(" ;")[0].strip()
        if "://" not in line and folder.is_dir():
            for name in _PROJECT_FILES:
                if (folder / name).is_file():
                    yield folder / name, (folder / name).read_text(encoding="utf-8", errors="replace")


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if stripped := re.sub(r"(^|\s)#.*$", "", line).strip():
            yield stripped


def _options(text: str) -> Iterator[tuple[str, str]]:
    for line in _lines(text):
        if found := _OPTION.match(line):
            yield found[1], found[2].strip().strip("'\"")


def _access(texts: dict[Path, str]) -> Access:
    """The indexes that the files name: they say nothing in the lock, but are needed to fetch it."""
    default, indexes, links, no_index, logins = "", [], [], False, {}
    for path, text in texts.items():
        logins.update(logins_in(text))
        for option, value in _options(filled(text)):
            match option.lstrip("-"):
                case "i" | "index-url":
                    default = value
                case "extra-index-url":
                    indexes.append(value)
                case "f" | "find-links":
                    links.append(value if "://" in value else str((path.parent / value).resolve()))
                case "no-index":
                    no_index = True
    return Access(default, tuple(indexes), tuple(links), no_index, logins)


def _key(texts: dict[Path, str], platform: Platform, own: list[str]) -> str:
    digest = hashlib.sha256("\n".join([str(platform), *own, ""]).encode())
    for path, text in texts.items():
        digest.update(f"{path}\n{without_login(filled(text))}\n".encode())
    return digest.hexdigest()


def _constraints(folder: Path) -> list[str]:
    return (os.environ.get("UV_CONSTRAINT") or pip_constraints(folder)).split()


def _wishes(folder: Path) -> list[str]:
    """What uv and pip are set to that changes the versions: constraints with their text, and the like."""
    settings = {name: os.environ[name] for name in sorted(KEPT_TO_RESOLVE) if os.environ.get(name)}
    files = [*_constraints(folder), *settings.get("UV_OVERRIDE", "").split()]
    files += settings.get("UV_EXCLUDES", "").split()
    return [
        *(f"{name}={value}" for name, value in settings.items()),
        *files,
        *(_read(folder / f) or "" for f in files),
    ]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _remember(path: Path, text: str) -> None:
    """Keep it; a folder that cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        return


def _parsed(text: str, path: Path) -> tuple[list[Requirement], list[Path]]:
    """What ``uv pip compile`` wrote: exact versions, addresses, local files and folders."""
    requirements: list[Requirement] = []
    editables: list[Path] = []
    for line in _lines(text):
        hashes = tuple(sorted(_HASH.findall(line)))
        wanted = _HASH.sub("", line).strip()
        if wanted.startswith(("-e ", "--editable ")):
            editables.append(_local(wanted.split(maxsplit=1)[1].split(" ;")[0], path))
            continue
        try:
            parsed = Parsed(wanted)
        except InvalidRequirement:  # a path
            local = _local(wanted.split(" ;")[0], path)
            if local.is_dir():
                editables.append(local)
            else:
                requirements.append(_file(local, hashes))
            continue
        name = normalized(parsed.name)
        if parsed.url and parsed.url.startswith("file:"):
            local = _local(parsed.url, path)
            if local.is_dir():
                editables.append(local)
            else:
                requirements.append(file_requirement(local, name, "", hashes))
        elif parsed.url:
            requirements.append(_addressed(name, parsed.url, hashes))
        else:
            version = next(iter(parsed.specifier)).version
            requirements.append(Requirement(name, version, FROM_INDEX, hashes))
    return requirements, editables


def _addressed(name: str, url: str, hashes: tuple[str, ...]) -> Requirement:
    address, _, fragment = url.partition("#")
    found = re.search(r"subdirectory=([^&]+)", fragment)
    digest = re.search(r"sha256=([0-9a-f]{64})", fragment)
    if digest and not hashes:
        hashes = (f"sha256:{digest[1]}",)
    whole = without_login(filled(address))
    version = _version_of(whole) if not address.startswith("git+") else ""
    variables = hashlib.sha256(whole.encode()).hexdigest() if whole != address else ""
    subdirectory = found[1] if found else ""
    return Requirement(name, version, address, hashes, subdirectory=subdirectory, variables=variables)


def _version_of(address: str) -> str:
    filename = unquote(urlsplit(address).path).rpartition("/")[2]
    try:
        return str((parse_wheel_filename if filename.endswith(".whl") else parse_sdist_filename)(filename)[1])
    except ValueError:
        return ""


def _file(path: Path, hashes: tuple[str, ...]) -> Requirement:
    parse = parse_wheel_filename if path.suffix == ".whl" else parse_sdist_filename
    return file_requirement(path, str(parse(path.name)[0]), "", hashes)


def _local(text: str, path: Path) -> Path:
    text = filled(text)
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    return (path.parent / text).resolve()
