"""Addresses of stores: ``file:///path``, ``memory://name``, ``s3://bucket[/prefix]``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from starburst.clock import Clock, SystemClock
from starburst.config import load_settings
from starburst.errors import InvalidStoreURL
from starburst.store.folder import FolderStore
from starburst.store.memory import MemoryStore

if TYPE_CHECKING:
    from starburst.store.base import Store

__all__ = ["open_store"]

_KINDS = "use file:///absolute/path or s3://bucket/prefix"


def open_store(
    url: str, *, clock: Clock | None = None, profile: str | None = None, region: str | None = None
) -> Store:
    """Open the store at an address.

    Args:
        url: ``file:///path`` (the folder is made), ``memory://name`` or ``s3://bucket[/prefix]``.
        clock: What retries wait on; the machine's clock if None.
        profile: For S3, the AWS profile whose credentials are used; the one in the settings if None.
        region: For S3, the bucket's region; the one in the settings, the environment or the profile if None.

    Raises:
        InvalidStoreURL: The address is malformed or of an unknown kind, or its folder cannot be written.
        AccessDenied: There are no credentials for S3.
        StoreError: S3 needs an extra that is not installed.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise InvalidStoreURL(
            f"{url!r} is not the address of a store: it has no scheme",
            hint=f"for a folder use {Path(os.path.abspath(url)).as_uri()}",  # noqa: PTH100
        )
    if scheme == "file":
        return FolderStore(_folder_of(url))
    if scheme == "memory":
        return MemoryStore(_memory_name_of(url))
    if scheme == "s3":
        from starburst.store.s3_open import open_s3  # obstore is loaded for S3 only

        settings = load_settings()
        return open_s3(
            url,
            clock=clock or SystemClock(),
            profile=profile or settings.profile,
            region=region or settings.region,
        )
    raise InvalidStoreURL(f"{url!r} is of an unknown kind: {scheme}://", hint=_KINDS)


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"}:
        raise InvalidStoreURL(
            f"{url!r} names the machine {parts.netloc!r}: a folder's address has three slashes", hint=_KINDS
        )
    if parts.query or parts.fragment or not path or "\0" in path:
        raise InvalidStoreURL(
            f"{url!r} is not the address of a folder", hint="write ? as %3F and # as %23 in a file:// address"
        )
    return Path(os.path.normpath(path))


def _memory_name_of(url: str) -> str:
    name = url.removeprefix("memory://").rstrip("/")
    if "/" in name:
        raise InvalidStoreURL(f"{url!r} has a path: a store in memory has a name only", hint="memory://name")
    return name
