"""The rules of a chunk's claim log, pure: who holds it, from where, how far, and which record may come next.

The log of a chunk is ``claims/<chunk>/0001``, ``0002``, …; each record is created once, so whoever creates record
``n`` decides what the ``n``-th step was, and everybody else reads it. docs/protocol.md proves what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starburst.protocol.records import Claim

__all__ = ["Liveness", "end_after", "first_claim", "holder_of", "release", "share", "takeover"]


def first_claim(worker: str, position: int, at: float) -> Claim:
    """Record 1: the first worker takes a chunk that starts at ``position``."""
    return Claim(kind="claim", worker=worker, position=position, at=at)


def holder_of(log: Sequence[Claim]) -> str | None:
    """The worker that holds the chunk, or None if nobody does."""
    return None if not log or log[-1].kind == "release" else log[-1].worker


def end_after(log: Sequence[Claim], end: int) -> int:
    """Where the chunk ends once its shares are taken off; ``end`` is where it ended when it was announced."""
    return min((record.parts[0][0] for record in log if record.kind == "share"), default=end)


def takeover(log: Sequence[Claim], worker: str, position: int, at: float) -> Claim:
    """The next claim, after a release or the loss of the holder.

    An attempt counts against the task at ``position`` only: if the last holder finished any task, or gave the
    chunk back in order, counting begins anew or stands still.

    Args:
        log: All records so far, at least one.
        worker: Who claims.
        position: The first task without a result.
        at: Time of writing, for people.
    """
    last = next(record for record in reversed(log) if record.kind == "claim")
    attempt = last.attempt + (log[-1].kind != "release") if last.position == position else 1
    return Claim(kind="claim", worker=worker, attempt=attempt, position=position, at=at)


def share(log_last: Claim, parts: Sequence[tuple[int, int]], at: float) -> Claim:
    """The holder's record that it gives ``parts`` (first, end) away, in order, up to the chunk's end."""
    return Claim(
        kind="share",
        worker=log_last.worker,
        attempt=log_last.attempt,
        position=log_last.position,
        parts=tuple(parts),
        at=at,
    )


def release(log_last: Claim, at: float) -> Claim:
    """The holder's record that it gives the chunk back."""
    return Claim(
        kind="release", worker=log_last.worker, attempt=log_last.attempt, position=log_last.position, at=at
    )


class Liveness:
    """Who has shown no sign of life for a lease of this observer's own monotonic time; no clocks are compared.

    Args:
        lease_s: Seconds without change of a heartbeat after which its worker counts as lost.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self._seen: dict[str, tuple[str, float]] = {}
        self._told: set[str] = set()

    def observe(self, now: float, versions: Mapping[str, str]) -> None:
        """Take note of what a listing of the heartbeats showed at ``now``.

        Args:
            now: This observer's monotonic time, seconds.
            versions: For each worker something that changes with each heartbeat.
        """
        for worker, version in versions.items():
            if self._seen.get(worker, ("", 0.0))[0] != version:
                self._seen[worker] = (version, now)

    def expect(self, now: float, worker: str) -> None:
        """A worker that ought to have a heartbeat; its lease starts now unless it began before."""
        self._seen.setdefault(worker, ("", now))

    def tell_lost(self, worker: str) -> None:
        """Somebody who can know (its provider) says that it is gone."""
        self._told.add(worker)

    def is_lost(self, now: float, worker: str) -> bool:
        """Whether its lease has run out, or its provider said so."""
        if worker in self._told:
            return True
        seen = self._seen.get(worker)
        return seen is not None and now - seen[1] >= self.lease_s

    def anyone_lost(self, now: float) -> bool:
        """Whether any of those that were ever seen or expected is lost."""
        return any(self.is_lost(now, worker) for worker in self._seen) or bool(self._told)
