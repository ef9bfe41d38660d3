"""Sessions that are open though nobody is at work on them: their program was killed or interrupted."""

from __future__ import annotations

import msgspec

from starburst.errors import ObjectNotFound
from starburst.protocol.keys import Keys
from starburst.protocol.records import Manifest
from starburst.store.base import Store
from starburst.supervisor.leader import Identity, LeaderBeat, latest_term

__all__ = ["SILENT_S", "is_abandoned"]

SILENT_S = 900.0
"""So long nobody has written anything: longer than a supervisor's container takes to start, or clocks differ."""


async def is_abandoned(store: Store, manifest: Manifest, *, last_sign_at: float, now: float) -> bool:
    """Whether nobody supervises an open session in which no worker lives.

    That is certain if its last supervisor has resigned, or was a process of this machine that is gone; else it has to
    be silent for a quarter of an hour.

    Args:
        store: The session's store.
        manifest: Its manifest.
        last_sign_at: When anything was last written, as far as is known: events, submissions, heartbeats.
        now: Seconds since 1970.

    Raises:
        StoreError: The store cannot be read.
    """
    keys = Keys(manifest.session_id)
    standing = await latest_term(store, keys)
    if standing is None:
        return now - last_sign_at >= SILENT_S
    if standing.is_gone(Identity(detached=False)):
        return True
    beat_at = await _last_beat_at(store, keys.leader_beat(standing.term))
    began_at = standing.leader.at if standing.leader is not None else 0.0
    return now - max(last_sign_at, began_at, beat_at) >= SILENT_S


async def _last_beat_at(store: Store, key: str) -> float:
    try:
        return msgspec.json.decode(await store.get(key), type=LeaderBeat).at
    except (ObjectNotFound, msgspec.MsgspecError):
        return 0.0
