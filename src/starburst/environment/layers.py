"""A folder of packages becomes layers of an image: streamed, reproducible, and packed only once.

A layer holds nothing of the machine that made it: names are sorted, times are fixed, everything belongs to root.
The same files give the same bytes, as long as the compressor is of the same version; the uncompressed layer, named by
``diff_id``, is always the same.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
import struct
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Literal, Protocol

from starburst.environment.grouping import Entry, group, scan
from starburst.errors import EnvironmentBuildError

__all__ = ["PACKAGES", "Compression", "Layer", "pack", "prune", "writing"]

Compression = Literal["zstd", "gzip"]

PACKAGES = "/opt/starburst/packages"
"""Where the packages are in a worker's container."""

_MTIME = 315_532_800
"""1980-01-01: older times trouble what makes zip files of installed packages."""
_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+"
_FORMAT = 1
"""To be raised when the same files are packed in another way."""
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 4
_MAX_THREADS = 4
_COPY_BYTES = 1 << 20
_PYC_HEADER_BYTES = 16


@dataclass(frozen=True, slots=True)
class Layer:
    """A packed layer.

    Attributes:
        name: Its group: a distribution, or ``packages``.
        path: The compressed file.
        digest: ``sha256:…`` of that file.
        size_bytes: Its size.
        diff_id: ``sha256:…`` of the uncompressed archive.
        media_type: As the manifest names it.
        cached: Whether it had been packed before.
    """

    name: str
    path: Path
    digest: str
    size_bytes: int
    diff_id: str
    media_type: str
    cached: bool = False


def pack(
    folder: Path, into: Path, *, prefix: str = PACKAGES, compression: Compression = "zstd"
) -> list[Layer]:
    """Pack a folder into one layer, or several if it is big.

    Args:
        folder: What ``uv pip install --target`` filled, or any other folder.
        into: The folder for the layers, kept from build to build; layers that are there already are not packed again.
        prefix: The absolute path of the folder's content in the image.
        compression: ``zstd`` is smaller and quicker; Docker before 23 takes ``gzip`` only.

    Raises:
        EnvironmentBuildError: Something in the folder cannot be packed, or there is no space for the layers.
    """
    groups = group(scan(folder))
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    # Each thread of a compressor holds some 15 MB.
    each = threads if len(groups) == 1 else -(-threads // 2)
    with writing(into):
        into.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(threads) as pool:
            jobs = [
                pool.submit(_layer, name, entries, into, prefix.strip("/"), compression, threads=each)
                for name, entries in groups.items()
            ]
            try:
                return [job.result() for job in jobs]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def prune(into: Path, *, keep_bytes: int, unused_s: float = 86_400.0) -> int:
    """Remove the layers that were used longest ago, until ``keep_bytes`` are left; returns how many bytes went.

    Args:
        into: The folder of :func:`pack`.
        keep_bytes: What may stay.
        unused_s: A layer that was used in these last seconds stays: another build may be about to push it.
    """
    layers = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in into.glob("*.layer"))
    total, removed = sum(size for _, size, _ in layers), 0
    before = time.time() - unused_s
    for path in (*into.glob("*.part"), *into.glob("base-*/")):  # of builds that were killed
        if path.stat().st_mtime < before:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for used_at, size, path in layers:
        if total - removed <= keep_bytes or used_at > before:
            break
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        removed += size
    return removed


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say it clearly when files cannot be written into a folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentBuildError(
                f"there is no space left in {folder} for the layers of the image ({_free(folder)} free)",
                hint="make room (starburst env prune removes old layers), or name another folder: STARBURST_CACHE_DIR",
            ) from error
        raise EnvironmentBuildError(
            f"layers of the image cannot be put into {folder}: {error}",
            hint="check that the file can be read and the folder can be written (STARBURST_CACHE_DIR names another)",
        ) from error


