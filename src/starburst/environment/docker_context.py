"""The build context of a Dockerfile: the files that ``.dockerignore`` leaves, no secrets; their hash, and a zip."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from starburst.environment.code_rules import SECRETS
from starburst.errors import EnvironmentBuildError

__all__ = ["MAX_BYTES", "context_files", "context_hash", "ignore_lines", "write_zip"]

MAX_BYTES = 500_000_000
"""More than that in a build context is a mistake: somebody's data, or an environment."""
_NEVER = (
    *("**/.git", "**/.venv", "**/venv", "**/__pycache__"),
    *("**/.aws", "**/.ssh", "**/.netrc", "**/.pypirc", "**/.git-credentials", "**/.docker"),
    *("**/.env", "**/.env.*"),
    *(f"**/{name}" for name in SECRETS),
)
"""Written after the user's lines, so that none of those brings it back."""
_LARGEST = 5
_PLAIN_TIME = (1980, 1, 1, 0, 0, 0)


def ignore_lines(folder: Path) -> tuple[str, ...]:
    """What an engine is told to leave out: the folder's ``.dockerignore``, then what never goes into an image.

    Raises:
        EnvironmentBuildError: The file cannot be read.
    """
    path = folder / ".dockerignore"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentBuildError(f"{path} cannot be read: {error}", hint="mend or remove it") from error
    kept = (line.strip() for line in lines if not line.startswith("#"))
    return (*(line for line in kept if line), *_NEVER)


def context_files(folder: Path, ignore: Sequence[str]) -> dict[str, Path]:
    """The files and links of a build context, by their names in it, sorted.

    Raises:
        EnvironmentBuildError: They are more than a build context should have; the message lists the largest.
    """
    # Without exceptions, what is below an ignored folder need not be looked at.
    whole = not any(line.startswith("!") for line in ignore)
    found = dict(sorted(_walk(str(folder), _Ignored(ignore), skip=whole)))
    sizes = {name: path.lstat().st_size for name, path in found.items()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LARGEST]
        listed = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for name, size in largest)
        raise EnvironmentBuildError(
            f"the build context {folder} has {sum(sizes.values()) / 1e6:,.0f} MB; the largest: {listed}",
            hint=f"name what the Dockerfile does not need in {folder / '.dockerignore'}",
        )
    return found


def context_hash(folder: Path, ignore: Sequence[str]) -> str:
    """A hash of names, contents and modes of the files; times do not count.

    Raises:
        EnvironmentBuildError: As :func:`context_files`, or one cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for name, path in context_files(folder, ignore).items():
            if path.is_symlink():
                content, kind = hashlib.sha256(os.fsencode(path.readlink())).hexdigest(), "link"
            else:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                kind = "program" if path.stat().st_mode & 0o111 else "file"
            digest.update(f"{name}\0{kind}\0{content}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise EnvironmentBuildError(
            f"the build context {folder} cannot be read: {error}", hint="name the file in .dockerignore"
        ) from error
    return digest.hexdigest()


def write_zip(folder: Path | None, ignore: Sequence[str], into: Path, extra: Mapping[str, str]) -> None:
    """Write a build context into a zip, below ``context/``, and texts beside it.

    Raises:
        EnvironmentBuildError: As :func:`context_hash`.
    """
    files = context_files(folder, ignore) if folder else {}
    try:
        with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            archive.writestr(zipfile.ZipInfo("context/", _PLAIN_TIME), "")
            for name, text in extra.items():
                archive.writestr(zipfile.ZipInfo(name, _PLAIN_TIME), text)
            for name, path in files.items():
                if path.is_symlink():
                    entry = zipfile.ZipInfo(f"context/{name}", _PLAIN_TIME)
                    entry.create_system, entry.external_attr = 3, 0o120777 << 16
                    archive.writestr(entry, os.fsencode(path.readlink()))
                else:
                    entry = zipfile.ZipInfo(f"context/{name}", _PLAIN_TIME)
                    mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
                    entry.create_system, entry.external_attr = 3, (0o100000 | mode) << 16
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                        while piece := source.read(1 << 20):
                            target.write(piece)
    except OSError as error:
        raise EnvironmentBuildError(
            f"the build context {folder} cannot be packed: {error}",
            hint="make room in the folder for temporary files (TMPDIR), or name the file in .dockerignore",
        ) from error


def _walk(folder: str, ignored: _Ignored, *, skip: bool) -> Iterator[tuple[str, Path]]:
    for top, folders, names in os.walk(folder):
        prefix = os.path.relpath(top, folder).replace(os.sep, "/") + "/"
        prefix = "" if prefix == "./" else prefix
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]  # noqa: PTH114, PTH118
        if skip:
            folders[:] = [name for name in folders if f"{prefix}{name}" not in ignored]
        for name in (*names, *links):
            path = Path(top, name)
            if f"{prefix}{name}" not in ignored and (path.is_file() or path.is_symlink()):
                yield f"{prefix}{name}", path


class _Ignored:
    """Docker's patterns: relative to the context, also for all below a folder; the last one that fits decides."""

    def __init__(self, ignore: Sequence[str]) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in ignore:
            pattern = posixpath.normpath(line.removeprefix("!").strip()).strip("/")
            if pattern not in ("", "."):
                self._rules.append(
                    (not line.startswith("!"), re.compile(f"{_regex(pattern)}(?:/.*)?", re.DOTALL))
                )

    def __contains__(self, name: str) -> bool:
        return next((ignored for ignored, rule in reversed(self._rules) if rule.fullmatch(name)), False)


def _regex(pattern: str) -> str:
    """As Go's ``filepath.Match``, with ``**`` for any number of folders."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[\^?[^\]]+\]|\\.)", pattern)
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(special.get(part) or _literal(part) for part in parts)


def _literal(part: str) -> str:
    return part if part.startswith("[") and part.endswith("]") else re.escape(part.removeprefix("\\"))
