"""What a worker knows of the session's chunks, and how it gets hold of one."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starburst.clock import Clock
from starburst.errors import CorruptObject, IncompatibleVersion
from starburst.protocol.claims import Liveness, end_after, first_claim, holder_of, takeover
from starburst.protocol.keys import ChunkId, Keys
from starburst.protocol.pack import Pack
from starburst.protocol.records import Claim, Manifest, decode_json, encode_json
from starburst.protocol.results import BrokenChain, chain_end, finish_chunk
from starburst.protocol.sessions import list_batches, publish_parts, read_batch
from starburst.protocol.state import SessionState
from starburst.store.base import Store
from starburst.worker.batch import Batch, Held

__all__ = ["Board"]

log = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview
_COLLISIONS_BEFORE_SURVEY = 2
_MAX_COLLISIONS = 6
"""Where so many are lost in a row there are more workers than chunks: it is tried again at the next look."""
_UNREADABLE = "unreadable"
_SUSPECTS = 64


class Board:
    """Finds and claims chunks for one worker.

    Args:
        store: The session's store.
        keys: Its keys.
        manifest: Its manifest.
        worker: Our name.
        ordinal: Our number among the workers: where in the list of chunks we begin.
        clock: For time stamps and leases.
        state: The session's state, kept up to date by the agent.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        manifest: Manifest,
        *,
        worker: str,
        ordinal: int,
        clock: Clock,
        state: SessionState,
    ) -> None:
        self._store = store
        self._keys = keys
        self._worker = worker
        self.ordinal = ordinal
        self._clock = clock
        self._state = state
        self.batches: dict[int, Batch] = {}
        self.liveness = Liveness(manifest.lease_s)
        self._last_seq = 0
        self._logs: dict[ChunkId, list[Claim]] = {}
        self._surveyed_at = float("-inf")
        self._lease_s = manifest.lease_s
        self._watched_at = float("-inf")
        self._damaged: list[tuple[int, str]] = []
        self._turn = 0

    def damaged(self) -> list[tuple[int, str]]:
        """Submissions that could not be read since this was asked last, with the reason."""
        told, self._damaged = self._damaged, []
        return told

    async def look_for_batches(self) -> bool:
        """Read submissions that are new; whether there were any."""
        listed = await list_batches(self._store, self._keys, after=self._last_seq)
        for seq, info in listed:
            try:
                header, source = await read_batch(self._store, info)
            except (CorruptObject, IncompatibleVersion) as error:
                self._tell_damaged(seq, error)
            else:
                if header.source is None:
                    self.batches[seq] = Batch.of(seq, header, source)
                elif header.source in self.batches:
                    ends = (f + n for f, n in zip(header.firsts, header.counts, strict=True))
                    self.batches[header.source].add_parts(zip(header.firsts, ends, strict=True))
            self._last_seq = seq
        return bool(listed)

    @property
    def open_batches(self) -> list[Batch]:
        """Submissions that have, as far as we know, tasks without a result."""
        cancelled = self._state.cancelled_batches
        return [b for b in self.batches.values() if not b.complete and b.seq not in cancelled]

    async def claim_fresh(self) -> Held | None:
        """Claim a chunk that nobody has claimed, as far as we know."""
        for batch in self.open_batches:
            collisions = 0
            while (first := self._candidate(batch)) is not None:
                batch.taken.add(first)
                chunk = ChunkId(batch.seq, first)
                claim = first_claim(self._worker, first, self._clock.time())
                if await self._store.create(self._keys.claim(chunk, 1), encode_json(claim)):
                    batch.own.add(first)
                    return Held(batch, chunk, [claim], batch.ends[first], first, fenced=True)
                collisions += 1
                if collisions == _MAX_COLLISIONS:
                    break
                if collisions % _COLLISIONS_BEFORE_SURVEY == 0:
                    await self._survey(batch)
        return None

    async def claim_abandoned(self, *, every_s: float) -> Held | None:
        """Claim a chunk whose holder gave it back or is lost; surveys at most once in ``every_s``.

        Fresh chunks that a survey brings to light are claimed, too.
        """
        now = self._clock.monotonic()
        if now - self._surveyed_at < every_s:
            return None
        self._surveyed_at = now
        if self.others_at_work:
            await self._watch()
        for batch in self.open_batches:
            latest = await self._survey(batch)
            if batch.complete:
                continue
            for first in self._suspects(batch, latest):
                chunk = ChunkId(batch.seq, first)
                held = await self._take_over(batch, chunk, latest[first])
                if held is not None:
                    return held
        return await self.claim_fresh()

    def _suspects(self, batch: Batch, latest: Mapping[int, int]) -> list[int]:
        """Chunks that may be free again: of very many only some, at each look others.

        Hundreds of workers must not read the log of each chunk that is at work: one with a single record was not given
        back, and while nobody is known to be lost only one whose holder never showed itself may be held by nobody.
        """
        now = self._clock.monotonic()
        lost = bool(self._state.lost) or self.liveness.anyone_lost(now)
        found = []
        for first in sorted(batch.elsewhere & latest.keys()):
            n, since_s = batch.seen.get(first, (0, now))
            if n != latest[first]:
                since_s = now
                batch.seen[first] = (latest[first], now)
            if lost or latest[first] > 1 or now - since_s >= self._lease_s:
                found.append(first)
        if len(found) <= _SUSPECTS:
            return found
        self._turn += 1
        first = (self.ordinal + self._turn) * _SUSPECTS % len(found)
        return (found + found)[first : first + _SUSPECTS]

    @property
    def others_at_work(self) -> bool:
        """Whether somebody else holds a chunk that is not done."""
        return any(batch.elsewhere for batch in self.open_batches)

    def forget(self, held: Held, *, done: bool) -> None:
        """We hold the chunk no longer."""
        held.batch.own.discard(held.chunk.first)
        if done:
            held.batch.done.add(held.chunk.first)

    async def fetch(self, held: Held) -> Buffer:
        """The frame with the chunk's arguments, fetched unless it is there.

        Raises:
            CorruptObject: They are damaged.
        """
        if held.frame is None:
            source, i = held.batch.source, held.batch.frame_of(held.chunk.first)[0]
            if isinstance(source, Pack):
                held.frame = source.frame(i)
            else:
                info = source.frames[i]
                stored = await self._store.get_range(source.key, info.offset, info.stored_bytes)
                held.frame = source.frame(i, stored)
        return held.frame

    async def append(self, held: Held, record: Claim) -> bool:
        """Write the next record of a chunk's claim log; False if somebody else took the chunk over."""
        key = self._keys.claim(held.chunk, len(held.log) + 1)
        if not await self._store.create(key, encode_json(record)):
            return False
        held.log.append(record)
        return True

    async def publish_parts(self, batch: Batch, parts: list[tuple[int, int]]) -> None:
        """Announce chunks that were split off; announcing them twice does no harm."""
        at = self._clock.time()
        await publish_parts(self._store, self._keys, batch.seq, parts, at=at, next_seq=self._last_seq + 1)
        batch.add_parts(parts)

    def _tell_damaged(self, seq: int, error: CorruptObject | IncompatibleVersion) -> None:
        log.warning("%s", error)
        self._damaged.append((seq, error.message))

    def _candidate(self, batch: Batch) -> int | None:
        """The next chunk to try: our own place in each round first, then whatever is free."""
        lanes = max(1, batch.header.lanes)
        while batch.cursor * lanes < len(batch.order):
            place = batch.cursor * lanes + self.ordinal % lanes
            batch.cursor += 1
            if place < len(batch.order) and batch.order[place] not in batch.taken:
                return batch.order[place]
        free = [first for first in batch.order if first not in batch.taken]
        # Each at its own place again: all would meet at the first.
        return free[self.ordinal % lanes * len(free) // lanes] if free else None

    async def _survey(self, batch: Batch) -> dict[int, int]:
        """Learn which chunks of a batch are claimed and done; the number of each claimed chunk's last claim.

        Only of those behind the ones that are all done.
        """
        done, claims = self._keys.done_marks(batch.seq), self._keys.claims(batch.seq)
        last = batch.passed
        passed = None if last is None else f"{last:08d}~"
        for info in await self._store.list(done, start_after=passed and done + passed):
            mark = self._keys.parse_done(info.key)
            batch.marked[mark.chunk.first] = mark.ok + mark.failed
        batch.done.update(batch.marked)
        batch.taken.update(batch.marked)
        batch.complete = sum(batch.marked.values()) >= batch.header.n_tasks
        if batch.complete:
            self.batches.pop(batch.seq, None)
        latest: dict[int, int] = {}
        if not batch.complete:
            for info in await self._store.list(claims, start_after=passed and claims + passed):
                chunk, n = self._keys.parse_claim(info.key)
                latest[chunk.first] = n
            batch.taken.update(latest)
        return latest

    async def _take_over(self, batch: Batch, chunk: ChunkId, n: int) -> Held | None:
        """Claim a chunk whose log has ``n`` records, if nobody holds it."""
        if n == 0 or chunk.first not in batch.ends:
            return None
        try:
            log_ = await self._read_log(chunk, n)
            holder = holder_of(log_)
            if holder is not None and not await self._is_lost(holder, batch.seen[chunk.first][1]):
                return None
            end = self._end_of(batch, chunk, log_)
            position, ok, failed = await chain_end(self._store, self._keys, chunk)
        except BrokenChain as broken:
            # Nobody can say where it goes on: what is left is given up, and whoever collects learns why.
            log.warning("%s", broken)
            position, ok, failed = end, broken.ok, broken.failed_to(end)
        except IncompatibleVersion as error:
            self._tell_damaged(batch.seq, error)
            batch.done.add(chunk.first)
            return None
        if position >= end:
            # Its holder was lost between the last result and the marker: do what was left to do.
            await self._publish_again(batch, log_)
            await finish_chunk(self._store, self._keys, chunk, ok, failed)
            batch.done.add(chunk.first)
            return None
        held = Held(batch, chunk, list(log_), end, position, fenced=False, ok=ok, failed=failed)
        if not await self.append(held, takeover(log_, self._worker, position, self._clock.time())):
            return None
        batch.own.add(chunk.first)
        await self._publish_again(batch, log_)
        return held

    async def _read_log(self, chunk: ChunkId, n: int) -> list[Claim]:
        """The first ``n`` records of a chunk's log; what was read once is kept.

        A record that cannot be read stands for a claim of somebody without a heartbeat: the chunk is free again
        after a lease. Its writer, should it be at work, finds out as one that was taken for lost.
        """
        log_ = self._logs.setdefault(chunk, [])
        for i in range(len(log_) + 1, n + 1):
            key = self._keys.claim(chunk, i)
            try:
                record = decode_json(Claim, await self._store.get(key), key)
            except CorruptObject as error:
                log.warning("%s", error)
                last = log_[-1] if log_ else first_claim("", chunk.first, 0.0)
                record = Claim(kind="claim", worker=_UNREADABLE, attempt=last.attempt, position=last.position)
            log_.append(record)
        return log_

    def _end_of(self, batch: Batch, chunk: ChunkId, log_: list[Claim]) -> int:
        """Where a chunk ends; if a record of it is unreadable, what was shared out is known by its announcement."""
        end = end_after(log_, batch.ends[chunk.first])
        if any(record.worker == _UNREADABLE for record in log_):
            end = min((first for first in batch.ends if chunk.first < first < end), default=end)
        return end

    async def _publish_again(self, batch: Batch, log_: list[Claim]) -> None:
        shares = [record for record in log_ if record.kind == "share"]
        if shares:
            await self.publish_parts(batch, list(shares[-1].parts))

    async def _watch(self) -> None:
        """See who beats; not more often than matters."""
        now = self._clock.monotonic()
        if now - self._watched_at >= self._lease_s / 10:
            self._watched_at = now
            listed = await self._store.list(self._keys.workers)
            self.liveness.observe(now, {info.key.rsplit("/", 1)[1]: info.version for info in listed})

    async def _is_lost(self, worker: str, since_s: float) -> bool:
        """Whether the holder of a chunk, which is at work since ``since_s`` at the latest, is lost."""
        if worker in self._state.lost:
            return True
        await self._watch()
        self.liveness.expect(since_s, worker)
        return self.liveness.is_lost(self._clock.monotonic(), worker)
