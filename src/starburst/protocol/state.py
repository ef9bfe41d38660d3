"""What a session's events add up to: deadline, size, whether it takes work, which workers are gone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from starburst.protocol.records import Event, Manifest

__all__ = ["SessionState"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SessionState:
    """The fold of a session's events, in their order.

    Attributes:
        deadline_at: When the session ends whatever runs, seconds since 1970.
        workers: How many workers it may have.
        ended: Why it takes no more work (``closed``, ``cancelled``, ``idle``), or None.
        cancelled_batches: Submissions whose remaining tasks are not to run.
        delivered: Submissions whose results were handed over and removed.
        lost: Workers that are gone, with the reason their provider gave.
        dismissed: Workers that are to stop at once, though the session goes on.
        ordinals: The numbers of workers that were started.
    """

    deadline_at: float
    workers: int
    ended: str | None = None
    cancelled_batches: set[int] = field(default_factory=set)
    delivered: set[int] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    dismissed: set[str] = field(default_factory=set)
    ordinals: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> SessionState:
        """The state of a new session."""
        return cls(manifest.created_at + manifest.absolute_timeout_s, manifest.workers)

    def apply(self, event: Event) -> None:
        """Take one more event into account; unknown ones (of later versions) and senseless ones change nothing."""
        try:
            self._apply(event)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("event %r makes no sense: %r", event.what, error)

    def _apply(self, event: Event) -> None:
        data = event.data
        match event.what:
            case "extended":
                self.deadline_at = max(self.deadline_at, float(data["deadline_at"]))
                if self.ended != "cancelled":
                    self.ended = None
            case "worker-started":
                first = int(data.get("first", 0))
                self.ordinals.update({str(name): i for i, name in enumerate(data["workers"], first)})
            case "scaled":
                self.workers = int(data["workers"])
            case "cancelled" if "batches" in data:
                self.cancelled_batches.update(data["batches"])
            case "delivered":
                self.delivered.update(data["batches"])
            case "cancelled":
                self.ended = "cancelled"
            case "terminated":
                self.ended = self.ended or str(data["reason"])
            case "dismissed":
                self.dismissed.update(map(str, data["workers"]))
            case "worker-lost":
                self.lost[str(data["worker"])] = str(data["reason"])

    def name(self, now: float) -> str:
        """``open``, ``expired`` or why it ended."""
        if self.ended:
            return self.ended
        return "expired" if now >= self.deadline_at else "open"
