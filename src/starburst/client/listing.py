"""The sessions of a store."""

from __future__ import annotations

import asyncio

from starburst.client.engine import engine
from starburst.client.plan import store_url
from starburst.client.status import SessionSummary, read_status, summary_of
from starburst.clock import SystemClock
from starburst.errors import StarburstError
from starburst.protocol.keys import session_url
from starburst.protocol.sessions import list_session_ids, read_manifest
from starburst.store import open_store

__all__ = ["SessionSummary", "list_sessions"]

_AT_ONCE = 8


def list_sessions(store: str | None = None) -> list[SessionSummary]:
    """The sessions of a store, oldest first.

    Args:
        store: The store's URL; None means the planned or configured one.

    Returns:
        One summary a session; sessions whose manifest cannot be read are left out.

    Raises:
        StoreError: The store cannot be read.
    """
    return engine.run(_list(store_url(store)))


async def _list(url: str) -> list[SessionSummary]:
    store = open_store(url)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def read(session_id: str) -> SessionSummary | None:
        async with gate:
            try:
                manifest = await read_manifest(store, session_id)
                status = await read_status(store, manifest, SystemClock())
            except StarburstError:
                return None
            return summary_of(status, session_url(store.url, session_id))

    found = await asyncio.gather(*map(read, await list_session_ids(store)))
    return sorted((row for row in found if row is not None), key=lambda row: row.created_at)
