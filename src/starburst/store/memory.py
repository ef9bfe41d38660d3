"""Objects in this process's memory: ``memory://name``, for tests and simulations."""

from __future__ import annotations

import threading
import uuid
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from starburst.errors import ObjectNotFound
from starburst.store.base import Body, ObjectInfo, PollPolicy, RequestCounts
from starburst.store.body import as_views
from starburst.store.keys import check_key, split_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["MemoryStore"]

_PAGE = 1000


class _Objects:
    """What all stores of one name share: bodies by key, and the keys in order."""

    __slots__ = ("bodies", "keys", "lock", "writes")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bodies: dict[str, tuple[bytes, int]] = {}
        self.keys: list[str] = []
        self.writes = 0

    def put(self, key: str, body: bytes) -> None:
        if key not in self.bodies:
            insort(self.keys, key)
        self.writes += 1
        self.bodies[key] = (body, self.writes)


_named: dict[str, _Objects] = {}
_named_lock = threading.Lock()


class MemoryStore:
    """A :class:`~starburst.store.base.Store` in memory; it never suspends, so simulations stay deterministic.

    Args:
        name: Stores of one name in one process hold the same objects; without a name the store is new.
    """

    def __init__(self, name: str = "") -> None:
        name = name or uuid.uuid4().hex
        with _named_lock:
            self._objects = _named.setdefault(name, _Objects())
        self.url = f"memory://{name}"
        self.counts = RequestCounts()
        self.poll = PollPolicy(0.001, 0.05)
        self.compresses = False

    async def create(self, key: str, body: Body) -> bool:
        """See :meth:`Store.create`."""
        data = self._sent(key, body)
        with self._objects.lock:
            if key in self._objects.bodies:
                return False
            self._objects.put(key, data)
        return True

    async def overwrite(self, key: str, body: Body) -> None:
        """See :meth:`Store.overwrite`."""
        data = self._sent(key, body)
        with self._objects.lock:
            self._objects.put(key, data)

    async def get(self, key: str) -> memoryview:
        """See :meth:`Store.get`."""
        return self._received(key, 0, None)

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        """See :meth:`Store.get_range`."""
        return self._received(key, start, start + length)

    async def list_folders(self, prefix: str) -> list[str]:
        """See :meth:`Store.list_folders`."""
        split_prefix(prefix)
        names: list[str] = []
        with self._objects.lock:
            keys = self._objects.keys
            at = bisect_left(keys, prefix)
            while at < len(keys) and keys[at].startswith(prefix):
                name, slash, _ = keys[at][len(prefix) :].partition("/")
                if slash:
                    names.append(name)
                    at = bisect_left(keys, f"{prefix}{name}0")  # "0" comes right after "/"
                else:
                    at += 1
        self.counts.list += 1 + max(0, len(names) - 1) // _PAGE
        return sorted(names)

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        """See :meth:`Store.list`."""
        split_prefix(prefix)
        with self._objects.lock:
            keys, bodies = self._objects.keys, self._objects.bodies
            at = bisect_left(keys, prefix)
            if start_after is not None:
                at = max(at, bisect_right(keys, start_after))
            rows = []
            while at < len(keys) and keys[at].startswith(prefix):
                body, version = bodies[keys[at]]
                rows.append(ObjectInfo(keys[at], len(body), str(version)))
                at += 1
        self.counts.list += 1 + max(0, len(rows) - 1) // _PAGE
        return rows

    async def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Store.delete`."""
        with self._objects.lock:
            for key in keys:
                if self._objects.bodies.pop(check_key(key), None) is not None:
                    del self._objects.keys[bisect_left(self._objects.keys, key)]
        self.counts.delete += -(-len(keys) // _PAGE)

    def local_path(self, key: str) -> Path | None:
        """None: nothing here is a file."""
        del key
        return None

    def _sent(self, key: str, body: Body) -> bytes:
        data = body if isinstance(body, bytes) else b"".join(as_views(body))
        check_key(key)
        self.counts.put += 1
        self.counts.bytes_out += len(data)
        return data

    def _received(self, key: str, start: int, end: int | None) -> memoryview:
        check_key(key)
        self.counts.get += 1
        try:
            view = memoryview(self._objects.bodies[key][0])[start:end]
        except KeyError:
            raise ObjectNotFound(f"there is no object {key!r} in {self.url}") from None
        self.counts.bytes_in += view.nbytes
        return view
