"""Which files of an environment go into which layer: by distribution, so that a change of one changes one layer."""

from __future__ import annotations

import csv
import os
import posixpath
import re
import stat
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starburst.errors import EnvironmentBuildError

__all__ = ["Entry", "group", "scan"]

_ONE_LAYER_BYTES = 48 << 20
"""Up to here an environment is one layer: it is packed and pushed in a second or two."""
_OWN_LAYER_BYTES = 12 << 20
"""From here on a distribution has a layer of its own."""
_SHARED_LAYER_BYTES = 32 << 20
"""About so much of the small ones goes into one layer."""
_MAX_OWN_LAYERS = 48
"""Engines stack at most 127 layers; the base has some, and the small distributions need some."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a symbolic link, of an environment.

    Attributes:
        name: Its path below the folder, with ``/``.
        path: Where it is read.
        size_bytes: Its size; 0 for a link.
        mtime_s: When it was changed, whole seconds.
        executable: Whether its owner may run it.
        link: Where the link leads; empty for a file.
        recorded: The SHA-256 that its distribution states, in hex; empty if it states none, or another size.
        owner: The distribution's folder without ``.dist-info``, such as ``numpy-2.4.6``; empty if none owns it.
    """

    name: str
    path: Path
    size_bytes: int
    mtime_s: int
    executable: bool
    link: str = ""
    recorded: str = ""
    owner: str = ""


def scan(folder: Path) -> list[Entry]:
    """All files below a folder, sorted by name; empty folders are left out.

    Raises:
        EnvironmentBuildError: A link leads nowhere, in a loop, or to a folder outside; something is not a file.
    """
    try:
        found = {entry.name: entry for entry in _walk(folder.resolve(strict=True), folder)}
    except OSError as error:
        raise EnvironmentBuildError(
            f"the environment in {folder} cannot be read: {error.strerror}: {error.filename}",
            hint="check that nothing else changes or removes it during the build",
        ) from error
    owned = _records(found)
    return [
        _with_owner(entry, owned.get(name) or owned.get(_source_of(name)))
        for name, entry in sorted(found.items())
    ]


def group(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Cut an environment into layers; each name stands for the same distributions as long as their sizes allow."""
    if sum(entry.size_bytes for entry in entries) <= _ONE_LAYER_BYTES:
        return {"packages": entries} if entries else {}
    owners: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        owners[_distribution(entry.owner)].append(entry)
    sizes = {owner: sum(entry.size_bytes for entry in files) for owner, files in owners.items()}
    largest = sorted((owner for owner in owners if owner), key=lambda owner: (-sizes[owner], owner))
    own = {owner for owner in largest[:_MAX_OWN_LAYERS] if sizes[owner] >= _OWN_LAYER_BYTES}
    rest = sum(size for owner, size in sizes.items() if owner not in own)
    # A power of two: when there are more, each is cut in two and the others stay.
    shares = 1 << max(0, -(-rest // _SHARED_LAYER_BYTES) - 1).bit_length()
    groups: dict[str, list[Entry]] = defaultdict(list)
    for owner, files in owners.items():
        share = int.from_bytes(sha256(owner.encode()).digest()[:4], "big") % shares
        groups[owner if owner in own else f"packages-{share + 1}of{shares}"] += files
    return {name: sorted(groups[name], key=lambda entry: entry.name) for name in sorted(groups)}


def _walk(root: Path, folder: Path) -> Iterator[Entry]:
    todo = [(folder, "")]
    while todo:
        where, prefix = todo.pop()
        with os.scandir(where) as listing:
            for item in listing:
                name = f"{prefix}{item.name}"
                if item.is_dir(follow_symlinks=False):
                    todo.append((Path(item.path), f"{name}/"))
                elif item.is_symlink():
                    yield _link(root, name, Path(item.path))
                else:
                    yield _file(name, Path(item.path), item.stat(follow_symlinks=False))


def _file(name: str, path: Path, about: os.stat_result) -> Entry:
    if not stat.S_ISREG(about.st_mode):
        raise EnvironmentBuildError(
            f"{path} is neither a file nor a folder: it cannot be part of an image", hint="remove it"
        )
    return Entry(name, path, about.st_size, int(about.st_mtime), bool(about.st_mode & stat.S_IXUSR))


def _link(root: Path, name: str, path: Path) -> Entry:
    """A link within the folder stays one; a file elsewhere (uv can link to its cache) is taken itself."""
    target = path.readlink()
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, until Python 3.12
        raise EnvironmentBuildError(
            f"the symbolic link {path} leads to {target}: nowhere, or in a loop", hint="remove it"
        ) from error
    if not target.is_absolute() and real.is_relative_to(root):
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target.as_posix()))
        if not inside.startswith("../"):
            return Entry(name, path, 0, 0, executable=False, link=target.as_posix())
    if real.is_dir():
        raise EnvironmentBuildError(
            f"the symbolic link {path} leads to the folder {real}, outside of the environment",
            hint="put the folder itself there, or remove the link",
        )
    return _file(name, real, real.stat())


def _records(found: dict[str, Entry]) -> dict[str, tuple[str, str, str]]:
    """Owner, SHA-256 and size of what the distributions say that they own."""
    owned: dict[str, tuple[str, str, str]] = {}
    for record in sorted(name for name in found if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)):
        owner = record.partition(".dist-info/")[0]
        with found[record].path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.reader(file):
                name, digest, size = [*row, "", "", ""][:3]
                # Scripts stand as ../../bin/x, seen from a site-packages folder, but are in the folder's bin.
                place = posixpath.normpath(name).replace("\\", "/").removeprefix("../../")
                owned.setdefault(place, (owner, digest, size))
    return owned


def _with_owner(entry: Entry, owned: tuple[str, str, str] | None) -> Entry:
    owner, digest, size = owned or (_of_metadata(entry.name), "", "")
    if entry.name.endswith(".pyc") or size != str(entry.size_bytes):
        digest = ""  # compiled here, or changed after it was installed
    return Entry(
        entry.name,
        entry.path,
        entry.size_bytes,
        entry.mtime_s,
        entry.executable,
        entry.link,
        _hex(digest),
        owner,
    )


def _of_metadata(name: str) -> str:
    top, found, _ = name.partition(".dist-info/")
    return top if found and "/" not in top else ""


def _source_of(name: str) -> str:
    """``a/b.py`` for ``a/__pycache__/b.cpython-311.pyc``; any other name as it is."""
    folder, compiled, file = f"/{name}".rpartition("/__pycache__/")
    return f"{folder}/{file.split('.')[0]}.py".lstrip("/") if compiled else name


def _distribution(owner: str) -> str:
    """The normalised name, without the version: another version goes into the layer of the same name."""
    return re.sub(r"[-_.]+", "-", owner.rpartition("-")[0] or owner).lower()


def _hex(digest: str) -> str:
    algorithm, _, value = digest.partition("=")
    if algorithm != "sha256":
        return ""
    try:
        return urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except (Base64Error, ValueError):
        return ""
