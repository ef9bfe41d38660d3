"""Clients of the simulated world: they submit, withdraw, cancel and collect, and may die at any time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from sim_actors import Actor
from sim_plan import BatchPlan

from starburst.client.collector import Collector, Run, Watched
from starburst.client.connection import Connection
from starburst.client.packing import Packed, pack_map, pack_star
from starburst.client.withdraw import withdraw
from starburst.errors import StarburstError
from starburst.protocol.keys import ChunkId
from starburst.protocol.records import BatchHeader
from starburst.protocol.results import Outcome
from starburst.protocol.sessions import append_event, read_batch
from starburst.protocol.state import SessionState


def work(number: int) -> int:
    """What tasks of the simulation call."""
    if number < 0:
        raise ValueError(f"task {-number - 1} raises")
    return 3 * number + 1


@dataclass(eq=False)
class Client:
    """A client process.

    Attributes:
        outcomes: What it collected: for each submission each task's outcomes, one for each time that they came.
        waiting: Submissions that are not complete yet.
        unwatched: Those of them that the collector does not look at, or has given up.
        error: What it said last.
    """

    world: Any
    actor: Actor
    outcomes: dict[int, dict[int, list[Outcome]]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    unwatched: set[int] = field(default_factory=set)
    error: StarburstError | None = None
    finished: bool = False

    def start(self, batches: tuple[BatchPlan, ...], *, attach: bool = False) -> None:
        """Live; ``attach`` is for one that goes on where another one died, with what is in the store."""
        self.actor.start(self._live(batches, attach=attach))

    async def _live(self, batches: tuple[BatchPlan, ...], *, attach: bool) -> None:
        world, clock, keys = self.world, self.actor.clock, self.world.keys
        rng: random.Random = self.actor.rng
        store = world.link(self.actor)
        connection = Connection(store, world.manifest, world.provider, clock)
        await clock.sleep(rng.uniform(0.0, 1.0))
        sizes: dict[int, int] = {}
        if attach:
            for info in await store.list(keys.batches):
                header, _ = await read_batch(store, info)
                if header.source is None:
                    sizes[int(info.key.rsplit("/", 1)[1])] = header.n_tasks
        for batch in batches:
            seq, header = await self._submit(connection, batch)
            sizes[seq] = header.n_tasks
            for place in batch.withdraw:
                await self._withdraw(connection, seq, header, place)
            if batch.cancel_after_s is not None:
                await clock.sleep(batch.cancel_after_s)
                await append_event(store, keys, clock, "cancelled", data={"batches": [seq]})
        await self._collect(connection, sizes)
        self.finished = True

    async def _submit(self, connection: Connection, batch: BatchPlan) -> tuple[int, BatchHeader]:
        packed = self._pack(batch, connection.lanes)
        header = packed.header(
            lanes=connection.lanes, timeout_s=batch.timeout_s, retries=0, at=self.actor.clock.time()
        )
        seq = await connection.submit(packed, header)
        self.world.network.note(self.actor.name, f"SUBMITTED {seq}: {batch.tasks}")
        return seq, header

    def _pack(self, batch: BatchPlan, lanes: int) -> Packed:
        plan = self.world.plan
        numbers = [-number - 1 if plan.tasks[number].kind == "raises" else number for number in batch.tasks]
        if batch.columns:
            return pack_map(work, [numbers], lanes=lanes, chunksize=batch.chunksize)
        rows: list[tuple[int, ...]] = [(number,) for number in numbers]
        return pack_star(work, rows, lanes=lanes, chunksize=batch.chunksize)

    async def _withdraw(self, connection: Connection, seq: int, header: BatchHeader, place: int) -> None:
        for first, count in zip(header.firsts, header.counts, strict=True):
            if first <= place < first + count:
                self.world.asked_back.add((seq, place))
                won = await withdraw(connection, ChunkId(seq, first), count, only=place - first)
                self.world.network.note(self.actor.name, f"WITHDRAWN {seq}-{place} {won}")
                if won:
                    self.world.withdrawn.add((seq, place))

    async def _collect(self, connection: Connection, sizes: dict[int, int]) -> None:
        """Wait for everything; where the session ended for lack of work or workers, extend it and wait on."""
        world, clock = self.world, self.actor.clock
        state = SessionState.of(world.manifest)
        collector = Collector(connection.store, world.keys, state, clock, news_s=0.2)
        self.waiting, self.unwatched = set(sizes), set(sizes)
        while self.waiting:
            self._watch(collector, sizes)
            await clock.sleep(0.05)
            self.waiting -= state.cancelled_batches
            if not self.unwatched & self.waiting:
                continue
            await collector.read_news()
            name = state.name(clock.time())
            if name in ("failed", "idle") and not world.over:
                data = {"deadline_at": state.deadline_at}
                await append_event(connection.store, world.keys, clock, "extended", data=data)
                await collector.read_news()
            elif name != "open":
                break
        await collector.close()

    def _watch(self, collector: Collector, sizes: dict[int, int]) -> None:
        for seq in sorted(self.unwatched & self.waiting):
            self.outcomes[seq] = {}
            collector.watch(self._watched(seq, sizes[seq]))
        self.unwatched.clear()

    def _watched(self, seq: int, n_tasks: int) -> Watched:
        def on_run(run: Run) -> None:
            for task, outcome in enumerate(run.outcomes, run.first):
                self.outcomes[seq].setdefault(task, []).append(outcome)
            if len(self.outcomes[seq]) == n_tasks:
                self.waiting.discard(seq)

        def on_error(error: StarburstError) -> None:
            self.world.network.note(self.actor.name, f"TOLD {error.message}")
            self.error = error
            self.unwatched.add(seq)

        return Watched(seq, n_tasks, on_run, on_error)
