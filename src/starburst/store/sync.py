"""A blocking face over a store, for code that is not async."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from starburst.store.base import Body, ObjectInfo, PollPolicy, RequestCounts, Store

__all__ = ["SyncStore"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_loop_pid = 0


class SyncStore:
    """The methods of :class:`Store`, each waiting until it is done; usable from any thread.

    All of them run on one private event loop in a daemon thread, so a running loop (a notebook's) is no
    hindrance.

    Args:
        store: What does the work; :attr:`store` afterwards.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def url(self) -> str:
        """The store's address."""
        return self.store.url

    @property
    def counts(self) -> RequestCounts:
        """Requests so far."""
        return self.store.counts

    @property
    def poll(self) -> PollPolicy:
        """How often it is worth asking."""
        return self.store.poll

    @property
    def compresses(self) -> bool:
        """Whether compressing large bodies pays."""
        return self.store.compresses

    def create(self, key: str, body: Body) -> bool:
        """See :meth:`Store.create`."""
        return _run(self.store.create(key, body))

    def overwrite(self, key: str, body: Body) -> None:
        """See :meth:`Store.overwrite`."""
        _run(self.store.overwrite(key, body))

    def get(self, key: str) -> memoryview:
        """See :meth:`Store.get`."""
        return _run(self.store.get(key))

    def get_range(self, key: str, start: int, length: int) -> memoryview:
        """See :meth:`Store.get_range`."""
        return _run(self.store.get_range(key, start, length))

    def list_folders(self, prefix: str) -> list[str]:
        """See :meth:`Store.list_folders`."""
        return _run(self.store.list_folders(prefix))

    def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        """See :meth:`Store.list`."""
        return _run(self.store.list(prefix, start_after=start_after))

    def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Store.delete`."""
        _run(self.store.delete(keys))

    def local_path(self, key: str) -> Path | None:
        """See :meth:`Store.local_path`."""
        return self.store.local_path(key)


def _run(work: Coroutine[Any, Any, T]) -> T:
    future = asyncio.run_coroutine_threadsafe(work, _private_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C ends the request too; of no effect if it is over
        raise


def _private_loop() -> asyncio.AbstractEventLoop:
    global _loop, _loop_pid  # one loop per process; a fork has no thread, so it gets its own
    with _lock:
        if _loop is None or _loop_pid != os.getpid():
            _loop, _loop_pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_loop.run_forever, name="starburst-store", daemon=True).start()
        return _loop
