"""Code layers on a worker: fetched and unpacked once, then on the module path of its runners."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from starburst.errors import CorruptObject, StoreError, StoreFull
from starburst.protocol.keys import Keys
from starburst.protocol.pack import decode_pack
from starburst.protocol.records import CodeHeader
from starburst.store.base import Store

__all__ = ["CodeLayers", "unpack"]


class CodeLayers:
    """The folders of code layers.

    Args:
        store: The session's store.
        keys: The session's keys.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._found: dict[str, tuple[str, ...]] = {}
        self._lock = asyncio.Lock()

    async def folders(self, sha256: str) -> tuple[str, ...]:
        """The folders from which a layer's modules are imported, in order.

        Raises:
            StoreError: It is not there, cannot be fetched, is damaged, or there is no room for it.
        """
        async with self._lock:
            if sha256 not in self._found:
                key = self._keys.code(sha256)
                data = await self._store.get(key)
                if self._folder is None:
                    self._folder = tempfile.TemporaryDirectory(prefix="starburst-code-")
                place = Path(self._folder.name) / sha256[:16]
                self._found[sha256] = await asyncio.to_thread(_unpack_pack, data, key, sha256, place)
            return self._found[sha256]

    def close(self) -> None:
        """Remove what was unpacked."""
        if self._folder is not None:
            self._folder.cleanup()


def _unpack_pack(data: memoryview, key: str, sha256: str, place: Path) -> tuple[str, ...]:
    pack = decode_pack(data, key)
    header = pack.record(CodeHeader)
    body = pack.frame(0)
    if hashlib.sha256(body).hexdigest() != sha256:
        raise _damaged(key, "its content is not that of its name")
    try:
        unpack(body, place, key=key)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise StoreFull(
            f"the code of this program cannot be unpacked to {place}: {error.strerror}",
            hint="the worker's disk is full or cannot be written",
        ) from error
    return tuple(str(place / root) for root in header.roots)


def unpack(body: bytes | bytearray | memoryview, place: Path, *, key: str) -> None:
    """Unpack a layer's archive into a new folder.

    Only plain files whose names lie within the folder are believed: a layer holds nothing else, and whoever can write
    into the bucket shall not write elsewhere on the worker by it.

    Args:
        body: The tar archive.
        place: The folder.
        key: For messages.

    Raises:
        CorruptObject: It holds anything else, or is cut off.
        OSError: There is no room.
    """
    place.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not member.isreg() or not parts or parts[0] == "/" or ".." in parts or "\0" in member.name:
                    raise _damaged(key, f"it holds {member.name!r}, which is no plain file within it")
                file = place.joinpath(*parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None
                with file.open("xb") as target:
                    shutil.copyfileobj(source, target)
                file.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, FileExistsError, NotADirectoryError) as error:
        raise _damaged(key, str(error)) from error


def _damaged(key: str, why: str) -> StoreError:
    return CorruptObject(
        f"the code layer {key} is damaged: {why}",
        hint="nothing of it was used; submit again from a new session",
    )
