"""Reading and writing what a session consists of, besides claims and results."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from starburst.clock import Clock
from starburst.errors import (
    AccessDenied,
    CorruptObject,
    IncompatibleVersion,
    ObjectNotFound,
    SessionNotFound,
    StoreUnavailable,
)
from starburst.protocol.keys import DoneMark, Keys
from starburst.protocol.pack import Pack, PackIndex, decode_pack, encode_pack
from starburst.protocol.records import (
    BatchHeader,
    Event,
    Heartbeat,
    Manifest,
    decode_json,
    encode_json,
)
from starburst.protocol.results import read_index
from starburst.store.base import Body, ObjectInfo, Store

__all__ = [
    "EventLog",
    "append_event",
    "create_session",
    "delete_session",
    "list_batches",
    "list_session_ids",
    "publish_batch",
    "publish_parts",
    "read_batch",
    "read_done",
    "read_heartbeat",
    "read_heartbeats",
    "read_manifest",
]

log = logging.getLogger(__name__)

_WHOLE_BATCH_UP_TO_BYTES = 4 * 2**20
_MAX_RACES = 10_000
_EVENTS_AT_ONCE = 16


async def create_session(store: Store, manifest: Manifest) -> bool:
    """Write the manifest; False if a session of that id exists already."""
    return await store.create(Keys(manifest.session_id).manifest, encode_json(manifest))


async def read_manifest(store: Store, session_id: str) -> Manifest:
    """The manifest of a session.

    Raises:
        SessionNotFound: There is none; the message lists ids that look like it.
    """
    keys = Keys(session_id)
    try:
        return decode_json(Manifest, await store.get(keys.manifest), keys.manifest)
    except ObjectNotFound:
        ids = await list_session_ids(store)
    near = difflib.get_close_matches(session_id, ids, n=3, cutoff=0.5)
    near = near or [known for known in ids if session_id in known][:3]
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    raise SessionNotFound(
        f"there is no session {session_id!r} in {store.url}",
        hint=f"{guess}`starburst sessions` lists the {len(ids)} there are; another store is named with --store",
    )


async def list_session_ids(store: Store) -> list[str]:
    """The ids of all sessions in the store, sorted."""
    return await store.list_folders("sessions/")


async def publish_batch(
    store: Store, keys: Keys, body_of: Callable[[int], Body], *, next_seq: int = 1
) -> int:
    """Write one submission under the next free number.

    Args:
        store: Where.
        keys: The session's keys.
        body_of: Makes the object for a number.
        next_seq: A guess; wrong guesses cost a request each.

    Returns:
        The number that it got.
    """
    seq = next_seq
    for _ in range(_MAX_RACES):
        if await store.create(keys.batch(seq), body_of(seq)):
            return seq
        listed = await store.list(keys.batches, start_after=keys.batch(seq))
        seq = int(listed[-1].key.rsplit("/", 1)[1]) + 1 if listed else seq + 1
    raise StoreUnavailable(f"no free number for a submission in {keys.batches} after {_MAX_RACES} tries")


async def list_batches(store: Store, keys: Keys, *, after: int) -> list[tuple[int, ObjectInfo]]:
    """Submissions and shares behind number ``after``, in order.

    Numbers have no gaps, but a folder's listing may show one before the one below it; what comes behind a gap is
    left for the next time.
    """
    found: list[tuple[int, ObjectInfo]] = []
    for info in await store.list(keys.batches, start_after=keys.batch(after)):
        seq = int(info.key.rsplit("/", 1)[1])
        if seq != after + len(found) + 1:
            break
        found.append((seq, info))
    return found


async def read_batch(store: Store, info: ObjectInfo) -> tuple[BatchHeader, PackIndex | Pack]:
    """One submission: all of it if it is small, only its index if not.

    Raises:
        CorruptObject: It is damaged.
    """
    if info.size_bytes <= _WHOLE_BATCH_UP_TO_BYTES:
        pack = decode_pack(await store.get(info.key), info.key)
        return pack.record(BatchHeader), pack
    index = await read_index(store, info.key)
    return index.record(BatchHeader), index


async def read_done(store: Store, keys: Keys, batch: int | None = None) -> list[DoneMark]:
    """The markers of finished chunks, of one batch or of all."""
    return [keys.parse_done(info.key) for info in await store.list(keys.done_marks(batch))]


async def read_heartbeat(store: Store, keys: Keys, worker: str) -> Heartbeat | None:
    """A worker's last sign of life, or None if there is none or it cannot be read."""
    import msgspec

    try:
        return msgspec.json.decode(await store.get(keys.worker(worker)), type=Heartbeat)
    except (ObjectNotFound, msgspec.MsgspecError):
        return None


