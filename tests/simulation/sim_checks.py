"""What must hold of every world, whatever befell it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from sim_clients import work
from sim_world import World

from starburst.protocol.keys import ChunkId
from starburst.protocol.pack import Pack
from starburst.protocol.payload import CallBlock
from starburst.protocol.records import BatchHeader, Claim, Failure, ResultHeader, decode_json
from starburst.protocol.results import Outcome, decode_result
from starburst.protocol.sessions import read_batch


def violations(world: World) -> list[str]:
    """Everything that is wrong with a world that has come to its end."""
    return asyncio.run(_Checks(world).all())


class _Checks:
    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.keys = world.keys
        self.wrong = list(world.complaints)

    async def all(self) -> list[str]:
        batches: dict[int, tuple[BatchHeader, Pack]] = {}
        parts: dict[int, dict[int, int]] = {}
        for info in await self.store.list(self.keys.batches):
            header, source = await read_batch(self.store, info)
            seq = int(info.key.rsplit("/", 1)[1])
            if header.source is None:
                assert isinstance(source, Pack)
                batches[seq] = header, source
                parts[seq] = dict(zip(header.firsts, header.counts, strict=True))
            else:
                for first, count in zip(header.firsts, header.counts, strict=True):
                    known = parts[header.source].setdefault(first, count)
                    if known != count:
                        self.wrong.append(
                            f"chunk {header.source}-{first} was announced with {known} and {count} tasks"
                        )
        numbers = {seq: self.numbers(*batch) for seq, batch in batches.items()}
        all_numbers = Counter(number for row in numbers.values() for number in row)
        self.wrong += [
            f"task {n} was submitted {times} times" for n, times in all_numbers.items() if times > 1
        ]
        for seq, (header, _) in batches.items():
            await self.check_batch(seq, header, parts[seq], numbers[seq])
        self.check_clients(batches, numbers)
        return self.wrong

    @property
    def ran_out(self) -> bool:
        """Whether the session's time was up before its work was done."""
        return self.world.clock.time() >= self.world.truth.deadline_at

    def numbers(self, header: BatchHeader, pack: Pack) -> list[int]:
        """What each task of a submission was given."""
        found: list[int] = []
        for i, count in enumerate(header.counts):
            calls = CallBlock(header.layout, pack.frame(i), count, _nothing)
            found += [calls.call(j)[0][0] for j in range(count)]
        return [n if n >= 0 else -n - 1 for n in found]

    async def check_batch(
        self, seq: int, header: BatchHeader, parts: dict[int, int], numbers: list[int]
    ) -> None:
        unfinished = seq in self.world.truth.cancelled_batches or self.ran_out
        results: Counter[int] = Counter()
        keys = set()
        chains: dict[ChunkId, tuple[int, int, int]] = {}
        for first in parts:
            chunk = ChunkId(seq, first)
            position, ok, failed = first, 0, 0
            async for key, found, outcomes in self.chain(chunk):
                keys.add(key)
                for task, outcome in enumerate(outcomes, found.first):
                    results[task] += 1
                    ok, failed = ok + (outcome.failure is None), failed + (outcome.failure is not None)
                    await self.check_outcome(chunk, task, numbers[task], outcome, header)
                position += found.count
            chains[chunk] = (position, ok, failed)
        strays = {info.key for info in await self.store.list(self.keys.results(seq))} - keys
        self.wrong += [f"{key} is in no chain" for key in sorted(strays)]
        self.wrong += [f"task {seq}-{task} has {n} results" for task, n in sorted(results.items()) if n > 1]
        if not unfinished:
            self.wrong += [f"task {seq}-{t} has no result" for t in range(header.n_tasks) if not results[t]]
        marks = [self.keys.parse_done(info.key) for info in await self.store.list(self.keys.done_marks(seq))]
        for mark, n in Counter(mark.chunk for mark in marks).items():
            if n > 1:
                self.wrong.append(f"chunk {mark} has {n} markers")
        for mark in marks:
            if chains.get(mark.chunk, (0, -1, -1))[1:] != (mark.ok, mark.failed):
                self.wrong.append(f"the marker {mark} does not fit the chain {chains.get(mark.chunk)}")
        if not unfinished and sum(mark.ok + mark.failed for mark in marks) != header.n_tasks:
            self.wrong.append(f"the markers of {seq} do not add up to {header.n_tasks}")

    async def chain(self, chunk: ChunkId) -> Iterator[tuple[str, ResultHeader, list[Outcome]]]:
        position = chunk.first
        while True:
            key = self.keys.result(chunk, position)
            if not await self.store.list(key):
                return
            header, outcomes = decode_result(await self.store.get(key), key)
            if header.first != position or header.count < 1:
                self.wrong.append(f"{key} holds {header.count} tasks from {header.first}")
                return
            yield key, header, list(outcomes)
            position += header.count

    async def check_outcome(
        self, chunk: ChunkId, task: int, number: int, outcome: Outcome, header: BatchHeader
    ) -> None:
        kind, failure = self.world.plan.tasks[number].kind, outcome.failure
        where = f"task {chunk.batch}-{task} ({number}, {kind})"
        if failure is None:
            if kind != "ok" or outcome.value != work(number):
                self.wrong.append(f"{where} has the value {outcome.value!r}")
        elif failure.kind == "cancelled":
            if (chunk.batch, task) not in self.world.asked_back:
                self.wrong.append(f"{where} was cancelled, and nobody had asked for it")
        elif not await self.is_expected(chunk, kind, number, failure):
            self.wrong.append(f"{where} failed: {failure}")
        if (chunk.batch, task) in self.world.withdrawn and (failure is None or failure.kind != "cancelled"):
            self.wrong.append(f"{where} was withdrawn, and ran")

    async def is_expected(self, chunk: ChunkId, kind: str, number: int, failure: Failure) -> bool:
        expected = {
            "raises": "raised",
            "hangs": "timeout",
            "kills its process": "lost",
            "kills its worker": "lost",
        }
        if failure.kind == expected.get(kind):
            return True
        if failure.kind == "lost":
            # An innocent one may be where its workers, or its process, were killed again and again.
            attempts = [claim.attempt for claim in await self.claims(chunk) if claim.kind == "claim"]
            return max(attempts) >= self.world.plan.max_attempts or number in self.world.disturbed
        # The machine's clock goes on while a process is frozen.
        return failure.kind == "timeout" and self.world.plan.freezes + self.world.plan.ambushes > 0

    async def claims(self, chunk: ChunkId) -> list[Claim]:
        listed = await self.store.list(self.keys.claim_log(chunk))
        return [decode_json(Claim, await self.store.get(info.key), info.key) for info in listed]

    def check_clients(
        self, batches: dict[int, tuple[BatchHeader, Pack]], numbers: dict[int, list[int]]
    ) -> None:
        for client in self.world.clients:
            name = client.actor.name
            for seq, outcomes in client.outcomes.items():
                for task, came in outcomes.items():
                    if len(came) > 1:
                        self.wrong.append(f"{name} was given task {seq}-{task} {len(came)} times")
                    value = came[0].value
                    if came[0].failure is None and value != work(numbers[seq][task]):
                        self.wrong.append(f"{name} was given {value!r} for task {seq}-{task}")
                missing = batches[seq][0].n_tasks - len(outcomes)
                if missing and seq not in self.world.truth.cancelled_batches and not self.ran_out:
                    self.wrong.append(f"{name} was not given {missing} results of {seq}: {client.error}")


def _nothing(sha256: str) -> object:
    raise NotImplementedError(sha256)
