"""A provider whose machines are actors: starts take time, capacity runs out, spot instances are taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim_actors import Actor

from starburst.compute import Launched, LaunchSpec, Place, ProviderStatus
from starburst.errors import ProviderError
from starburst.options import Options
from starburst.worker.agent import Agent

Boot = Callable[[Actor, LaunchSpec, int], Coroutine[Any, Any, Agent]]


@dataclass(eq=False)
class Machine:
    """One worker, as its provider knows it."""

    actor: Actor
    state: str = "starting"
    exit_code: int | None = None
    agent: Agent | None = None
    stop_asked: bool = False

    @property
    def alive(self) -> bool:
        return self.state in ("starting", "running")

    @property
    def works(self) -> bool:
        """Whether it is one of the workers there are: it has not been asked to leave, and has not begun to."""
        return self.alive and not self.stop_asked and not (self.agent is not None and self.agent.stopping)


class SimProvider:
    """Implements the provider's port.

    Args:
        world: What it needs of the world: ``actor``, ``boot_agent``, ``rng``, ``clock``, ``faults``, ``launched``.
    """

    name = "SIM"

    def __init__(self, world: Any) -> None:
        self._world = world
        self.machines: dict[str, Machine] = {}

    @property
    def living(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.alive]

    async def prepare(self, options: Options) -> Place:
        return Place()

    def attach(self, deployment: Mapping[str, Any]) -> None:
        return

    async def launch(self, spec: LaunchSpec) -> Launched:
        world = self._world
        if world.chaos and world.rng.random() < world.plan.refusals:
            raise ProviderError("simulated: no capacity")
        for ordinal, name in enumerate(spec.workers, spec.first_ordinal):
            machine = self.machines[name] = Machine(world.actor(name))
            machine.actor.start(self._live(machine, ordinal, spec))
        await world.launched()
        return Launched(workers=tuple(self._status(name) for name in spec.workers))

    async def launch_supervisor(self, session_url: str, session_id: str, **_: Any) -> ProviderStatus:
        raise ProviderError("simulated: the world starts supervisors itself")

    async def describe(self, session_id: str) -> list[ProviderStatus]:
        world = self._world
        if world.chaos and world.rng.random() < world.plan.refusals / 4:
            raise ProviderError("simulated: throttled")
        return [self._status(name) for name in sorted(self.machines)]

    async def stop(
        self,
        session_id: str,
        workers: Sequence[str] | None = None,
        *,
        grace_s: float = 10.0,
        wait: bool = True,
    ) -> None:
        world = self._world
        names = self.machines if workers is None else workers
        machines = [self.machines[name] for name in names if name in self.machines]
        for machine in machines:
            machine.stop_asked = True
            machine.actor.start(self._terminate(machine))
        deadline_s = world.clock.monotonic() + grace_s
        while any(machine.alive for machine in machines) and world.clock.monotonic() < deadline_s:
            await world.clock.sleep(0.1)
        for machine in machines:
            self.kill(machine)

    async def logs(self, session_id: str, worker: str, *, offset_bytes: int = 0) -> bytes:
        return b""

    async def tend(self, session_id: str) -> None:
        return

    async def forget(self, session_id: str) -> None:
        return

    def kill(self, machine: Machine) -> None:
        """As by SIGKILL, or a spot interruption that nobody was told of."""
        if machine.alive:
            self._world.network.note(machine.actor.name, "KILLED")
            machine.state, machine.exit_code = "exited", -9
            machine.actor.kill()

    async def _live(self, machine: Machine, ordinal: int, spec: LaunchSpec) -> None:
        world = self._world
        try:
            await machine.actor.clock.sleep(world.rng.expovariate(1.0 / world.plan.boot_s))
            machine.state = "running"
            machine.agent = await world.boot_agent(machine.actor, ordinal, spec.slots)
            if machine.stop_asked:
                machine.agent.stop("asked to stop (SIGTERM)")
            reason = await machine.agent.run()
        except asyncio.CancelledError:
            machine.state, machine.exit_code = "exited", -9
            raise
        except BaseException as error:
            machine.state, machine.exit_code = "exited", 1
            world.complain(f"worker {machine.actor.name} failed: {error!r}")
            world.failures.append(error)
        else:
            world.network.note(machine.actor.name, f"LEFT {reason}")
            machine.state, machine.exit_code = "exited", 0
        for task in [task for task in machine.actor.tasks if task is not asyncio.current_task()]:
            task.cancel()

    async def _terminate(self, machine: Machine) -> None:
        """SIGTERM: a frozen process gets it when it wakes."""
        await machine.actor.gate()
        if machine.alive and machine.agent is not None:
            machine.agent.stop("asked to stop (SIGTERM)")

    def _status(self, name: str) -> ProviderStatus:
        machine = self.machines[name]
        reason = "killed by SIGKILL" if machine.exit_code == -9 else f"exit code {machine.exit_code}"
        return ProviderStatus(worker=name, state=machine.state, exit_code=machine.exit_code, reason=reason)
