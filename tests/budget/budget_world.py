"""A whole session in one process and in virtual time, in which every request of every side is counted.

Client, supervisor and workers are the real ones, each with a view of its own of one store in memory; only the
workers' runner processes are simulated. Nothing here depends on how fast the machine is.
"""

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, field

from starburst.client.connection import Connection
from starburst.client.packing import pack_map, pack_submits
from starburst.client.pool import Pool
from starburst.compute.base import Launched, ProviderStatus
from starburst.protocol.keys import Keys
from starburst.protocol.payload import LargeObjects, dump_call, dump_function
from starburst.protocol.records import Environment, Manifest
from starburst.protocol.sessions import create_session
from starburst.store.base import PollPolicy
from starburst.store.memory import MemoryStore
from starburst.testing import Fault, FaultyStore, ManualClock
from starburst.testing.simulation import Act, simulated_runners
from starburst.worker.agent import Agent, AgentOptions
from starburst.worker.objects_cache import ObjectCache

SESSION = "session-budget"


def identity(x):
    return x


@dataclass(frozen=True)
class Kind:
    """How a kind of store behaves, and what may be asked of it.

    Attributes:
        poll: How often it is worth asking.
        latency_s: How long a request takes.
        quiet_per_s: Requests a second of a pool with two warm workers that have nothing to do.
        waiting_per_s: Requests a second while one long task runs.
    """

    name: str
    poll: PollPolicy
    latency_s: float
    quiet_per_s: float
    waiting_per_s: float


FOLDER = Kind("folder", PollPolicy(0.002, 0.1), 0.0002, quiet_per_s=30, waiting_per_s=40)
S3 = Kind("s3", PollPolicy(0.1, 2.0), 0.02, quiet_per_s=8, waiting_per_s=7)


@dataclass
class Member:
    """One worker of the provider below."""

    agent: Agent
    store: MemoryStore
    process: asyncio.Task = field(default=None)


class Machines:
    """A provider whose workers are the real agents, as coroutines."""

    name = "MACHINES"

    def __init__(self, world):
        self.world = world
        self.members = {}

    async def launch(self, spec):
        for ordinal, name in enumerate(spec.workers, spec.first_ordinal):
            member = self.members[name] = self.world.member(name, ordinal)
            member.process = asyncio.ensure_future(self._live(member))
        return Launched(workers=tuple(self._status(name) for name in spec.workers))

    async def _live(self, member):
        await self.world.clock.sleep(self.world.boot_s)
        await member.agent.run()

    async def describe(self, session_id):
        return [self._status(name) for name in sorted(self.members)]

    async def stop(self, session_id, workers=None, *, grace_s=10.0, wait=True):
        members = [self.members[name] for name in (self.members if workers is None else workers)]
        for member in members:
            member.agent.stop("asked to stop")
        await asyncio.gather(*(member.process for member in members))

    async def logs(self, session_id, worker, *, offset_bytes=0):
        return b""

    async def tend(self, session_id):
        pass

    async def forget(self, session_id):
        self.members = {name: m for name, m in self.members.items() if not m.process.done()}

    def _status(self, name):
        done = self.members[name].process.done()
        return ProviderStatus(
            worker=name, state="exited" if done else "running", exit_code=0 if done else None
        )

    @property
    def alive(self):
        return [member for member in self.members.values() if not member.process.done()]


