"""How many tasks of a session are open, from its submissions and the markers of its finished chunks."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection

from starburst.protocol.keys import ChunkId, DoneMark, Keys
from starburst.protocol.records import BatchHeader

__all__ = ["Ledger"]


class Ledger:
    """Counts what was submitted and what is done.

    Args:
        keys: The session's keys.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._left: dict[int, int] = {}
        self._chunks: list[ChunkId] = []
        self._marked: set[ChunkId] = set()
        self._passed = 0
        self.submitted = 0
        self.done = 0

    def add_batch(self, seq: int, header: BatchHeader) -> None:
        """A submission, or the announcement of shares, which adds chunks but no tasks."""
        if header.source is None:
            self._left[seq] = self._left.get(seq, 0) + header.n_tasks
            self.submitted += header.n_tasks
        for first in header.firsts:
            self._add_chunk(ChunkId(seq if header.source is None else header.source, first))

    def add_done(self, mark: DoneMark) -> None:
        """A marker; one that was seen before changes nothing."""
        if mark.chunk in self._marked:
            return
        self._marked.add(mark.chunk)
        count = mark.ok + mark.failed
        self.done += count
        self._left[mark.chunk.batch] = self._left.get(mark.chunk.batch, 0) - count

    def open_tasks(self, cancelled: Collection[int] = ()) -> int:
        """Tasks that are not known to be finished, those of cancelled submissions not counted."""
        return sum(max(0, left) for seq, left in self._left.items() if seq not in cancelled)

    def done_after(self, cancelled: Collection[int] = ()) -> str | None:
        """The key after which new markers may appear: all chunks up to it are done or cancelled."""
        while self._passed < len(self._chunks):
            chunk = self._chunks[self._passed]
            if chunk not in self._marked and chunk.batch not in cancelled:
                break
            self._passed += 1
        if self._passed == 0:
            return None
        return f"{self._keys.done_marks()}{self._chunks[self._passed - 1]}~"

    def _add_chunk(self, chunk: ChunkId) -> None:
        at = bisect_left(self._chunks, chunk)
        if at < len(self._chunks) and self._chunks[at] == chunk:
            return
        insort(self._chunks, chunk)
        self._passed = min(self._passed, at)
