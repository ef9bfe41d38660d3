"""A provider for tests: its workers are coroutines that beat in the store and behave as the test says."""

import asyncio
from dataclasses import dataclass, field, replace

from starburst.compute import Launched, Place, ProviderStatus
from starburst.errors import ProviderError
from starburst.protocol.chunking import firsts
from starburst.protocol.keys import ChunkId, DoneMark, Keys
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import BatchHeader, Environment, Heartbeat, Manifest, encode_json
from starburst.protocol.sessions import EventLog, append_event, create_session
from starburst.store.memory import MemoryStore
from starburst.supervisor import Identity, Supervisor
from starburst.testing.clock import ManualClock

SESSION = "session-test"


@dataclass(slots=True, eq=False)
class Process:
    """One worker: what its provider knows, and the coroutine that is it."""

    worker: str
    ordinal: int
    state: str = "running"
    exit_code: int | None = None
    task: asyncio.Task | None = None
    frozen: bool = False
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    stop_grace_s: float | None = None


class Fleet:
    """Implements the provider's port over coroutines."""

    name = "FLEET"

    def __init__(self, world, behave):
        self.world = world
        self.behave = behave
        self.processes = {}
        self.refusals = []
        self.room = None
        self.taken = set()
        self.hopeless = ""
        self.waits_for = ""
        self.specs = []
        self.stopped = []
        self.supervisors = []
        self.tended = 0
        self.alive_when_tended = []
        self.slow = None
        self.fallback = ""
        self.placed = True

    async def launch(self, spec):
        if self.refusals:
            raise ProviderError(self.refusals.pop(0))
        self.specs.append(spec)
        room = len(spec.workers) if self.room is None else max(0, self.room - len(self.alive))
        spec = replace(spec, workers=spec.workers[:room])
        for ordinal, worker in enumerate(spec.workers, spec.first_ordinal):
            process = self.processes[worker] = Process(worker, ordinal)
            process.task = asyncio.ensure_future(self._live(process))
        return Launched(
            workers=tuple(self._status(self.processes[worker]) for worker in spec.workers),
            shortfall="the quota is used up" if len(spec.workers) < len(self.specs[-1].workers) else "",
            fallback=self.fallback,
        )

    async def prepare(self, options):
        return Place()

    def attach(self, deployment):
        pass

    async def _live(self, process):
        try:
            process.exit_code = await self.behave(self.world, process)
            process.state = "exited"
        except asyncio.CancelledError:
            process.state, process.exit_code = "exited", -9

    async def launch_supervisor(self, session_url, session_id, *, cwd=None, env=None, python=None):
        self.supervisors.append((session_url, cwd, python))
        return ProviderStatus(worker=f"supervisor-{len(self.supervisors)}", state="starting")

    async def describe(self, session_id):
        return [self._status(self.processes[worker]) for worker in sorted(self.processes)]

    def _status(self, process):
        exited = process.state == "exited"
        if not exited and not self.placed:
            return ProviderStatus(worker=process.worker, state="starting", placed=False)
        if not exited and self.waits_for:
            return ProviderStatus(worker=process.worker, state="starting", waits_for=self.waits_for)
        if exited and self.hopeless:
            return ProviderStatus(worker=process.worker, state="exited", reason=self.hopeless, hopeless=True)
        return ProviderStatus(
            worker=process.worker,
            state=process.state,
            exit_code=process.exit_code,
            reason="killed by SIGKILL" if process.exit_code == -9 else f"exit code {process.exit_code}",
            taken=exited and process.worker in self.taken,
            details={"zone": "here-1a"} if process.worker in self.taken else {},
        )

    async def tend(self, session_id):
        self.tended += 1
        alive = len(self.alive)
        await self.world.clock.sleep(5.0)
        if self.slow is not None:
            await self.slow.wait()
        self.alive_when_tended.append(alive)

    async def stop(self, session_id, workers=None, *, grace_s=10.0, wait=True):
        for worker in workers if workers is not None else self.processes:
            process = self.processes[worker]
            self.stopped.append((worker, grace_s))
            process.leave.set()
            deadline_s = self.world.clock.monotonic() + grace_s
            while process.state == "running" and self.world.clock.monotonic() < deadline_s:
                await self.world.clock.sleep(0.1)
            self.kill(worker)

    async def logs(self, session_id, worker, *, offset_bytes=0):
        return f"ImportError in {worker}".encode()

    async def forget(self, session_id):
        for worker in [name for name, process in self.processes.items() if process.state == "exited"]:
            del self.processes[worker]

    def kill(self, worker):
        process = self.processes[worker]
        if process.state == "running":
            process.task.cancel()
            process.state, process.exit_code = "exited", -9

    @property
    def alive(self):
        return [process for process in self.processes.values() if process.state == "running"]


