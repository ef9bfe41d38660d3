"""Large objects on a worker: fetched once, then mapped by all its runners."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from starburst.protocol.keys import Keys
from starburst.store.base import Store

__all__ = ["ObjectCache"]


class ObjectCache:
    """Files of large objects.

    A store that is a folder of this machine is read in place; from any other an object is copied once.

    Args:
        store: The session's store.
        keys: The session's keys.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._locks: dict[str, asyncio.Lock] = {}

    async def locate(self, sha256: str) -> str:
        """The file that holds an object, as the pack that is in the store.

        Raises:
            StoreError: It is not there or cannot be fetched.
        """
        key = self._keys.object(sha256)
        there = self._store.local_path(key)
        if there is not None:
            return str(there)
        async with self._locks.setdefault(sha256, asyncio.Lock()):
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="starburst-objects-")
            path = Path(self._folder.name) / sha256
            if not path.exists():
                data = await self._store.get(key)
                part = path.with_suffix(".part")
                await asyncio.to_thread(part.write_bytes, data)
                part.rename(path)
        return str(path)

    def close(self) -> None:
        """Remove the copies."""
        if self._folder is not None:
            self._folder.cleanup()
