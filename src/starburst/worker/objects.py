"""Large objects in a runner: mapped from a file, a fresh private copy for each task that asks."""

from __future__ import annotations

import io
import mmap
import os
import pickle
from collections.abc import Callable
from typing import Any

from starburst.protocol.pack import decode_pack

__all__ = ["ObjectFiles"]


class ObjectFiles:
    """Loads large objects by content hash.

    Each load maps the file anew, copy-on-write: a task may change what it was given, as it may in
    ``concurrent.futures``, without another task seeing it; memory that is only read is shared by all runners.

    Args:
        locate: Gives the file of an object, fetching it if it must; called once for each.
    """

    def __init__(self, locate: Callable[[str], str]) -> None:
        self._locate = locate
        self._paths: dict[str, str] = {}
        self._checked: set[str] = set()

    def load(self, sha256: str) -> Any:
        """The object.

        Raises:
            CorruptObject: Its file is damaged.
        """
        path = self._paths.get(sha256)
        if path is None:
            path = self._paths[sha256] = self._locate(sha256)
        fd = os.open(path, os.O_RDONLY)
        try:
            size_bytes = os.fstat(fd).st_size
            view = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY) if size_bytes else b"")
        finally:
            os.close(fd)
        pack = decode_pack(view, f"objects/{sha256}")
        if sha256 not in self._checked:
            for i in range(len(pack)):
                pack.frame(i)
            self._checked.add(sha256)
        spans = [(f.offset, f.offset + f.stored_bytes) for f in pack.index.frames]
        if any(f.codec for f in pack.index.frames):
            frames = [bytearray(pack.frame(i)) for i in range(len(pack))]
            return pickle.loads(frames[0], buffers=frames[1:])
        head, *buffers = [view[start:end] for start, end in spans]
        return pickle.Unpickler(io.BytesIO(head), buffers=buffers).load()
