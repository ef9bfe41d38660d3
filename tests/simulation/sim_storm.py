"""What befalls a simulated world: deaths, freezes and changes of mind, at rates that its plan tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sim_actors import Actor

from starburst.protocol.sessions import append_event


class Storm:
    """Blows until the plan's time is up; from then on everything works.

    Args:
        world: What it blows through.
    """

    def __init__(self, world: Any) -> None:
        self._world = world
        self._awaited: list[list[Any]] = []
        world.network.on_create = self.saw_create

    async def blow(self) -> None:
        world, plan = self._world, self._world.plan
        rates = {
            self._kill_worker: plan.kills,
            self._kill_many: plan.mass_kills,
            self._disturb_worker: plan.freezes,
            self._kill_supervisor: plan.supervisor_kills,
            self._freeze_supervisor: plan.supervisor_freezes,
            self._kill_client: plan.client_kills,
            self._scale: plan.scalings,
        }
        until_s = world.clock.monotonic() + plan.chaos_s
        total = sum(rates.values())
        while total:
            pause_s = world.rng.expovariate(total)
            if world.clock.monotonic() + pause_s >= until_s:
                break
            await world.clock.sleep(pause_s)
            world.rng.choices(list(rates), weights=list(rates.values()))[0]()
        await world.clock.sleep(until_s - world.clock.monotonic())
        world.calm_down()

    def _kill_worker(self) -> None:
        world = self._world
        if living := world.provider.living:
            world.provider.kill(world.rng.choice(living))

    def _kill_many(self) -> None:
        world, living = self._world, self._world.provider.living
        for machine in world.rng.sample(living, world.rng.randint(0, len(living))):
            world.provider.kill(machine)

    def _disturb_worker(self) -> None:
        if calm := [m.actor for m in self._world.provider.living if not m.actor.disturbed]:
            self._disturb(self._world.rng.choice(calm))

    def _freeze_supervisor(self) -> None:
        if calm := [actor for actor in self._world.leading if not actor.disturbed]:
            self._freeze(self._world.rng.choice(calm))

    def _disturb(self, actor: Actor) -> None:
        world = self._world
        if world.rng.random() < world.plan.cuts:
            world.network.note(actor.name, "CUT OFF")
            actor.cut_off()
            self._end_later(actor.join, actor, "JOINED")
        else:
            self._freeze(actor)

    def _freeze(self, actor: Actor) -> None:
        self._world.network.note(actor.name, "FROZEN")
        actor.freeze()
        self._end_later(actor.wake, actor, "WOKEN")

    def _end_later(self, change: Callable[[], None], actor: Actor, what: str) -> None:
        """Around the length of a lease, or when others have taken some steps meanwhile."""
        world = self._world
        lease_s, over = world.plan.lease_s, asyncio.Event()
        if world.rng.random() < 0.5:
            self._awaited.append([actor, world.rng.randint(1, 4), over])
            wait_s = 4 * lease_s
        else:
            wait_s = lease_s * world.rng.choice((0.5, 1.2, 2.0)) * world.rng.uniform(0.7, 1.5)

        async def end() -> None:
            until_s = world.clock.monotonic() + wait_s
            while not over.is_set() and world.clock.monotonic() < until_s:
                await world.clock.sleep(0.05)
            await world.clock.sleep(world.rng.choice((0.0, 0.02, 0.3)))
            world.network.note(actor.name, what)
            change()

        world.spawn(end())

    def saw_create(self, actor: Actor, key: str, won: bool) -> None:
        """A request has been done, its sender does not know yet: a good moment to strike, or to come back."""
        world = self._world
        what, _, name = key.removeprefix(world.keys.prefix).partition("/")
        machine = world.provider.machines.get(actor.name)
        if machine is None or what not in ("claims", "results", "done", "batches"):
            return
        contested = not won or (what == "claims" and not name.endswith("/0001"))
        if contested:
            for waiting in [waiting for waiting in self._awaited if waiting[0] is not actor]:
                waiting[1] -= 1
                if waiting[1] == 0:
                    waiting[2].set()
                    self._awaited.remove(waiting)
        if world.chaos and world.rng.random() < world.plan.ambushes * (6 if contested else 1):
            world.network.note(actor.name, "AMBUSHED")
            if world.rng.random() < world.plan.ambush_kills:
                world.provider.kill(machine)
            elif not actor.disturbed:
                self._disturb(actor)

    def _kill_supervisor(self) -> None:
        world = self._world
        if world.leading:
            actor = world.rng.choice(world.leading)
            world.network.note(actor.name, "KILLED")
            actor.kill()

    def _kill_client(self) -> None:
        world = self._world
        living = [client for client in world.clients if not client.finished]
        if living:
            client = world.rng.choice(living)
            world.network.note(client.actor.name, "KILLED")
            client.actor.kill()
            world.clients.remove(client)
            world.start_client(f"{client.actor.name}+", (), attach=True)

    def _scale(self) -> None:
        world = self._world
        workers = world.rng.randint(1, 2 * world.plan.workers)
        world.spawn(append_event(world.store, world.keys, world.clock, "scaled", data={"workers": workers}))
