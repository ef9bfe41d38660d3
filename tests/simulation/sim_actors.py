"""Processes of the simulated world: each is a tree of coroutines that can be killed, or frozen and woken."""

from __future__ import annotations

import asyncio
import contextvars
import random
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from starburst.errors import StoreUnavailable
from starburst.store.base import Body, ObjectInfo
from starburst.testing import Fault, FaultyStore, ManualClock

T = TypeVar("T")

_current: contextvars.ContextVar[Actor | None] = contextvars.ContextVar("actor", default=None)


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> asyncio.Task[Any]:
    """Makes every task that an actor starts a part of that actor."""
    task = asyncio.Task(coro, loop=loop, context=context)
    actor = _current.get()
    if actor is not None:
        actor.tasks[task] = None
        task.add_done_callback(actor.ended)
    return task


class Actor:
    """One process of the world: a worker's agent, a supervisor or a client.

    Its clock may run ahead of the others'. Killed, it does nothing any more, not even clean up; its requests that are
    under way may still arrive. Frozen, it hears and does nothing until it is woken. Cut off, it goes on, but none of
    its requests gets anywhere until it is joined again.
    """

    def __init__(self, name: str, clock: ManualClock, rng: random.Random, *, skew_s: float = 0.0) -> None:
        self.name = name
        self.rng = rng
        self.clock = ActorClock(self, clock, skew_s=skew_s, boot_s=rng.uniform(0.0, 1e6))
        self.dead = False
        self.woken_at = float("-inf")
        self.tasks: dict[
            asyncio.Task[Any], None
        ] = {}  # in the order in which they began: a seed goes one way
        self.crashed: list[BaseException] = []
        self._thawed: asyncio.Event | None = None
        self._joined: asyncio.Event | None = None

    @property
    def frozen(self) -> bool:
        return self._thawed is not None

    @property
    def disturbed(self) -> bool:
        return self._thawed is not None or self._joined is not None

    def start(self, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``main`` as this process."""
        token = _current.set(self)
        try:
            return asyncio.ensure_future(main)
        finally:
            _current.reset(token)

    def kill(self) -> None:
        self.dead = True
        for task in list(self.tasks):
            task.cancel()

    def freeze(self) -> None:
        if self._thawed is None:
            self._thawed = asyncio.Event()

    def wake(self) -> None:
        if self._thawed is not None:
            self.woken_at = self.clock.real.monotonic()
            self._thawed.set()
            self._thawed = None

    def cut_off(self) -> None:
        if self._joined is None:
            self._joined = asyncio.Event()

    def join(self) -> None:
        if self._joined is not None:
            self._joined.set()
            self._joined = None

    async def wire(self) -> None:
        """Passes while the process can reach the store."""
        while self._joined is not None:
            await self._joined.wait()

    async def gate(self) -> None:
        """Passes while the process runs."""
        while self._thawed is not None and not self.dead:
            await self._thawed.wait()
        if self.dead:
            raise asyncio.CancelledError

    def ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)


class ActorClock:
    """The clock of one process: it started at another time than the others', and its wall clock may be wrong."""

    def __init__(self, actor: Actor, real: ManualClock, *, skew_s: float, boot_s: float) -> None:
        self.real = real
        self._actor = actor
        self._skew_s = skew_s
        self._boot_s = boot_s

    def monotonic(self) -> float:
        return self.real.monotonic() + self._boot_s

    def time(self) -> float:
        return self.real.time() + self._skew_s

    async def sleep(self, seconds: float) -> None:
        await self.real.sleep(seconds)
        await self._actor.gate()


class Network:
    """What lies between all processes and the store.

    Args:
        clock: The world's.
        rng: Decides what happens to each request.
        latency_s: Mean time that a request and its reply are under way.
        error: Share of requests that fail before they reach the store.
        lost: Share of requests that are done but whose reply is lost.
        slow: Share of requests that take a second or so.
        late: Share of requests that fail for the one who asks, and arrive all the same, later.
    """

    def __init__(
        self,
        clock: ManualClock,
        rng: random.Random,
        *,
        latency_s: float,
        error: float = 0.0,
        lost: float = 0.0,
        slow: float = 0.0,
        late: float = 0.0,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.latency_s = latency_s
        self.shares = (error, lost, slow, late)
        self.calm = False
        self.trace: list[str] | None = None
        self.digest = 0
        self.requests = 0
        self.on_create: Callable[[Actor, str, bool], None] = lambda actor, key, won: None
        self._late: set[asyncio.Task[Any]] = set()

    def script(self, verb: str, key: str) -> Fault | None:
        """For :class:`FaultyStore`."""
        if self.calm:
            return None
        error, lost, slow, _ = self.shares
        dice = self.rng.random()
        if dice < error:
            return Fault(error=StoreUnavailable(f"simulated: {verb} {key} failed"))
        if dice < error + lost:
            return Fault(lost_reply=StoreUnavailable(f"simulated: the reply to {verb} {key} was lost"))
        if dice < error + lost + slow:
            return Fault(delay_s=self.rng.expovariate(1.0))
        return None

    def is_late(self) -> bool:
        return not self.calm and self.rng.random() < self.shares[3]

    def delay_s(self) -> float:
        return self.rng.expovariate(1.0 / self.latency_s)

    def send_late(self, request: Callable[[], Awaitable[Any]], delay_s: float) -> None:
        """Let a request arrive that nobody waits for."""

        async def arrive() -> None:
            await self.clock.sleep(delay_s)
            try:
                await request()
            except Exception:
                return

        token = _current.set(None)
        try:
            task = asyncio.ensure_future(arrive())
        finally:
            _current.reset(token)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def note(self, who: str, what: str) -> None:
        """Something happened."""
        line = f"{self.clock.monotonic() - 1000:9.3f} {who:12} {what}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        if self.trace is not None:
            self.trace.append(line)


class Link:
    """The store as one process reaches it: every request takes its time, may fail, may arrive after its sender died."""

    def __init__(self, actor: Actor, network: Network, store: FaultyStore) -> None:
        self._actor = actor
        self._network = network
        self._store = store
        self.url = store.url
        self.counts = store.counts
        self.poll = store.poll
        self.compresses = store.compresses

    async def create(self, key: str, body: Body) -> bool:
        return await self._ask("create", key, lambda: self._store.create(key, body))

    async def overwrite(self, key: str, body: Body) -> None:
        await self._ask("overwrite", key, lambda: self._store.overwrite(key, body))

    async def get(self, key: str) -> memoryview:
        return await self._ask("get", key, lambda: self._store.get(key))

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        return await self._ask("get_range", key, lambda: self._store.get_range(key, start, length))

    async def list_folders(self, prefix: str) -> list[str]:
        return await self._ask("list_folders", prefix, lambda: self._store.list_folders(prefix))

    async def delete(self, keys: Sequence[str]) -> None:
        await self._ask("delete", ",".join(keys), lambda: self._store.delete(keys))

    def local_path(self, key: str) -> Path | None:
        return self._store.local_path(key)

    async def _ask(self, verb: str, key: str, request: Callable[[], Awaitable[T]]) -> T:
        network, actor = self._network, self._actor
        await actor.gate()
        network.requests += 1

        async def arrive() -> T:
            try:
                reply = await request()
            except Exception as error:
                network.note(actor.name, f"{verb} {key} -> {type(error).__name__}")
                raise
            said = reply if isinstance(reply, bool) else f"{len(reply)}" if isinstance(reply, list) else "ok"
            network.note(actor.name, f"{verb} {key} -> {said}")
            if verb == "create":
                network.on_create(actor, key, bool(reply))
            return reply

        if network.is_late():
            network.send_late(arrive, network.rng.expovariate(0.5))
            await network.clock.sleep(network.delay_s())
            await actor.gate()
            raise StoreUnavailable(f"simulated: {verb} {key} is late")
        try:
            await network.clock.sleep(network.delay_s())
            await actor.wire()
        except asyncio.CancelledError:
            if actor.dead and network.rng.random() < 0.5:
                network.send_late(arrive, network.delay_s())
            raise
        try:
            reply = await arrive()
        finally:
            await network.clock.sleep(network.delay_s())
            await actor.wire()
            await actor.gate()
        return reply

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        return await self._ask("list", prefix, lambda: self._store.list(prefix, start_after=start_after))
