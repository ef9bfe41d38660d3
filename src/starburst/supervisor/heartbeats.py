"""The workers' heartbeats as one observer sees them: listed every time, read only where the content matters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from starburst.protocol.claims import Liveness
from starburst.protocol.keys import Keys
from starburst.protocol.records import Heartbeat, Manifest
from starburst.protocol.sessions import read_heartbeat
from starburst.store.base import Store

__all__ = ["STARTUP_S", "Heartbeats"]

STARTUP_S = 60.0
"""How long a worker may take from the start of its process to its first heartbeat, or its lease if that is longer."""
_SILENT_BEATS = 3


@dataclass(slots=True)
class _Seen:
    version: str
    changed_s: float
    read_version: str = ""
    heartbeat: Heartbeat | None = None


class Heartbeats:
    """Tells who lives, by this observer's own monotonic time.

    Args:
        store: Where.
        keys: The session's keys.
        manifest: Its manifest: lease and length of a beat.
    """

    def __init__(self, store: Store, keys: Keys, manifest: Manifest) -> None:
        self._store = store
        self._keys = keys
        self._lease_s = manifest.lease_s
        self._silent_s = _SILENT_BEATS * manifest.heartbeat_s
        self._startup_s = max(STARTUP_S, manifest.lease_s)
        self._seen: dict[str, _Seen] = {}
        self._expected: dict[str, float] = {}
        self._liveness = Liveness(manifest.lease_s)
        self._looked_s = float("-inf")

    @property
    def names(self) -> Iterable[str]:
        """Workers that have ever shown a heartbeat."""
        return self._seen.keys()

    async def look(self, now_s: float) -> None:
        """List the heartbeats. One request, unless there are more than a page of them."""
        listed = await self._store.list(self._keys.workers)
        if now_s - self._looked_s > self._lease_s / 2:
            self.excuse(now_s)  # nobody looked for so long: a laptop slept, the store was away
        self._looked_s = now_s
        versions = {info.key.rsplit("/", 1)[1]: info.version for info in listed}
        self._liveness.observe(now_s, versions)
        for worker, version in versions.items():
            known = self._seen.setdefault(worker, _Seen(version, now_s))
            if known.version != version:
                known.version, known.changed_s = version, now_s

    def excuse(self, now_s: float) -> None:
        """Silence until now proves nothing: all leases begin anew."""
        self._liveness = Liveness(self._lease_s)
        for seen in self._seen.values():
            seen.changed_s = now_s
        self._expected = dict.fromkeys(self._expected, now_s)

    def expect(self, now_s: float, worker: str) -> None:
        """A worker whose process runs, so that a first heartbeat ought to come."""
        self._expected.setdefault(worker, now_s)

    def is_lost(self, worker: str) -> bool:
        """Whether its lease had run out at the last look."""
        if worker in self._seen:
            return self._liveness.is_lost(self._looked_s, worker)
        return self._looked_s - self._expected.get(worker, self._looked_s) >= self._startup_s

    def is_silent(self, worker: str) -> bool:
        """Whether some beats have failed to come by the last look."""
        seen = self._seen.get(worker)
        return seen is not None and self._looked_s - seen.changed_s >= self._silent_s

    async def read(self, workers: Iterable[str]) -> None:
        """Read these heartbeats, those that have not changed since they were read excepted."""
        stale = [
            (worker, seen)
            for worker in workers
            if (seen := self._seen.get(worker)) is not None and seen.read_version != seen.version
        ]
        found = await asyncio.gather(*(read_heartbeat(self._store, self._keys, name) for name, _ in stale))
        for (_, seen), heartbeat in zip(stale, found, strict=True):
            seen.read_version = seen.version
            seen.heartbeat = heartbeat if heartbeat is not None else seen.heartbeat

    def get(self, worker: str) -> Heartbeat | None:
        """What was read of it last, or None."""
        seen = self._seen.get(worker)
        return None if seen is None else seen.heartbeat