async def read_heartbeats(store: Store, keys: Keys) -> list[Heartbeat]:
    """The last sign of life of every worker that ever was, sorted by name."""
    listed = await store.list(keys.workers)
    names = [info.key.rsplit("/", 1)[1] for info in listed]
    found = await asyncio.gather(*(read_heartbeat(store, keys, name) for name in names))
    return [beat for beat in found if beat is not None]


async def publish_parts(
    store: Store, keys: Keys, batch: int, parts: Sequence[tuple[int, int]], *, at: float, next_seq: int = 1
) -> int:
    """Announce chunks (first task, end) that were split off chunks of ``batch``; twice does no harm.

    Returns:
        The number of the share.
    """
    header = BatchHeader(
        n_tasks=sum(end - first for first, end in parts),
        firsts=tuple(first for first, _ in parts),
        counts=tuple(end - first for first, end in parts),
        source=batch,
        at=at,
    )
    body = encode_pack(header, [])
    return await publish_batch(store, keys, lambda _: body, next_seq=next_seq)


async def append_event(
    store: Store, keys: Keys, clock: Clock, what: str, *, by: str = "", data: dict[str, Any] | None = None
) -> None:
    """Record that something happened, after everything that is recorded already."""
    listed = await store.list(keys.events)
    n = keys.parse_event(listed[-1].key) + 1 if listed else 1
    record = Event(what=what, at=clock.time(), by=by, data=data or {})
    for _ in range(_MAX_RACES):
        if await store.create(keys.event(n), encode_json(record)):
            return
        n += 1
    raise StoreUnavailable(f"no free number for an event in {keys.events} after {_MAX_RACES} tries")


class EventLog:
    """Reads events as they come, each once and in the order of their numbers.

    Args:
        store: Where.
        keys: The session's keys.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._read = 0
        self._has_listed = False
        self._may_probe = True

    async def news(self) -> list[Event]:
        """Events that were not seen yet, in order; damaged or newer ones show as ``unreadable``, without effect.

        The first look lists them; later ones ask for the next number only, which costs a twelfth on S3.
        """
        bodies = await self._probed() if self._has_listed and self._may_probe else await self._listed()
        events: list[Event] = []
        for number, data in enumerate(bodies, self._read + 1):
            try:
                event = decode_json(Event, data, self._keys.event(number))
            except (CorruptObject, IncompatibleVersion) as error:
                log.warning("%s", error)
                event = Event(what="unreadable", at=0.0, data={"error": error.message})
            events.append(event)
        self._read += len(events)
        self._has_listed = True
        return events

    async def _probed(self) -> list[memoryview]:
        bodies: list[memoryview] = []
        while True:
            try:
                bodies.append(await self._store.get(self._keys.event(self._read + 1 + len(bodies))))
            except ObjectNotFound:
                return bodies
            except AccessDenied:
                # S3 hides that an object is missing from those whose right to list has conditions.
                self._may_probe = False
                return bodies or await self._listed()

    async def _listed(self) -> list[memoryview]:
        keys: list[str] = []
        for info in await self._store.list(self._keys.events, start_after=self._keys.event(self._read)):
            if self._keys.parse_event(info.key) != self._read + 1 + len(keys):
                break  # the listing of a folder is no snapshot: the missing one will be in the next
            keys.append(info.key)
        bodies: list[memoryview] = []
        for start in range(0, len(keys), _EVENTS_AT_ONCE):  # a worker that joins late has them all to read
            some = keys[start : start + _EVENTS_AT_ONCE]
            bodies += await asyncio.gather(*map(self._store.get, some))
        return bodies


async def delete_session(store: Store, keys: Keys) -> int:
    """Remove every object of a session, its manifest last; returns how many there were."""
    listed: Sequence[ObjectInfo] = await store.list(keys.prefix)
    names = [info.key for info in listed if info.key != keys.manifest]
    await store.delete(names)
    await store.delete([keys.manifest])
    return len(listed)
