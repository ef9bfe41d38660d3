"""Trying again, with the one rule that matters: a create whose reply was lost is read back.

Any store may be wrapped: S3 is, and so is a faulty store in memory, which is how the rule is tested.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from starburst.clock import Clock, Deadline, backoff_s
from starburst.errors import ObjectNotFound, StoreFull, StoreUnavailable
from starburst.store.body import as_views, same_bytes
from starburst.store.errors import CreateConflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from starburst.store.base import Body, ObjectInfo, Store

__all__ = ["RetryingStore"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class RetryingStore:
    """A :class:`~starburst.store.base.Store` that asks another one again while that is unavailable.

    Args:
        store: The store whose methods try once.
        clock: What the pauses wait on.
        max_tries: Tries of one request, the first included.
        max_total_s: No new try is begun after this time.
        full_too: Wait, too, for a full store to be given room.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        max_tries: int = 8,
        max_total_s: float = 60.0,
        full_too: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_tries = max_tries
        self._max_total_s = max_total_s
        self._passing = (StoreUnavailable, StoreFull) if full_too else (StoreUnavailable,)
        self.url = store.url
        self.counts = store.counts  # the same object: each try is one request
        self.poll = store.poll
        self.compresses = store.compresses

    async def create(self, key: str, body: Body) -> bool:
        """See :meth:`Store.create`.

        "Already there" at the first try, or after tries that surely wrote nothing, is final. After a try that
        may have written, what stands there is compared with our body.
        """
        may_be_ours = False

        async def once() -> bool:
            nonlocal may_be_ours
            try:
                if await self._store.create(key, body):
                    return True
            except CreateConflict:
                raise
            except StoreUnavailable:
                may_be_ours = True
                raise
            return may_be_ours and await self._is_ours(key, body)

        return await self._again(once)

    async def overwrite(self, key: str, body: Body) -> None:
        """See :meth:`Store.overwrite`."""
        await self._again(lambda: self._store.overwrite(key, body))

    async def get(self, key: str) -> memoryview:
        """See :meth:`Store.get`."""
        return await self._again(lambda: self._store.get(key))

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        """See :meth:`Store.get_range`."""
        return await self._again(lambda: self._store.get_range(key, start, length))

    async def list_folders(self, prefix: str) -> list[str]:
        """See :meth:`Store.list_folders`."""
        return await self._again(lambda: self._store.list_folders(prefix))

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        """See :meth:`Store.list`."""
        return await self._again(lambda: self._store.list(prefix, start_after=start_after))

    async def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Store.delete`."""
        await self._again(lambda: self._store.delete(keys))

    def local_path(self, key: str) -> Path | None:
        """See :meth:`Store.local_path`."""
        return self._store.local_path(key)

    async def _is_ours(self, key: str, body: Body) -> bool:
        try:
            found = await self._store.get(key)
        except ObjectNotFound as error:
            raise StoreUnavailable(
                f"{key!r} in {self.url} was there and is gone: whether our write won is not known"
            ) from error
        return same_bytes(found, as_views(body))

    async def _again(self, request: Callable[[], Awaitable[T]]) -> T:
        deadline = Deadline(self._clock, self._max_total_s)
        attempt = 0
        while True:
            try:
                return await request()
            except self._passing as error:
                if isinstance(error, StoreFull) and attempt == 0:
                    log.warning("waiting for room: %s", error.message)
                pause_s = backoff_s(attempt)
                attempt += 1
                if attempt >= self._max_tries or pause_s >= deadline.remaining_s():
                    raise
            self.counts.retries += 1
            await self._clock.sleep(pause_s)
