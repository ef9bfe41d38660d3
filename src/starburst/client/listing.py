"""The sessions of a store."""

from __future__ import annotations

import asyncio
import logging

from starburst.client.engine import engine
from starburst.client.places import usual_places
from starburst.client.status import SessionSummary, read_status, summary_of
from starburst.clock import SystemClock
from starburst.errors import NotSetUp, StarburstError, StoreError
from starburst.protocol.keys import session_url
from starburst.protocol.sessions import list_session_ids, read_manifest
from starburst.store.base import Store

__all__ = ["SessionSummary", "list_sessions"]

log = logging.getLogger(__name__)
_AT_ONCE = 8


def list_sessions(store: str | None = None, region: str | None = None) -> list[SessionSummary]:
    """The sessions of a store, or of all usual ones, oldest first.

    Args:
        store: The store's URL; None means the planned or configured one and the buckets of all regions in which
            ``starburst setup`` has run.
        region: Only those in the bucket of this region.

    Returns:
        One summary a session; sessions whose manifest cannot be read are left out.

    Raises:
        StoreError: The store cannot be read.
        NotSetUp: It is the bucket of a set-up, and gone.
    """
    found: list[SessionSummary] = []
    for i, place in enumerate(usual_places(store, region)):
        try:
            with place.known():
                found += engine.run(_list(place.open()))
        except (StoreError, NotSetUp) as error:
            if i == 0:
                raise
            log.warning("sessions in %s are not listed: %s", place.url, error)
    return sorted(found, key=lambda row: row.created_at)


async def _list(store: Store) -> list[SessionSummary]:
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
    return [row for row in found if row is not None]
