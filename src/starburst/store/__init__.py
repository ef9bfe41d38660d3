"""One interface over the places where objects are kept: a folder, memory, S3."""

from __future__ import annotations

from starburst.store.base import Body, Buffer, ObjectInfo, PollPolicy, RequestCounts, Store
from starburst.store.sync import SyncStore
from starburst.store.url import open_store

__all__ = [
    "Body",
    "Buffer",
    "ObjectInfo",
    "PollPolicy",
    "RequestCounts",
    "Store",
    "SyncStore",
    "open_store",
]
