"""The smallest worker that keeps the rules of docs/protocol.md, for tests of those rules.

It runs no user code: a task's value is its number, and tasks of :attr:`World.killers` end the worker that runs them.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from starburst.errors import ObjectNotFound
from starburst.protocol.chunking import split_evenly
from starburst.protocol.claims import end_after, first_claim, holder_of, release, share, takeover
from starburst.protocol.keys import ChunkId, Keys
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import BatchHeader, Claim, Failure, decode_json, encode_json
from starburst.protocol.results import Run, chain_end, encode_result, finish_chunk
from starburst.protocol.sessions import publish_batch, read_batch, read_done
from starburst.store.base import Store

KEYS = Keys("s")
BATCH = 1


class Killed(BaseException):
    """A task took its worker down."""


@dataclass
class World:
    """What all workers of a test have in common."""

    n_tasks: int
    max_attempts: int = 3
    killers: frozenset[int] = frozenset()
    lost: set[str] = field(default_factory=set)
    runs: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class BrokenRules:
    """Rules to break, to see what they are for."""

    share_before_a_won_flush: bool = False
    look_at_the_log_before_the_chain: bool = False


@dataclass
class Held:
    chunk: ChunkId
    log: list[Claim]
    position: int
    end: int
    fenced: bool
    ok: int = 0
    failed: int = 0
    ours: bool = True


async def publish(store: Store, counts: list[int]) -> None:
    """The one submission of a test."""
    firsts = tuple(sum(counts[:i]) for i in range(len(counts)))
    header = BatchHeader(n_tasks=sum(counts), firsts=firsts, counts=tuple(counts))
    assert await publish_batch(store, KEYS, lambda _: encode_pack(header, [b"calls"] * len(counts))) == BATCH


async def publish_parts(store: Store, parts: tuple[tuple[int, int], ...]) -> None:
    header = BatchHeader(
        n_tasks=sum(end - first for first, end in parts),
        firsts=tuple(first for first, _ in parts),
        counts=tuple(end - first for first, end in parts),
        source=BATCH,
    )
    await publish_batch(store, KEYS, lambda _: encode_pack(header, []))


class ModelWorker:
    def __init__(
        self, store: Store, world: World, name: str, seed: int = 0, broken: BrokenRules | None = None
    ) -> None:
        self.store = store
        self.world = world
        self.name = name
        self.broken = broken or BrokenRules()
        self._random = random.Random(seed)
        self._ends: dict[int, int] = {}
        self._read_up_to = KEYS.batch(0)

    async def run(self) -> None:
        """Work until every task has a result."""
        try:
            while (chunks := await self.open_chunks()) is not None:
                self._random.shuffle(chunks)
                for first in chunks:
                    held = await self.claim(first)
                    if held is not None:
                        await self.work(held)
                        break
        except Killed:
            self.world.lost.add(self.name)

    async def open_chunks(self) -> list[int] | None:
        """First tasks of all chunks without a marker, or None if the markers account for every task."""
        for info in await self.store.list(KEYS.batches, start_after=self._read_up_to):
            header, _ = await read_batch(self.store, info)
            for first, count in zip(header.firsts, header.counts, strict=True):
                self._ends.setdefault(first, first + count)
            self._read_up_to = info.key
        marks = await read_done(self.store, KEYS, BATCH)
        if sum(mark.ok + mark.failed for mark in marks) >= self.world.n_tasks:
            return None
        return sorted(set(self._ends) - {mark.chunk.first for mark in marks})

    async def claim(self, first: int) -> Held | None:
        chunk = ChunkId(BATCH, first)
        log = await self.read_log(chunk)
        end = end_after(log, self._ends[first])
        if not log:
            held = Held(chunk, log, first, end, fenced=True)
            return held if await self.append(held, first_claim(self.name, first, 0.0)) else None
        holder = holder_of(log)
        if holder is not None and holder not in self.world.lost:
            return None
        position, ok, failed = await chain_end(self.store, KEYS, chunk)
        held = Held(chunk, log, position, end, fenced=False, ok=ok, failed=failed)
        if position >= end:
            await self.publish_last_share(log)
            await self.close(held)
            return None
        if not await self.append(held, takeover(log, self.name, position, 0.0)):
            return None
        await self.publish_last_share(log)
        return held

    async def read_log(self, chunk: ChunkId) -> list[Claim]:
        keys = [info.key for info in await self.store.list(KEYS.claim_log(chunk))]
        return [decode_json(Claim, await self.store.get(key), key) for key in keys]

    async def work(self, held: Held) -> None:
        if held.log[-1].attempt > self.world.max_attempts:
            await self.single_out(held)
        task = held.position
        while held.ours and task < held.end:
            match self._random.choice(("run", "run", "run", "flush", "share", "release")):
                case "run":
                    self.execute(task)
                    task += 1
                case "flush":
                    await self.flush(held, task - held.position)
                    task = max(held.position, min(task, held.end))
                case "share" if task + 1 < held.end:
                    if held.fenced or self.broken.share_before_a_won_flush:
                        keep = self._random.randint(task + 1, held.end - 1)
                        await self.give_away(held, keep, self._random.randint(1, 3))
                case "release" if self._random.random() < 0.3:
                    await self.flush(held, task - held.position)
                    if held.ours and held.position < held.end:
                        await self.append(held, release(held.log[-1], 0.0))
                        held.ours = False
                    task = held.position
        if held.ours:
            await self.flush(held, task - held.position)
        if held.ours:
            if held.position >= held.end:
                await self.close(held)
            else:
                await self.work(held)  # an earlier holder was not dead: go on behind what it wrote

    async def single_out(self, held: Held) -> None:
        """The task at the position has cost too many workers: alone, or not at all, then all others by themselves."""
        alone = held.log[-1].attempt == self.world.max_attempts + 1 and held.position + 1 < held.end
        if alone:
            self.execute(held.position)
        if await self.flush(held, 1, lost=not alone) and held.position < held.end:
            await self.give_away(held, held.position, held.end - held.position)

    def execute(self, task: int) -> None:
        self.world.runs[task] += 1
        if task in self.world.killers:
            raise Killed

    async def flush(self, held: Held, count: int, *, lost: bool = False) -> bool:
        """Write the next link; False if another one stood there."""
        if count == 0:
            return True
        run = Run()
        if lost:
            run.add_failure(Failure(kind="lost", message="its worker was lost each time"))
        else:
            run.add_values(list(range(held.position, held.position + count)))
        body = encode_result(run, first=held.position, worker=self.name, attempt=1, compress=False)
        if await self.store.create(KEYS.result(held.chunk, held.position), body):
            held.position, held.fenced = held.position + count, True
            held.ok, held.failed = held.ok + run.ok, held.failed + run.failed
            return True
        if self.broken.look_at_the_log_before_the_chain:
            held.ours = await self.is_ours(held)
            held.position, held.ok, held.failed = await chain_end(self.store, KEYS, held.chunk)
        else:
            held.position, held.ok, held.failed = await chain_end(self.store, KEYS, held.chunk)
            held.ours = await self.is_ours(held)
        return False

    async def is_ours(self, held: Held) -> bool:
        try:
            await self.store.get(KEYS.claim(held.chunk, len(held.log) + 1))
        except ObjectNotFound:
            return True
        return False

    async def append(self, held: Held, record: Claim) -> bool:
        won = await self.store.create(KEYS.claim(held.chunk, len(held.log) + 1), encode_json(record))
        if won:
            held.log.append(record)
        return won

    async def give_away(self, held: Held, keep: int, parts: int) -> None:
        """Tasks from ``keep`` on become chunks of their own."""
        given = split_evenly(keep, held.end, parts)
        if not await self.append(held, share(held.log[-1], given, 0.0)):
            held.ours = False
            return
        held.end = keep
        await publish_parts(self.store, tuple(given))
        self._ends.update(given)

    async def publish_last_share(self, log: list[Claim]) -> None:
        shares = [record for record in log if record.kind == "share"]
        if shares:
            await publish_parts(self.store, shares[-1].parts)

    async def close(self, held: Held) -> None:
        await finish_chunk(self.store, KEYS, held.chunk, held.ok, held.failed)