class World:
    """A session in memory, a clock, a provider, and supervisors over them."""

    def __init__(self, behave=None, **options):
        self.clock = ManualClock()
        self.store = MemoryStore()
        self.keys = Keys(SESSION)
        self.fleet = Fleet(self, behave or steady)
        self.manifest = Manifest(
            session_id=SESSION,
            kind="session",
            created_at=self.clock.time(),
            owner="somebody",
            host="here",
            launch_type="FLEET",
            environment=Environment(cwd="", executable="no/such/python"),
            **{
                "workers": 4,
                "slots": 1,
                "max_attempts": 3,
                "lease_s": 10.0,
                "idle_timeout_s": 30.0,
                "session_timeout_s": 600.0,
                "absolute_timeout_s": 36_000.0,
                **options,
            },
        )
        self.batches = 0
        self.tasks = []

    def run(self, scenario):
        """Run ``scenario(world)`` under the clock and end all that it left."""

        async def main():
            await create_session(self.store, self.manifest)
            try:
                return await scenario(self)
            finally:
                for process in self.fleet.alive:
                    self.fleet.kill(process.worker)
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)

        return self.clock.run(main())

    def supervisor(self, pid=1, *, host="here", alive=True, store=None, detached=True):
        me = Identity(detached=detached, host=host, pid=pid, is_alive=lambda pid, since: alive)
        return Supervisor(
            store or self.store, self.manifest, self.fleet, self.clock, root_url="memory://world", me=me
        )

    def start(self, supervisor, *, wait=False):
        """Run a supervisor beside the scenario; returns its task and the event that stops it."""
        stop = asyncio.Event()
        task = asyncio.ensure_future(supervisor.run(stop, wait=wait))
        self.tasks.append(task)
        return task, stop

    async def submit(self, n_tasks, chunksize=1):
        self.batches += 1
        counts = [min(chunksize, n_tasks - first) for first in range(0, n_tasks, chunksize)]
        header = BatchHeader(n_tasks=n_tasks, firsts=tuple(firsts(counts)), counts=tuple(counts))
        assert await self.store.create(
            self.keys.batch(self.batches), encode_pack(header, [b""] * len(counts))
        )
        return self.batches

    async def finish(self, batch, first, ok=1, failed=0):
        await self.store.create(self.keys.done(DoneMark(ChunkId(batch, first), ok, failed)), b"")

    async def say(self, what, **data):
        await append_event(self.store, self.keys, self.clock, what, by="test", data=data)

    async def events(self, what=None):
        news = await EventLog(self.store, self.keys).news()
        return [event for event in news if what is None or event.what == what]

    async def beat(self, worker, n, state, reason="", done=0):
        heartbeat = Heartbeat(
            worker=worker,
            beat=n,
            state=state,
            started_at=0.0,
            at=self.clock.time(),
            reason=reason,
            tasks_done=done,
        )
        await self.store.overwrite(self.keys.worker(worker), encode_json(heartbeat))

    async def until(self, check, timeout_s=120.0):
        """Let time pass until ``check()`` holds."""
        deadline_s = self.clock.monotonic() + timeout_s
        while not check():
            assert self.clock.monotonic() < deadline_s, f"not within {timeout_s} s"
            await self.clock.sleep(0.05)

    async def pass_s(self, seconds):
        await self.clock.sleep(seconds)


async def steady(world, process):
    """Beats until it is told to leave, then says good-bye."""
    n = 0
    while not process.leave.is_set():
        n += 1
        if not process.frozen:
            await world.beat(process.worker, n, "running", done=n)
        await world.clock.sleep(world.manifest.heartbeat_s)
    await world.beat(process.worker, n + 1, "stopped", "asked to stop")
    return 0
