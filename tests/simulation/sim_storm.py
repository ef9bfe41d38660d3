"""What befalls a simulated world: deaths, freezes and changes of mind, at rates that its plan tells."""

from __future__ import annotations

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

    async def blow(self) -> None:
        world, plan = self._world, self._world.plan
        rates = {
            self._kill_worker: plan.kills,
            self._kill_many: plan.mass_kills,
            self._freeze_worker: plan.freezes,
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

    def _freeze_worker(self) -> None:
        if thawed := [m.actor for m in self._world.provider.living if not m.actor.frozen]:
            self._freeze(self._world.rng.choice(thawed))

    def _freeze_supervisor(self) -> None:
        if thawed := [actor for actor in self._world.leading if not actor.frozen]:
            self._freeze(self._world.rng.choice(thawed))

    def _freeze(self, actor: Actor) -> None:
        world = self._world
        seconds = world.rng.expovariate(1.0 / world.plan.freeze_s)
        world.network.note(actor.name, f"FROZEN for {seconds:.2f} s")
        actor.freeze()

        async def wake() -> None:
            await world.clock.sleep(seconds)
            world.network.note(actor.name, "WOKEN")
            actor.wake()

        world.spawn(wake())

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