class World:
    """A session, and how many requests were made for it so far."""

    def __init__(self, kind, *, workers=2, task_s=0.0, boot_s=0.3, **options):
        self.kind = kind
        self.clock = ManualClock()
        self.boot_s = boot_s
        self.durations = {}
        self.task_s = task_s
        self.name = secrets.token_hex(8)
        self.stores = []
        self._asked = Counter()
        self.provider = Machines(self)
        self.manifest = Manifest(
            session_id=SESSION,
            kind="map",
            created_at=self.clock.time(),
            owner="somebody",
            host="somewhere",
            launch_type="MACHINES",
            environment=Environment(),
            **{
                "workers": workers,
                "slots": 1,
                "max_attempts": 3,
                "lease_s": 15.0,
                "idle_timeout_s": 60.0,
                "session_timeout_s": 3600.0,
                "absolute_timeout_s": 86400.0,
                **options,
            },
        )

    def open_store(self):
        """The store as one more process opens it."""
        store = MemoryStore(self.name)
        store.poll = self.kind.poll
        self.stores.append(store)
        return FaultyStore(store, clock=self.clock, script=self._delay)

    def _delay(self, verb, key):
        self._asked[key.removeprefix(f"sessions/{SESSION}/").partition("/")[0]] += 1
        return Fault(delay_s=self.kind.latency_s)

    def member(self, name, ordinal):
        store = self.open_store()
        agent = Agent(
            store,
            self.manifest,
            AgentOptions(worker=name, ordinal=ordinal),
            clock=self.clock,
            launch_runner=simulated_runners(self._behave, self.clock),
            cache=ObjectCache(store, Keys(SESSION)),
            usage=lambda: (0.0, 0),
        )
        return Member(agent, store)

    def _behave(self, job, task, args):
        return Act(self.durations.get((job.batch, task), self.task_s))

    @property
    def requests(self):
        """Requests of all sides."""
        return sum(store.counts.total for store in self.stores)

    def asked(self, folder):
        """Requests for what is in a folder of the session."""
        return self._asked[folder.rstrip("/")]

    @property
    def usd(self):
        """What they would cost on S3."""
        return sum(store.counts.s3_usd() for store in self.stores)

    def run(self, scenario):
        """Run ``scenario(world)``, whose client is ``world.pool``; then close that and see that nobody is left."""

        async def main():
            store = self.open_store()
            assert await create_session(store, self.manifest)
            self.pool = Pool(Connection(store, self.manifest, self.provider, self.clock))
            try:
                return await scenario(self)
            finally:
                await self.pool.close()
                assert not self.provider.alive
                self.left = await MemoryStore(self.name).list("")

        return self.clock.run(main())

    async def pass_s(self, seconds):
        """Let time pass; returns the requests that were made meanwhile."""
        before = self.requests
        await self.clock.sleep(seconds)
        return self.requests - before

    async def submit(self, packed):
        """One submission, as ``map`` and ``Executor.map`` make it; returns the future of its values."""
        values = [None] * packed.n_tasks
        missing = packed.n_tasks
        done = asyncio.get_running_loop().create_future()

        def on_run(run):
            nonlocal missing
            for i, outcome in enumerate(run.outcomes, run.first):
                values[i] = outcome.value
            missing -= len(run.outcomes)
            if not missing:
                done.set_result(values)

        lanes = self.pool.connection.lanes
        header = packed.header(lanes=lanes, timeout_s=None, retries=0, at=self.clock.time())
        await self.pool.submit(packed, header, on_run, done.set_exception)
        return done

    async def map(self, n_tasks, chunksize=None):
        packed = pack_map(identity, [range(n_tasks)], lanes=self.pool.connection.lanes, chunksize=chunksize)
        assert await (await self.submit(packed)) == list(range(n_tasks))

    async def submit_each(self, n_tasks, gathered):
        """As ``Executor.submit`` called again and again: so many calls are gathered for each submission."""
        function = dump_function(identity, LargeObjects())
        pending = []
        for first in range(0, n_tasks, gathered):
            calls = [
                dump_call((i,), {}, LargeObjects()) for i in range(first, min(n_tasks, first + gathered))
            ]
            packed = pack_submits(function, "identity", calls, LargeObjects(), self.pool.connection.lanes)
            pending.append(await self.submit(packed))
        found = await asyncio.gather(*pending)
        assert [value for values in found for value in values] == list(range(n_tasks))
