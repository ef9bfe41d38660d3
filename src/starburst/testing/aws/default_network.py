"""The default VPC of a region leads to the internet, as in every real account; moto's leads nowhere."""

from __future__ import annotations

from starburst.testing.aws.front import Answer, Call
from starburst.testing.aws.world import World

__all__ = ["install"]


def install(world: World) -> None:
    """See to each region when it is first asked about its network."""
    ready: set[str] = set()

    def see_to(call: Call) -> Answer | None:
        if call.service == "ec2" and call.region not in ready:
            with world.lock:
                if call.region not in ready:
                    ready.add(call.region)
                    _open(world.options.account, call.region)
        return None

    world.front.filters.append(see_to)


def _open(account: str, region: str) -> None:
    from moto.ec2.models import ec2_backends

    backend = ec2_backends[account][region]
    default = next((vpc for vpc in backend.vpcs.values() if vpc.is_default), None)
    if default is None:
        return
    gateway = backend.create_internet_gateway()
    backend.attach_internet_gateway(gateway.id, default.id)
    for table in backend.route_tables.values():
        if table.vpc_id == default.id and table.main_association_id:
            backend.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
