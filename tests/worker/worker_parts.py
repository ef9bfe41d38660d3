"""What tests of the worker share: sessions in memory, submissions, runners, agents under a manual clock."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from helpers import eventually
from starburst.client.packing import pack_map
from starburst.protocol.keys import ChunkId, Keys
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import Claim, Environment, FunctionHeader, Heartbeat, Manifest, decode_json
from starburst.protocol.results import Outcome, Run, decode_result, encode_result
from starburst.protocol.sessions import append_event, create_session, publish_batch, read_done, read_heartbeat
from starburst.protocol.state import SessionState
from starburst.store.base import PollPolicy, Store
from starburst.store.memory import MemoryStore
from starburst.testing import ManualClock
from starburst.testing.simulation import Act, Behaviour, simulated_runners
from starburst.worker import ipc
from starburst.worker.agent import Agent, AgentOptions
from starburst.worker.board import Board
from starburst.worker.objects_cache import ObjectCache
from starburst.worker.runner_process import Crash, RunnerProcess

SESSION = "session-worker"
KEYS = Keys(SESSION)
FUNCTION = "f" * 64


def manifest_of(clock: Any, **options: Any) -> Manifest:
    values: dict[str, Any] = {
        "workers": 4,
        "slots": 1,
        "max_attempts": 3,
        "lease_s": 5.0,
        "idle_timeout_s": 2.0,
        "session_timeout_s": 600.0,
        "absolute_timeout_s": 3600.0,
        "environment": Environment(),
        **options,
    }
    return Manifest(
        session_id=SESSION,
        kind="session",
        created_at=clock.time(),
        owner="somebody",
        host="here",
        launch_type="LOCAL",
        **values,
    )


async def submit(
    store: Store,
    fn: Callable[..., Any],
    items: Sequence[Any],
    *,
    chunksize: int | None = None,
    lanes: int = 1,
    timeout_s: float | None = None,
    retries: int = 0,
) -> int:
    """Write a submission as a client does; returns its number."""
    packed = pack_map(fn, [items], lanes=lanes, chunksize=chunksize)
    header = packed.header(lanes=lanes, timeout_s=timeout_s, retries=retries, at=0.0)
    body = encode_pack(FunctionHeader(nonce=packed.function_sha256[:16]), [packed.function])
    await store.create(KEYS.function(packed.function_sha256), body)
    return await publish_batch(store, KEYS, lambda _: encode_pack(header, packed.frames))


class Session:
    """A session in memory under a manual clock, with agents whose tasks behave as the test says."""

    def __init__(self, *, poll_max_s: float = 0.05, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore()
        self.store.poll = PollPolicy(poll_max_s / 10, poll_max_s)
        self.manifest = manifest_of(self.clock, **options)
        self.keys = KEYS

    def run(self, scenario: Callable[[Session], Any]) -> Any:
        """Run ``scenario(session)`` in virtual time."""

        async def main() -> Any:
            await create_session(self.store, self.manifest)
            return await scenario(self)

        return self.clock.run(main())

    def agent(self, name: str, behaviour: Behaviour | None = None, **options: Any) -> Agent:
        store = options.pop("store", self.store)
        launch = options.pop("launch_runner", None)
        return Agent(
            store,
            self.manifest,
            AgentOptions(worker=name, **options),
            clock=self.clock,
            launch_runner=launch or simulated_runners(behaviour or (lambda *_: Act(0.1)), self.clock),
            cache=ObjectCache(store, self.keys),
            usage=lambda: (0.0, 0),
        )

    def board(self, name: str, ordinal: int = 0, state: SessionState | None = None) -> Board:
        return Board(
            self.store,
            self.keys,
            self.manifest,
            worker=name,
            ordinal=ordinal,
            clock=self.clock,
            state=state or SessionState.of(self.manifest),
        )

    async def submit(self, fn: Callable[..., Any], items: Sequence[Any], **options: Any) -> int:
        return await submit(self.store, fn, items, **options)

    async def say(self, what: str, **data: Any) -> None:
        await append_event(self.store, self.keys, self.clock, what, by="test", data=data)

    async def until(self, condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
        """Let virtual time pass until the (perhaps awaitable) condition holds."""
        until_s = self.clock.monotonic() + timeout_s
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            assert self.clock.monotonic() < until_s, f"not within {timeout_s} virtual seconds"
            await self.clock.sleep(0.01)

    async def results(self, batch: int = 1) -> dict[int, Outcome]:
        """All outcomes; none may be there twice."""
        found: dict[int, Outcome] = {}
        for info in await self.store.list(self.keys.results(batch)):
            header, outcomes = decode_result(await self.store.get(info.key), info.key)
            for task, outcome in enumerate(outcomes, header.first):
                assert task not in found, f"task {task} has two results"
                found[task] = outcome
        return found

    async def values(self, batch: int = 1) -> dict[int, Any]:
        return {task: outcome.value for task, outcome in (await self.results(batch)).items()}

    async def marks(self, batch: int = 1) -> dict[int, tuple[int, int]]:
        marks = await read_done(self.store, self.keys, batch)
        assert len({mark.chunk for mark in marks}) == len(marks), "a chunk has two markers"
        return {mark.chunk.first: (mark.ok, mark.failed) for mark in marks}

    async def claims(self, first: int, batch: int = 1) -> list[Claim]:
        listed = await self.store.list(self.keys.claim_log(ChunkId(batch, first)))
        return [decode_json(Claim, await self.store.get(info.key), info.key) for info in listed]

    async def heartbeat(self, worker: str) -> Heartbeat:
        found = await read_heartbeat(self.store, self.keys, worker)
        assert found is not None
        return found

    async def write_result(
        self, first: int, values: Sequence[Any], *, chunk: int = 0, by: str = "zombie"
    ) -> bool:
        """What another worker writes."""
        run = Run()
        run.add_values(list(values))
        body = encode_result(run, first=first, worker=by, attempt=1, compress=False)
        return await self.store.create(self.keys.result(ChunkId(1, chunk), first), body)


class Jobs:
    """A real runner process and what came out of it."""

    def __init__(self, runner: RunnerProcess) -> None:
        self.runner = runner
        self.runs: list[Run] = []
        self._job = 0
        self._known: set[str] = set()

    @property
    def outcomes(self) -> list[Outcome]:
        """What the runs so far hold, one after the other."""
        whole = Run()
        for run in self.runs:
            whole.extend(run)
        if not whole.count:
            return []
        data = b"".join(encode_result(whole, first=0, worker="w", attempt=1, compress=False))
        return list(decode_result(data, "here")[1])

    async def start(
        self,
        fn: Callable[..., Any],
        items: Sequence[Any],
        *,
        start: int = 0,
        end: int | None = None,
        retries: int = 0,
        attempt: int = 1,
    ) -> asyncio.Task[Crash | None]:
        """Begin a job."""
        packed = pack_map(fn, [items], lanes=1, chunksize=len(items))
        sha256 = hashlib.sha256(packed.function).hexdigest()
        if sha256 not in self._known:
            self._known.add(sha256)
            await self.runner.give_function(sha256, packed.function)
        self._job += 1
        job = ipc.Job(
            job=self._job,
            batch=1,
            first=0,
            count=len(items),
            start=start,
            end=len(items) if end is None else end,
            function=sha256,
            layout=packed.calls.layout,
            retries=retries,
            attempt=attempt,
        )
        return asyncio.ensure_future(self.runner.run(job, packed.calls.frames[0], self.runs.append))

    async def run(self, fn: Callable[..., Any], items: Sequence[Any], **options: Any) -> Crash | None:
        """Run a job to its end."""
        return await asyncio.wait_for(await self.start(fn, items, **options), 60)

    @property
    def job(self) -> int:
        return self._job


@contextlib.asynccontextmanager
async def real_runner(
    locate: Callable[[str], Any] | None = None, *, log_fd: int = 2, sys_path: Sequence[str] = ()
) -> AsyncIterator[Jobs]:
    """A runner in a process of its own."""

    async def nowhere(sha256: str) -> str:
        raise LookupError(f"there is no object {sha256}")

    runner = await RunnerProcess.start(locate or nowhere, log_fd=log_fd, sys_path=sys_path)
    try:
        yield Jobs(runner)
    finally:
        await runner.close()


async def eventually_async(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    """As ``helpers.eventually``, while the loop goes on."""
    await asyncio.to_thread(eventually, condition, timeout_s)
