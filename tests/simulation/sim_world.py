"""One seed's world: agents, supervisors, clients and a provider on one store in memory, and what befalls them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

from sim_actors import Actor, Link, Network, task_factory
from sim_clients import Client
from sim_plan import BatchPlan, Plan, make_plan
from sim_provider import SimProvider
from sim_storm import Storm

from starburst.errors import StoreError
from starburst.protocol.keys import Keys
from starburst.protocol.records import Environment, Manifest
from starburst.protocol.sessions import EventLog, append_event, create_session, read_batch
from starburst.protocol.state import SessionState
from starburst.store.base import PollPolicy
from starburst.store.memory import MemoryStore
from starburst.store.retry import RetryingStore
from starburst.supervisor import Identity, Supervisor
from starburst.testing import FaultyStore, ManualClock
from starburst.testing.simulation import Act, SimulatedRunner
from starburst.worker.agent import Agent, AgentOptions
from starburst.worker.ipc import Job
from starburst.worker.objects_cache import ObjectCache

SESSION = "session-simulated"
GRACE_S = 1.0
"""How long after a deadline a task may still begin: loops look every 0.05 s, and clocks may be wrong."""


class World:
    """Runs one plan and keeps what the checks need."""

    def __init__(self, plan: Plan, *, trace: bool = False) -> None:
        self.plan = plan
        self.rng = random.Random(f"world {plan.seed}")
        self.clock = ManualClock()
        self.store = MemoryStore()
        self.store.poll = PollPolicy(plan.poll_max_s / 10, plan.poll_max_s)
        self.keys = Keys(SESSION)
        self.network = Network(
            self.clock,
            random.Random(f"network {plan.seed}"),
            latency_s=plan.latency_s,
            error=plan.error,
            lost=plan.lost,
            slow=plan.slow,
            late=plan.late,
        )
        self.network.trace = [] if trace else None
        self.provider = SimProvider(self)
        self.manifest = Manifest(
            session_id=SESSION,
            kind="session",
            created_at=self.clock.time(),
            owner="somebody",
            host="somewhere",
            launch_type="SIM",
            workers=plan.workers,
            slots=plan.slots,
            max_attempts=plan.max_attempts,
            lease_s=plan.lease_s,
            idle_timeout_s=plan.idle_timeout_s,
            session_timeout_s=plan.session_timeout_s,
            absolute_timeout_s=plan.absolute_timeout_s,
            environment=Environment(),
        )
        self.truth = SessionState.of(self.manifest)
        self._events = EventLog(self.store, self.keys)
        self.chaos = True
        self.over = False
        self.clients: list[Client] = []
        self.supervisors: list[Actor] = []
        self._background: set[asyncio.Task[Any]] = set()
        self.complaints: list[str] = []
        self.failures: list[BaseException] = []
        self.runs: Counter[int] = Counter()
        self.disturbed: set[int] = set()
        self._terms, self._term_at = 0, float("-inf")
        self.asked_back: set[tuple[int, int]] = set()
        self.withdrawn: set[tuple[int, int]] = set()

    # What actors are made of

    def actor(self, name: str) -> Actor:
        skew_s = self.rng.uniform(-1, 1) * self.plan.skew_s
        return Actor(name, self.clock, random.Random(f"{name} {self.plan.seed}"), skew_s=skew_s)

    def link(self, actor: Actor, *, patient: bool = False) -> RetryingStore:
        """The session's store as a process opens it."""
        faulty = FaultyStore(self.store, clock=self.clock, script=self.network.script)
        link = Link(actor, self.network, faulty)
        if patient:
            return RetryingStore(link, clock=actor.clock, max_tries=10_000, max_total_s=300.0, full_too=True)
        return RetryingStore(link, clock=actor.clock)

    async def boot_agent(self, actor: Actor, ordinal: int, slots: int) -> Agent:
        store = self.link(actor, patient=True)
        runner_clock = self.clock if self.plan.agent_only else actor.clock

        async def launch_runner(locate: Any) -> SimulatedRunner:
            await actor.clock.sleep(actor.rng.uniform(0.01, 0.1))
            return SimulatedRunner(
                lambda job, task, args: self.behave(actor, job, task, args),
                _BootClock(runner_clock, actor),
                agent_clock=actor.clock,
                hop_s=actor.rng.choice((0.0, 0.001, 0.05)),
            )

        return Agent(
            store,
            self.manifest,
            AgentOptions(worker=actor.name, ordinal=ordinal, slots=slots, drain_s=2.0),
            clock=actor.clock,
            launch_runner=launch_runner,
            cache=ObjectCache(store, self.keys),
            usage=lambda: (0.0, 0),
        )

    def behave(self, actor: Actor, job: Job, task: int, args: tuple[Any, ...]) -> Act:
        """A task begins."""
        number = args[0] if args[0] >= 0 else -args[0] - 1
        self.runs[number] += 1
        late_s = self.clock.time() - self.truth.deadline_at
        if late_s > GRACE_S and self.clock.monotonic() - actor.woken_at > GRACE_S and not actor.disturbed:
            self.complain(f"{actor.name} began task {number} {late_s:.2f} s after the deadline")
        self.network.note(actor.name, f"RUN {job.batch}-{task} ({number})")
        plan = self.plan.tasks[number]
        if plan.kind == "kills its process":
            return Act(plan.duration_s, "simulated: segmentation fault")
        if plan.kind == "kills its worker":
            self.spawn(self._kill_after(actor, plan.duration_s))
            return Act(float("inf"))
        if self.chaos and actor.rng.random() < self.plan.crashes * plan.duration_s:
            self.disturbed.add(number)
            return Act(plan.duration_s, "simulated: killed from outside")
        return Act(plan.duration_s)

    async def _kill_after(self, actor: Actor, seconds: float) -> None:
        await actor.clock.sleep(seconds)
        self.provider.kill(self.provider.machines[actor.name])

    async def launched(self) -> None:
        """Workers were started: are there too many now?

        While one supervisor takes over from another that may only be slow, a worker too many does no harm.
        """
        await self._see()
        working = [
            m.actor.name for m in self.provider.living if m.works and m.actor.name not in self.truth.lost
        ]
        if len(working) > self.truth.workers:
            self.network.note("world", f"TOO MANY, {self.truth.workers} are allowed: {' '.join(working)}")
            if self.clock.monotonic() - self._term_at > 2 * self.plan.lease_s and not self.plan.scalings:
                self.complain(f"{len(working)} workers where {self.truth.workers} are allowed")

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Let something go on beside all else."""
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def start_client(self, name: str, batches: tuple[BatchPlan, ...], *, attach: bool = False) -> None:
        client = Client(self, self.actor(name))
        self.clients.append(client)
        client.start(batches, attach=attach)

    def calm_down(self) -> None:
        """From now on nothing goes wrong."""
        self.chaos = False
        self.network.calm = True
        self.network.note("world", "CALM")

    @property
    def leading(self) -> list[Actor]:
        """Supervisors, and those who stand by."""
        return [actor for actor in self.supervisors if actor.tasks]

    def complain(self, message: str) -> None:
        self.network.note("world", f"COMPLAINT {message}")
        self.complaints.append(message)

    # What happens

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(task_factory)
        loop.set_exception_handler(self._on_loop_error)
        await create_session(self.store, self.manifest)
        watch = [asyncio.ensure_future(self._keep_truth()), asyncio.ensure_future(self._keep_supervised())]
        for n, batches in enumerate(self.plan.clients):
            self.start_client(f"client-{n}", batches)
        storm = asyncio.ensure_future(Storm(self).blow())
        patience_s = 300.0 + 3 * self.plan.work_s
        if not await self._within(patience_s, self._clients_are_done):
            self.complain(f"clients still wait after {patience_s:.0f} s: {self._waiting()}")
        await storm
        if not self.complaints and not await self._within(60.0, self._is_marked):
            self.complain("not all chunks have a marker, 60 s after all results were there")
        self.over = True
        if self.truth.ended is None:
            await append_event(self.store, self.keys, self.clock, "terminated", data={"reason": "closed"})
        if not await self._within(60.0, self._is_quiet):
            left = [*(machine.actor for machine in self.provider.living), *self.leading]
            self.complain(f"60 s after the end there are still {[actor.name for actor in left]}")
        for task in watch:
            task.cancel()
        await asyncio.gather(*watch, return_exceptions=True)

    async def _within(self, seconds: float, condition: Any) -> bool:
        until_s = self.clock.monotonic() + seconds
        while not await condition():
            if self.clock.monotonic() >= until_s:
                return False
            await self.clock.sleep(0.1)
        return True

    async def _clients_are_done(self) -> bool:
        return all(client.finished for client in self.clients)

    def _waiting(self) -> str:
        return ", ".join(f"{c.actor.name} for {sorted(c.waiting)}" for c in self.clients if not c.finished)

    async def _is_marked(self) -> bool:
        if self.truth.name(self.clock.time()) != "open":
            return True
        marked: Counter[int] = Counter()
        for info in await self.store.list(self.keys.done_marks()):
            mark = self.keys.parse_done(info.key)
            marked[mark.chunk.batch] += mark.ok + mark.failed
        for info in await self.store.list(self.keys.batches):
            seq = int(info.key.rsplit("/", 1)[1])
            header, _ = await read_batch(self.store, info)
            if (
                header.source is None
                and seq not in self.truth.cancelled_batches
                and marked[seq] < header.n_tasks
            ):
                return False
        return True

    async def _is_quiet(self) -> bool:
        return not self.provider.living and not self.leading

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, StoreError | asyncio.CancelledError):
            return
        self.complain(f"an error that nobody looked at: {context.get('message')} {error!r}")
        if error is not None:
            self.failures.append(error)

    async def _keep_truth(self) -> None:
        while True:
            await self._see()
            await self.clock.sleep(0.02)

    async def _see(self) -> None:
        """Bring up to date what the events add up to, and which term of office it is."""
        terms = [
            info.key for info in await self.store.list(self.keys.leaders) if not info.key.endswith(".beat")
        ]
        if len(terms) > self._terms:
            self._terms, self._term_at = len(terms), self.clock.monotonic()
        for event in await self._events.news():
            self.truth.apply(event)
            self.network.note("world", f"EVENT {event.what} {event.data}")

    async def _keep_supervised(self) -> None:
        """When there is no supervisor, somebody starts one, sooner or later; now and then two."""
        while True:
            if not self.leading and not self.over:
                for _ in range(self.rng.choice((1, 1, 1, 2))):
                    self._start_supervisor()
            await self.clock.sleep(self.rng.uniform(0.1, 1.0))

    def _start_supervisor(self) -> None:
        number = len(self.supervisors)
        actor = self.actor(f"supervisor-{number}")
        self.supervisors.append(actor)
        here = self.rng.random() < 0.5
        me = Identity(
            detached=True,
            host="here" if here else f"host-{number}",
            pid=number,
            is_alive=lambda pid, _: bool(self.supervisors[pid].tasks),
        )

        async def supervise() -> None:
            supervisor = Supervisor(
                self.link(actor), self.manifest, self.provider, actor.clock, root_url="memory://world", me=me
            )
            try:
                await supervisor.run(asyncio.Event(), wait=True)
            except StoreError as error:
                self.network.note(actor.name, f"GAVE UP {error}")

        actor.start(supervise())


class _BootClock:
    """A runner's clock on the machine of an actor: the same monotonic time, whoever is frozen."""

    def __init__(self, clock: Any, actor: Actor) -> None:
        self._clock = clock
        self._actor = actor

    def monotonic(self) -> float:
        return self._actor.clock.monotonic()

    def time(self) -> float:
        return self._actor.clock.time()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Names, nonces and back-off come from the seed; loggers say nothing."""
    rng = random.Random(f"names {seed}")
    before = secrets.token_hex
    secrets.token_hex = lambda nbytes=8: f"{rng.getrandbits(8 * nbytes):0{2 * nbytes}x}"
    random.seed(seed)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        secrets.token_hex = before
        logging.disable(level)


def run_seed(seed: int, *, scale: int = 1, trace: bool = False) -> World:
    """Run the world of a seed; its checks are another matter."""
    world = World(make_plan(seed, scale=scale), trace=trace)
    with _seeded(seed):
        world.clock.run(world.main())
    return world
