"""Objects in an S3 bucket, through obstore. Each method tries once: :class:`RetryingStore` goes around it.

obstore's blocking functions are called in threads of ours. Its coroutines resume on threads of its own, which
abort the process if the interpreter ends at that moment: one short-lived worker in ten would die with SIGABRT.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError

from starburst.errors import StoreError
from starburst.store.base import Body, ObjectInfo, PollPolicy, RequestCounts
from starburst.store.body import as_views, size_of
from starburst.store.errors import http_status, mapped
from starburst.store.keys import check_key, split_prefix

if TYPE_CHECKING:
    from obstore.store import S3Store as Bucket

__all__ = ["Connect", "S3Store"]

T = TypeVar("T")

Connect = Callable[[float | None], "Bucket"]
"""Makes obstore's client, without retries: with so many seconds for a whole request, or without a limit but
that no read may stall."""

_PAGE = 1000
_THREADS = 32
_SLOWEST_BYTES_PER_S = 200_000
"""An upload slower than this counts as stalled."""


class S3Store:
    """A :class:`~starburst.store.base.Store` in a bucket.

    Args:
        connect: Makes a client for the bucket.
        url: The store's address.
        prefix: What all keys in the bucket begin with: empty, or ending in a slash.
        timeout_s: How long an answer may take; uploads of large bodies get more by their size.
    """

    def __init__(self, connect: Connect, *, url: str, prefix: str, timeout_s: float) -> None:
        self._bucket = connect(None)
        self._bucket_for = cache(connect)
        self._prefix = prefix
        self._timeout_s = timeout_s
        self.url = url
        self.counts = RequestCounts()
        self.poll = PollPolicy(0.1, 2.0)
        self.compresses = True

    async def create(self, key: str, body: Body) -> bool:
        """See :meth:`Store.create`; a conflict that S3 left undecided (409) raises ``CreateConflict``."""
        with mapped("create", key, self.url):
            try:
                await self._put(key, body, mode="create")
            except AlreadyExistsError as error:
                if http_status(error) == 409:
                    raise
                return False
        return True

    async def overwrite(self, key: str, body: Body) -> None:
        """See :meth:`Store.overwrite`."""
        with mapped("overwrite", key, self.url):
            await self._put(key, body, mode="overwrite")

    async def get(self, key: str) -> memoryview:
        """See :meth:`Store.get`."""
        path = self._path(key)
        self.counts.get += 1
        with mapped("get", key, self.url):
            view = memoryview(await _in_thread(lambda: obstore.get(self._bucket, path).bytes()))
        self.counts.bytes_in += view.nbytes
        return view

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        """See :meth:`Store.get_range`."""
        path = self._path(key)
        self.counts.get += 1
        with mapped("get", key, self.url):
            try:
                data = await _in_thread(
                    lambda: obstore.get_range(self._bucket, path, start=start, length=length)
                )
            except GenericError as error:
                if http_status(error) == 416:  # it begins after the object's end
                    return memoryview(b"")
                raise
        view = memoryview(data)
        self.counts.bytes_in += view.nbytes
        return view

    async def list_folders(self, prefix: str) -> list[str]:
        """See :meth:`Store.list_folders`."""
        folder, start = split_prefix(prefix)
        self.counts.list += 1
        with mapped("list", prefix, self.url):
            found = await _in_thread(lambda: obstore.list_with_delimiter(self._bucket, self._prefix + folder))
        folders = found["common_prefixes"]
        self.counts.list += max(0, len(folders) + len(found["objects"]) - 1) // _PAGE
        names = (path.rstrip("/").rpartition("/")[2] for path in folders)
        return sorted(name for name in names if name.startswith(start))

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        """See :meth:`Store.list`."""
        split_prefix(prefix)
        with mapped("list", prefix, self.url):
            return await _in_thread(lambda: sorted(self._rows(prefix, start_after or "")))

    async def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Store.delete`."""
        paths = [self._path(key) for key in keys]
        for at in range(0, len(paths), _PAGE):
            page = paths[at : at + _PAGE]
            self.counts.delete += 1
            with mapped("delete", keys[at], self.url):
                await _in_thread(partial(obstore.delete, self._bucket, page))

    def local_path(self, key: str) -> None:
        """None: nothing here is a file of this machine."""
        del key

    def _path(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _put(self, key: str, body: Body, *, mode: Any) -> None:
        path = self._path(key)
        views = as_views(body)
        size_bytes = size_of(views)
        bucket = self._bucket
        if size_bytes > self._timeout_s * _SLOWEST_BYTES_PER_S:
            bucket = self._bucket_for(_upload_timeout_s(self._timeout_s, size_bytes))
        data = views[0] if len(views) == 1 else (views or b"")
        self.counts.put += 1
        self.counts.bytes_out += size_bytes
        # One PUT, never a multipart upload: that could not be conditional.
        await _in_thread(lambda: obstore.put(bucket, path, data, mode=mode, use_multipart=False))

    def _rows(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Rows of a listing, page by page.

        obstore lists whole folders only, so the beginning of a name is sought: the listing starts just before
        it and ends with the first page that goes beyond.
        """
        folder, start = split_prefix(prefix)
        first = max(after, _just_before(prefix)) if start else after
        offset = self._prefix + first if first else None
        pages = obstore.list(self._bucket, self._prefix + folder, offset=offset, chunk_size=_PAGE)
        while True:
            self.counts.list += 1
            page = next(pages, [])
            key = ""
            for row in page:
                key = row["path"][len(self._prefix) :]
                if key.startswith(prefix) and key > after:
                    yield ObjectInfo(key, row["size"], f"{row['e_tag']}@{row['last_modified'].timestamp()}")
            if len(page) < _PAGE or (key > prefix and not key.startswith(prefix)):
                return


def _just_before(prefix: str) -> str:
    """A key that sorts before all that begin with ``prefix``, with little in between."""
    return prefix[:-1] + chr(ord(prefix[-1]) - 1) + "~"


def _upload_timeout_s(timeout_s: float, size_bytes: int) -> float:
    """Enough for the size; in steps, so that few clients are made."""
    while size_bytes > timeout_s * _SLOWEST_BYTES_PER_S:
        timeout_s *= 10
    return timeout_s


@cache
def _threads() -> tuple[int, ThreadPoolExecutor]:
    return os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="starburst-s3")


async def _in_thread(request: Callable[[], T]) -> T:
    owner, threads = _threads()
    if owner != os.getpid():  # neither these threads nor obstore's live on in a fork: it would wait for ever
        raise StoreError(
            "S3 cannot be used in a process that was forked from one that used it",
            hint='start processes afresh: multiprocessing.get_context("spawn")',
        )
    return await asyncio.get_running_loop().run_in_executor(threads, request)
