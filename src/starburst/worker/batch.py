"""Submissions and chunks as one worker knows them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from starburst.protocol.keys import ChunkId
from starburst.protocol.pack import Pack, PackIndex
from starburst.protocol.records import BatchHeader, Claim

__all__ = ["Batch", "Held"]

Buffer = bytes | bytearray | memoryview


@dataclass(slots=True)
class Batch:
    """One submission, with the chunks that shares have added.

    Attributes:
        ends: For each chunk's first task where it was announced to end.
        taken: Chunks that somebody has claimed, as far as we know.
        done: Chunks with a marker.
        own: Chunks that this worker holds.
        marked: How many tasks the markers that were listed stand for, by chunk.
        seen: The last record of the log of a chunk at work elsewhere, and when it was seen first (monotonic seconds).
    """

    seq: int
    header: BatchHeader
    source: PackIndex | Pack
    ends: dict[int, int]
    order: list[int]
    taken: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)
    marked: dict[int, int] = field(default_factory=dict)
    seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    complete: bool = False
    cursor: int = 0

    @classmethod
    def of(cls, seq: int, header: BatchHeader, source: PackIndex | Pack) -> Batch:
        """The batch as it was submitted."""
        pairs = zip(header.firsts, header.counts, strict=True)
        return cls(seq, header, source, {f: f + n for f, n in pairs}, list(header.firsts))

    def add_parts(self, parts: Iterable[tuple[int, int]]) -> None:
        """Chunks that a share announced; known ones change nothing."""
        for first, end in parts:
            if first not in self.ends:
                self.ends[first] = end
                self.order.append(first)

    @property
    def passed(self) -> int | None:
        """The last of the chunks that, one behind the other, are all done: no listing needs to begin before it."""
        last = None
        for first in sorted(self.order):
            if first not in self.marked:
                break
            last = first
        return last

    @property
    def elsewhere(self) -> set[int]:
        """Chunks that others hold, as far as we know."""
        return self.taken - self.done - self.own

    def frame_of(self, task: int) -> tuple[int, int, int]:
        """The frame that holds a task's call, the frame's first task and how many it holds."""
        i = bisect_right(self.header.firsts, task) - 1
        return i, self.header.firsts[i], self.header.counts[i]


@dataclass(slots=True)
class Held:
    """A chunk that this worker holds.

    Attributes:
        log: Its claim log as we know it; ours is the last record.
        end: Where it ends now.
        position: The first task without a flushed result.
        fenced: Whether every earlier holder is shut out (there was none, or we have won a flush).
        ok: Tasks with a value before ``position``.
        failed: Tasks without one before ``position``.
        frame: The arguments, once they are fetched.
    """

    batch: Batch
    chunk: ChunkId
    log: list[Claim]
    end: int
    position: int
    fenced: bool
    ok: int = 0
    failed: int = 0
    frame: Buffer | None = None

    @property
    def attempt(self) -> int:
        """How often the task at its start has been tried, this time included."""
        return self.log[-1].attempt
