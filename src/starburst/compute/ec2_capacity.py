"""EC2 capacity for a set of instance types: made on first use, at zero hosts, kept right, removed in order.

One set of types, Spot or on-demand, is one ECS capacity provider, one Auto Scaling group and one launch template, all
of the same name. ECS starts hosts for tasks that wait and ends those that nothing runs on; we never set how many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from starburst.aws.autoscaling import (
    MAX_HOSTS,
    Group,
    GroupSpec,
    describe_group,
    ensure_group,
    list_groups,
    remove_group,
    remove_hosts,
    update_group,
)
from starburst.aws.capacity_provider import (
    attach_provider,
    attached_providers,
    detach_provider,
    ensure_provider,
    remove_provider,
)
from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment
from starburst.aws.instance_types import (
    Architecture,
    InstanceType,
    check_one_architecture,
    check_zones,
    describe_types,
)
from starburst.aws.launch_template import (
    TemplateSpec,
    ensure_launch_template,
    latest_image,
    list_launch_templates,
    remove_launch_template,
)
from starburst.aws.names import capacity_provider_name
from starburst.clock import Clock, SystemClock
from starburst.errors import NotSetUp, OptionError

__all__ = [
    "CapacityProvider",
    "check_types",
    "ensure_capacity",
    "find_capacity",
    "list_capacity",
    "remove_capacity",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityProvider:
    """Where tasks for a set of instance types are sent.

    Attributes:
        name: Of the capacity provider, the Auto Scaling group and the launch template.
        instance_types: In the order of preference; empty if only a part of it is left.
        spot: Spot, or on-demand.
        architecture: Of the images that run there; None if only a part of it is left.
    """

    name: str
    instance_types: tuple[str, ...] = ()
    spot: bool = False
    architecture: Architecture | None = None


_made: WeakKeyDictionary[Aws, dict[tuple[Deployment, str], CapacityProvider]] = WeakKeyDictionary()
"""What this process has seen complete: after that one look at the group is enough."""


def check_types(types: Sequence[InstanceType], *, spot: bool, gpus: int) -> Architecture:
    """See that hosts of these types can stand in for each other.

    Returns:
        Their architecture, which the image must have.

    Raises:
        OptionError: They are of two architectures, some have GPUs and some not, or one does not fit the options.
    """
    architecture = check_one_architecture(types)
    with_gpus = [one.name for one in types if one.gpus]
    if with_gpus and len(with_gpus) < len(types):
        raise OptionError(
            "instance_type mixes types with and without GPUs, and these need different machine images "
            f"(with: {', '.join(with_gpus)})",
            hint="name types of one kind",
        )
    poor = [f"{one.name} has {one.gpus or 'none'}" for one in types if one.gpus < gpus]
    if poor:
        raise OptionError(
            f"gpus={gpus}, but {', '.join(poor)}",
            hint='use a type with that many, such as instance_type="g5.xlarge" (1) or "g5.12xlarge" (4)',
        )
    never = [one.name for one in types if spot and not one.spot]
    if never:
        raise OptionError(
            f"AWS does not sell {', '.join(never)} as Spot", hint="spot=False, or another instance_type"
        )
    return architecture


async def ensure_capacity(
    aws: Aws,
    deployment: Deployment,
    instance_types: tuple[str, ...],
    *,
    spot: bool,
    gpus: int = 0,
    clock: Clock | None = None,
) -> CapacityProvider:
    """Make the capacity for these types, or what is missing of it; nothing is started.

    It may be interrupted and called again, and several clients may call it at the same time. The first call of a
    process looks at all parts, and brings them up to date: a newer machine image, other security groups, another
    profile. Later ones look at the group only.

    Args:
        aws: The client.
        deployment: What ``starburst setup`` made.
        instance_types: In the order of preference, of one architecture.
        spot: Spot, or on-demand.
        gpus: GPUs of each worker.
        clock: What waits are measured by.

    Raises:
        OptionError: A type is unknown or does not fit, or they do not fit each other.
        NotSetUp: There is no set-up for EC2, or something of that name is not ours.
        CloudError: AWS did not do it, or not in time.
    """
    clock = clock or SystemClock()
    types = await describe_types(aws, instance_types)
    architecture = check_types(types, spot=spot, gpus=gpus)
    names = tuple(one.name for one in types)
    name = capacity_provider_name(names, spot=spot)
    seen = _made.setdefault(aws, {})
    if (deployment, name) in seen and await _open_group(aws, name, clock) is not None:
        return seen[deployment, name]
    _check_deployment(deployment)
    spec = GroupSpec(name=name, instance_types=names, spot=spot, subnets=deployment.subnets)
    if await describe_group(aws, name) is None:
        await check_zones(aws, types, deployment.subnets)
    gpu = types[0].gpus > 0
    template = TemplateSpec(
        image_id=await latest_image(aws, architecture, gpu=gpu),
        cluster=deployment.cluster,
        security_groups=deployment.security_groups,
        instance_profile_arn=deployment.instance_profile_arn,
        public_address=deployment.assign_public_ip,
        gpu=gpu,
    )
    await ensure_launch_template(aws, name, template)
    group = await ensure_group(aws, spec, clock=clock)
    await ensure_provider(aws, name, group_arn=group.arn, cluster=deployment.cluster, clock=clock)
    await attach_provider(aws, deployment.cluster, name, clock=clock)
    made = CapacityProvider(name=name, instance_types=names, spot=spot, architecture=architecture)
    seen[deployment, name] = made
    return made


async def find_capacity(
    aws: Aws, instance_types: tuple[str, ...], *, spot: bool, clock: Clock | None = None
) -> CapacityProvider:
    """The capacity that a client made before, for supervisors, who may use but not make it; opened if it was closed.

    Raises:
        NotSetUp: It is not there any more, or not ours.
        CloudError: AWS did not answer.
    """
    name = capacity_provider_name(instance_types, spot=spot)
    group = await _open_group(aws, name, clock or SystemClock())
    if group is None:
        raise NotSetUp(
            f"the EC2 capacity {name} is not in {aws.region} any more",
            hint='a client makes it: run a call with launch_type="EC2" and the same instance_type',
        )
    return _of_group(group)


async def list_capacity(aws: Aws, deployment: Deployment) -> list[CapacityProvider]:
    """All that is ours in the region, complete or in part, sorted by name.

    Raises:
        CloudError: AWS did not answer.
    """
    found = {group.name: _of_group(group) for group in await list_groups(aws)}
    parts = await list_launch_templates(aws)
    with contextlib.suppress(NotSetUp):  # no cluster: no providers
        attached = await attached_providers(aws, deployment.cluster)
        parts += [one for one in attached if one.startswith("starburst-")]
    for name in parts:
        found.setdefault(name, CapacityProvider(name=name, spot=name.endswith("-spot")))
    return [found[name] for name in sorted(found)]


async def remove_capacity(
    aws: Aws, deployment: Deployment, name: str, *, clock: Clock | None = None, timeout_s: float = 600.0
) -> bool:
    """Remove provider, group and template, after their hosts; tasks on them must have been stopped before.

    What is not there is passed over, so that it can be interrupted and called again.

    Returns:
        Whether there was anything to remove.

    Raises:
        NotSetUp: A part of that name is not ours; it is left alone.
        CloudUnavailable: Hosts, or another part, are still there after ``timeout_s``.
        CloudError: AWS did not do it.
    """
    clock = clock or SystemClock()
    cluster = deployment.cluster
    _made.pop(aws, None)
    await remove_hosts(aws, name, clock=clock, timeout_s=timeout_s)
    removed = [await remove_provider(aws, name, cluster=cluster, clock=clock)]
    with contextlib.suppress(NotSetUp):  # the cluster still names a provider that is gone, or is gone itself
        removed.append(await detach_provider(aws, cluster, name, clock=clock))
    removed.append(await remove_group(aws, name, clock=clock, timeout_s=timeout_s))
    removed.append(await remove_launch_template(aws, name))
    return any(removed)


async def _open_group(aws: Aws, name: str, clock: Clock) -> Group | None:
    """The group, opened again if the deadline of a former session closed it; None if it is not there."""
    group = await describe_group(aws, name)
    if group is None or group.deleting:
        return None
    if group.max_size == 0:
        await update_group(aws, name, clock=clock, MaxSize=MAX_HOSTS)
    return group


def _of_group(group: Group) -> CapacityProvider:
    types = group.instance_types
    return CapacityProvider(
        name=group.name,
        instance_types=types,
        spot=group.spot,
        architecture=check_one_architecture(types) if types else None,
    )


def _check_deployment(deployment: Deployment) -> None:
    if not deployment.instance_profile_arn:
        raise NotSetUp(
            f"starburst is set up for Fargate only in {deployment.region}: EC2 hosts have no instance profile",
            hint=f"starburst setup --region {deployment.region}",
        )
    if not deployment.subnets or not deployment.security_groups:
        raise NotSetUp(
            f"the set-up in {deployment.region} names no subnets or no security group for EC2 hosts",
            hint=f"starburst setup --region {deployment.region}",
        )
