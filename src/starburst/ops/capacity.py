"""EC2 capacity as a part of the set-up: one instance type, Spot or on-demand, at zero hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starburst.aws.autoscaling import GroupSpec, describe_group, list_groups
from starburst.aws.capacity_provider import attached_providers
from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment
from starburst.aws.instance_types import describe_types
from starburst.aws.names import capacity_provider_name
from starburst.aws.resource import MISSING, State
from starburst.clock import Clock
from starburst.errors import CloudError, NotSetUp
from starburst.ops.choices import DEFAULT_TYPES

__all__ = ["Capacity", "types_of"]


async def types_of(aws: Aws, chosen: Sequence[str]) -> tuple[str, ...]:
    """The instance types that get capacity: those chosen, else those that have some, else the default.

    Raises:
        OptionError: There is no such type in the region.
    """
    if chosen:
        await describe_types(aws, chosen)
        return tuple(chosen)
    groups = await list_groups(aws)
    have = {one.instance_types[0]: None for one in groups if len(one.instance_types) == 1}
    return tuple(have) or DEFAULT_TYPES


@dataclass(frozen=True, slots=True)
class Capacity:
    """Where EC2 hosts of one kind come from; see :mod:`starburst.compute.ec2_capacity`.

    Attributes:
        aws: The account and region.
        deployment: Tells what it is made in; None while that is not there.
        instance_types: In the order of preference.
        spot: Spot, or on-demand.
        clock: What waits are measured by.
    """

    aws: Aws
    deployment: Callable[[], Awaitable[Deployment | None]]
    instance_types: tuple[str, ...]
    spot: bool
    clock: Clock
    kind = "EC2 capacity"
    way_out = "use Fargate (starburst setup --fargate-only) or other types (--instance-types TYPE,TYPE)"

    @property
    def name(self) -> str:
        """The name of its parts."""
        return capacity_provider_name(self.instance_types, spot=self.spot)

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        try:
            group = await describe_group(self.aws, self.name)
        except NotSetUp as error:
            return State("foreign", (error.message,))
        if group is None:
            return MISSING
        deployment = await self.deployment()
        if deployment is None:
            return State.of(["the network is not there yet"])
        spec = GroupSpec(
            name=self.name,
            instance_types=self.instance_types,
            spot=self.spot,
            subnets=deployment.subnets,
        )
        differences = ["hosts start elsewhere"] if group.differs(spec) else []
        try:
            if self.name not in await attached_providers(self.aws, deployment.cluster):
                differences.append("the cluster does not use it")
        except NotSetUp:
            differences.append("there is no cluster")
        return State.of(differences)

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        from starburst.compute.ec2_capacity import ensure_capacity

        deployment = await self.deployment()
        if deployment is None:
            raise CloudError("there is no network for EC2 hosts yet", hint="starburst setup, once more")
        await ensure_capacity(self.aws, deployment, self.instance_types, spot=self.spot, clock=self.clock)
