"""EC2 in the simulator: puts its parts together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from starburst.testing.aws import group_hooks, metadata, provider_hooks, schedules
from starburst.testing.aws.control import Handler, Reply, Request
from starburst.testing.aws.fleet import Fleet

if TYPE_CHECKING:
    from starburst.testing.aws.hosts import Host
    from starburst.testing.aws.world import World

__all__ = ["install"]


def install(world: World) -> None:
    """Hosts for ECS, what scales them, what interrupts them, and what happens at a given time."""
    fleet = Fleet(world)
    world.placer = fleet
    group_hooks.install(fleet)
    provider_hooks.install(fleet)
    metadata.install(world, fleet)
    schedules.install(world, fleet)
    for verb, handler in _verbs(world, fleet).items():
        world.control.route(f"/verbs/{verb}", handler)
    fleet.start()


def _verbs(world: World, fleet: Fleet) -> dict[str, Handler]:
    def host_of(request: Request) -> Host:
        return fleet.groups.hosts[request.json()["instance"]]

    def hosts(_request: Request) -> Reply:
        with world.lock:
            return Reply(msgspec.json.encode(fleet.infos()))

    def interrupt(request: Request) -> Reply:
        with world.lock:
            fleet.interrupt(host_of(request))
        return Reply({})

    def kill(request: Request) -> Reply:
        with world.lock:
            fleet.end(host_of(request), "an instance was taken out of service: its hardware failed.")
        return Reply({})

    return {"hosts": hosts, "interrupt-host": interrupt, "kill-host": kill}
