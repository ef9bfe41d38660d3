"""What a store is: create, overwrite, get, list, delete; nothing else is needed anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Body", "Buffer", "ObjectInfo", "PollPolicy", "RequestCounts", "Store"]

Buffer = bytes | bytearray | memoryview
Body = Buffer | Sequence[Buffer]
"""What is written: one buffer, or several that are written one after the other (no copy is made here)."""


class ObjectInfo(NamedTuple):
    """One row of a listing."""

    key: str
    size_bytes: int
    version: str
    """Changes whenever the object is overwritten (from its modification time, size and ETag)."""


class PollPolicy(NamedTuple):
    """How often it is worth asking this store for news: seconds, growing from ``min_s`` to ``max_s``."""

    min_s: float
    max_s: float


@dataclass(slots=True)
class RequestCounts:
    """Requests by kind, as S3 would bill them."""

    put: int = 0
    get: int = 0
    list: int = 0
    delete: int = 0
    bytes_in: int = 0
    """Received from the store."""
    bytes_out: int = 0
    """Sent to it."""
    retries: int = field(default=0)

    @property
    def total(self) -> int:
        """All requests, DELETEs (which are free on S3) included."""
        return self.put + self.get + self.list + self.delete

    def s3_usd(self) -> float:
        """What these requests cost on S3 standard storage, us-east-1: $5 a million PUT or LIST, $0.4 GET.

        Source: Amazon S3 pricing page, "Requests & data retrievals", read 2026.
        """
        return (self.put + self.list) * 5e-6 + self.get * 0.4e-6

    def __add__(self, other: RequestCounts) -> RequestCounts:
        return RequestCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class Store(Protocol):
    """One place for objects, named by URL. All methods are coroutines; :class:`SyncStore` wraps them.

    Keys are relative to the URL, parts separated by ``/``, without a leading one. Only two verbs write:
    :meth:`create` for what is written once and :meth:`overwrite` for what one owner keeps up to date.
    """

    url: str
    counts: RequestCounts
    poll: PollPolicy
    compresses: bool
    """Whether compressing large bodies pays: true over a network, false in a folder or in memory."""

    async def create(self, key: str, body: Body) -> bool:
        """Write an object that must not exist yet.

        Exactly one of several racing writers gets True. A create whose reply was lost is read back: if
        what stands there is our own body it counts as ours, so bodies carry a unique id where that matters.

        Args:
            key: Where.
            body: What.

        Returns:
            True if the object is ours now, False if another one stood there already.

        Raises:
            StoreError: The store refused, is full, or did not answer.
        """
        ...

    async def overwrite(self, key: str, body: Body) -> None:
        """Write an object, whatever stood there; only its owner may do so."""
        ...

    async def get(self, key: str) -> memoryview:
        """The whole object.

        Raises:
            ObjectNotFound: There is none.
        """
        ...

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        """``length`` bytes from ``start``; fewer if the object ends before.

        Raises:
            ObjectNotFound: There is none.
        """
        ...

    async def list_folders(self, prefix: str) -> list[str]:
        """Names (last part only, sorted) of the folders directly below ``prefix``, which ends in ``/``."""
        ...

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        """All objects whose key begins with ``prefix``, sorted by key; every page is fetched.

        Args:
            prefix: A whole folder, ending in ``/``, or a folder and the beginning of a name in it.
            start_after: Leave out keys up to and including this one.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there do not matter. 1,000 keys are one request on S3."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file that holds the object if this store is a folder on this machine, for memory-mapping."""
        ...