def _free(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"{shutil.disk_usage(existing).free / 1e6:,.0f} MB"


def _layer(
    name: str, entries: list[Entry], into: Path, prefix: str, compression: Compression, *, threads: int
) -> Layer:
    key = _key(entries, prefix, compression)
    path, about = into / f"{key}.layer", into / f"{key}.json"
    if known := _known(path, about, name):
        return known
    with tempfile.NamedTemporaryFile(dir=into, prefix=f"{key[:16]}-", suffix=".part", delete=False) as file:
        try:
            inner, outer = _write(entries, file, prefix, compression, threads)
            file.flush()
            size = file.tell()
            # Two builds at once: both write the same, the later one wins.
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    layer = Layer(name, path, outer, size, inner, f"{_MEDIA_TYPE}{compression}")
    _describe(about, layer)
    return layer


def _key(entries: list[Entry], prefix: str, compression: Compression) -> str:
    import zstandard

    compressor = [*zstandard.ZSTD_VERSION, _ZSTD_LEVEL] if compression == "zstd" else [_GZIP_LEVEL]
    digest = hashlib.sha256(json.dumps([_FORMAT, prefix, compression, compressor, sys.byteorder]).encode())
    for entry in entries:
        content = entry.link or entry.recorded or _hash(entry)
        row = [entry.name, entry.size_bytes, entry.executable, bool(entry.link), content]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _hash(entry: Entry) -> str:
    if entry.name.endswith(".pyc"):
        return hashlib.sha256(_compiled(entry)).hexdigest()
    with entry.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(path: Path, about: Path, name: str) -> Layer | None:
    """The layer as it was packed before, if it is whole; it counts as used now."""
    try:
        known = json.loads(about.read_bytes())
        layer = Layer(
            name,
            path,
            known["digest"],
            known["size_bytes"],
            known["diff_id"],
            known["media_type"],
            cached=True,
        )
        if path.stat().st_size != layer.size_bytes:
            return None
        os.utime(path)
    except (OSError, ValueError, LookupError):
        return None
    return layer


def _describe(about: Path, layer: Layer) -> None:
    described = asdict(layer)
    del described["path"], described["cached"]
    with tempfile.NamedTemporaryFile("w", dir=about.parent, suffix=".part", delete=False) as file:
        json.dump(described, file)
    Path(file.name).replace(about)


def _write(
    entries: list[Entry], file: IO[bytes], prefix: str, compression: Compression, threads: int
) -> tuple[str, str]:
    """Write the archive; returns the digests of what went into the compressor and of what came out."""
    outer = _Hashing(file)
    with _compressor(outer, compression, threads) as stream:
        inner = _Hashing(stream)
        with tarfile.TarFile(
            fileobj=inner,  # type: ignore[arg-type]  # it only writes and tells
            mode="w",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            copybufsize=_COPY_BYTES,
        ) as tar:
            folders: set[str] = set()
            for entry in entries:
                _add(tar, entry, f"{prefix}/{entry.name}", folders)
    return inner.digest, outer.digest


class _Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


def _compressor(
    outer: _Hashing, compression: Compression, threads: int
) -> contextlib.AbstractContextManager[_Writer]:
    if compression == "gzip":
        return gzip.GzipFile(
            filename="",
            mode="wb",
            compresslevel=_GZIP_LEVEL,
            fileobj=outer,
            mtime=0,
        )
    import zstandard

    # One thread or more, never none: the bytes depend on that, not on the number.
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=threads)
    return compressor.stream_writer(outer, closefd=False)  # type: ignore[arg-type]  # it is only written to


def _add(tar: tarfile.TarFile, entry: Entry, name: str, folders: set[str]) -> None:
    parents: list[str] = []
    while (name_of_parent := (parents[-1] if parents else name).rpartition("/")[0]) and (
        name_of_parent not in folders
    ):
        parents.append(name_of_parent)
    for folder in reversed(parents):
        folders.add(folder)
        tar.addfile(_about(folder, tarfile.DIRTYPE, mode=0o755))
    if entry.link:
        info = _about(name, tarfile.SYMTYPE, mode=0o777)
        info.linkname = entry.link
        tar.addfile(info)
        return
    info = _about(name, tarfile.REGTYPE, mode=0o755 if entry.executable else 0o644)
    info.size = entry.size_bytes
    if entry.name.endswith(".pyc"):
        tar.addfile(info, BytesIO(_compiled(entry)))
        return
    with entry.path.open("rb") as file:
        try:
            tar.addfile(info, file)
        except OSError as error:
            if error.errno is None:  # tarfile's own: the file is shorter than it was
                raise _changed(entry) from error
            raise


def _about(name: str, kind: bytes, *, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, _MTIME
    return info


def _compiled(entry: Entry) -> bytes:
    """A compiled file as it is packed: if it fits its source, it must fit it with the new time, too."""
    data = entry.path.read_bytes()
    if len(data) != entry.size_bytes:
        raise _changed(entry)
    if len(data) < _PYC_HEADER_BYTES:
        return data
    flags, mtime, size = struct.unpack_from("<III", data, 4)
    source = entry.path.parent.parent / f"{entry.path.name.split('.')[0]}.py"
    try:
        about = source.stat()
    except OSError:
        return data
    if flags or (mtime, size) != (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF):
        return data
    return data[:8] + struct.pack("<I", _MTIME) + data[12:]


def _changed(entry: Entry) -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"{entry.path} changed while it was packed",
        hint="run the command again, with nothing else writing there",
    )


class _Hashing:
    """Hands on what is written, and knows its digest."""

    def __init__(self, target: _Writer) -> None:
        self._write = target.write
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._write(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing is held back here."""
