"""Auto Scaling groups of EC2 hosts: made at zero, scaled by ECS, emptied before they are removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import MANAGED_TAG, OURS_FILTER
from starburst.aws.ours import check_ours
from starburst.aws.waiting import call_when_idle, wait_until
from starburst.clock import Clock
from starburst.errors import CloudError, CloudUnavailable, NotSetUp

__all__ = [
    "MAX_HOSTS",
    "Group",
    "GroupSpec",
    "describe_group",
    "end_hosts",
    "ensure_group",
    "list_groups",
    "remove_group",
    "remove_hosts",
    "set_tags",
    "update_group",
]

MAX_HOSTS = 500
"""What a group may grow to; the account's vCPU quota is usually lower."""

_PROFILE_WAIT_S = 60.0  # a new instance profile is known to Auto Scaling only after some seconds
_PROTECTION_BATCH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """What a group should be; its launch template has its name.

    Attributes:
        name: Of the group and the launch template.
        instance_types: In the order of preference.
        spot: Spot, or on-demand.
        subnets: Where hosts start.
    """

    name: str
    instance_types: tuple[str, ...]
    spot: bool
    subnets: tuple[str, ...]

    @property
    def policy(self) -> dict[str, Any]:
        """The mixed instances policy."""
        return {
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {"LaunchTemplateName": self.name, "Version": "$Latest"},
                "Overrides": [{"InstanceType": one} for one in self.instance_types],
            },
            "InstancesDistribution": {
                "OnDemandAllocationStrategy": "prioritized",
                "OnDemandBaseCapacity": 0,
                "OnDemandPercentageAboveBaseCapacity": 0 if self.spot else 100,
                "SpotAllocationStrategy": "price-capacity-optimized",
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a group is.

    Attributes:
        name: Its name.
        arn: Its full name.
        min_size: Hosts that stay though nothing runs.
        max_size: The limit; 0 is a group that was closed.
        hosts: The instances there are, of any state.
        staying: How many of them are not on their way out.
        protected: Those of them that scaling in does not end.
        tags: All tags.
        instance_types: In the order of preference.
        spot: Spot, or on-demand.
        subnets: Where hosts start.
        protects_new: Whether new hosts are protected from scaling in.
        deleting: It is on its way out.
    """

    name: str
    arn: str
    min_size: int
    max_size: int
    hosts: tuple[str, ...] = ()
    staying: int = 0
    protected: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    instance_types: tuple[str, ...] = ()
    spot: bool = False
    subnets: frozenset[str] = frozenset()
    protects_new: bool = True
    deleting: bool = False

    def differs(self, spec: GroupSpec) -> bool:
        """Whether it should be updated to be what ``spec`` says."""
        is_now = (self.instance_types, self.spot, self.subnets, self.protects_new)
        return is_now != (spec.instance_types, spec.spot, frozenset(spec.subnets), True)


async def describe_group(aws: Aws, name: str) -> Group | None:
    """The group, or None.

    Raises:
        NotSetUp: It is not ours.
        CloudError: AWS did not answer.
    """
    answer = await aws.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[name])
    for found in answer["AutoScalingGroups"]:
        group = _group(found)
        check_ours("an Auto Scaling group", name, group.tags, aws.region)
        return group
    return None


async def list_groups(aws: Aws) -> list[Group]:
    """All that are ours.

    Raises:
        CloudError: AWS did not answer.
    """
    found = await aws.pages(
        "autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", Filters=[OURS_FILTER]
    )
    return [_group(one) for one in found]


async def ensure_group(aws: Aws, spec: GroupSpec, *, clock: Clock, timeout_s: float = 300.0) -> Group:
    """Make it at zero hosts, or bring it up to date; its desired capacity is never touched.

    A group that was closed (maximum 0) is opened again.

    Raises:
        NotSetUp: There is one of that name that is not ours.
        CloudError: AWS did not do it.
    """
    group = await describe_group(aws, spec.name)
    if group is not None and group.deleting:
        await _gone(aws, spec.name, clock=clock, timeout_s=timeout_s)
        group = None
    if group is None:
        await _create(aws, spec, clock=clock)
    elif group.differs(spec) or group.max_size == 0:
        await update_group(
            aws,
            spec.name,
            clock=clock,
            MixedInstancesPolicy=spec.policy,
            VPCZoneIdentifier=",".join(spec.subnets),
            NewInstancesProtectedFromScaleIn=True,
            MaxSize=group.max_size or MAX_HOSTS,
        )
    else:
        return group
    group = await describe_group(aws, spec.name)
    if group is None:
        raise CloudUnavailable(
            f"the Auto Scaling group {spec.name} was removed while it was made", hint="try again"
        )
    return group


async def update_group(aws: Aws, name: str, *, clock: Clock, **changes: Any) -> None:
    """Change some values of a group.

    Raises:
        CloudError: AWS did not do it.
    """
    await call_when_idle(
        aws, "autoscaling", "update_auto_scaling_group", clock=clock, AutoScalingGroupName=name, **changes
    )


async def set_tags(aws: Aws, name: str, tags: Mapping[str, str | None]) -> None:
    """Set tags of a group; None removes one.

    Raises:
        CloudError: AWS did not do it.
    """
    written = [_tag(name, key, value) for key, value in tags.items() if value is not None]
    removed = [
        {"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": key}
        for key, value in tags.items()
        if value is None
    ]
    if written:
        await aws.call("autoscaling", "create_or_update_tags", Tags=written)
    if removed:
        await aws.call("autoscaling", "delete_tags", Tags=removed)


async def end_hosts(
    aws: Aws, name: str, hosts: Collection[str], *, clock: Clock, timeout_s: float = 600.0
) -> None:
    """End hosts on which nothing runs and that nobody keeps, and wait until they are gone.

    Others stay, and the group stays open.

    Raises:
        CloudUnavailable: Some are still there after ``timeout_s``.
        NotSetUp: The group is not ours.
        CloudError: AWS did not do it.
    """
    group = await describe_group(aws, name)
    if group is None:
        return
    await _unprotect(aws, name, [one for one in group.protected if one in hosts])
    await update_group(aws, name, clock=clock, MinSize=0, DesiredCapacity=0)  # those that are protected stay

    async def gone() -> bool:
        found = await describe_group(aws, name)
        return found is None or not set(found.hosts) & set(hosts)

    await wait_until(gone, clock=clock, timeout_s=timeout_s, what=f"idle EC2 hosts of {name} to end")


async def remove_hosts(aws: Aws, name: str, *, clock: Clock, timeout_s: float = 600.0) -> None:
    """Close the group and wait until its hosts are gone; tasks on them should have ended before.

    Raises:
        CloudUnavailable: Some are still there after ``timeout_s``.
        NotSetUp: The group is not ours.
        CloudError: AWS did not do it.
    """
    if await describe_group(aws, name) is None:
        return
    await update_group(
        aws,
        name,
        clock=clock,
        MinSize=0,
        MaxSize=0,
        DesiredCapacity=0,
        NewInstancesProtectedFromScaleIn=False,
    )
    left: tuple[str, ...] = ()

    async def gone() -> bool:
        nonlocal left
        group = await describe_group(aws, name)
        left = group.hosts if group else ()
        if group and group.protected:
            await _unprotect(aws, name, group.protected)
            await update_group(aws, name, clock=clock, DesiredCapacity=0)  # now it may end them
        return not left

    await wait_until(
        gone,
        clock=clock,
        timeout_s=timeout_s,
        what=f"the EC2 hosts of {name} to end",
        hint=f"a task that still runs keeps its host; see `aws autoscaling describe-auto-scaling-groups "
        f"--auto-scaling-group-names {name}`, then do the same again",
    )


async def remove_group(aws: Aws, name: str, *, clock: Clock, timeout_s: float = 300.0) -> bool:
    """Remove it, hosts first; returns whether it was there.

    Raises:
        NotSetUp: It is not ours.
        CloudError: AWS did not do it, or not in time.
    """
    group = await describe_group(aws, name)
    if group is None:
        return False
    if not group.deleting:
        await remove_hosts(aws, name, clock=clock, timeout_s=timeout_s)
        await call_when_idle(
            aws, "autoscaling", "delete_auto_scaling_group", clock=clock, AutoScalingGroupName=name
        )
    await _gone(aws, name, clock=clock, timeout_s=timeout_s)
    return True


async def _create(aws: Aws, spec: GroupSpec, *, clock: Clock) -> None:
    refused: CloudError | None = None

    async def created() -> bool:
        nonlocal refused
        try:
            await aws.call(
                "autoscaling",
                "create_auto_scaling_group",
                AutoScalingGroupName=spec.name,
                MixedInstancesPolicy=spec.policy,
                MinSize=0,
                MaxSize=MAX_HOSTS,
                VPCZoneIdentifier=",".join(spec.subnets),
                # On, it would start a second host at each hint that Spot may take one, perhaps hours before it does or
                # never, while the first stays on for its tasks: both are billed. Workers heed the two minutes' notice.
                CapacityRebalance=False,
                NewInstancesProtectedFromScaleIn=True,
                Tags=[
                    _tag(spec.name, MANAGED_TAG, "true", hosts_too=True),
                    _tag(spec.name, "AmazonECSManaged", "true", hosts_too=True),
                ],
            )
        except CloudError as error:
            if error.code == "AlreadyExists":
                return True
            if error.code != "ValidationError" or "profile" not in error.message.lower():
                raise
            refused = error
            return False
        return True

    try:
        await wait_until(created, clock=clock, timeout_s=_PROFILE_WAIT_S, what=f"the group {spec.name}")
    except CloudUnavailable as error:
        if refused is None:
            raise
        raise NotSetUp(
            f"Auto Scaling does not accept the instance profile: {refused.message}",
            hint="`starburst setup` makes the instance profile anew",
            code=refused.code,
            operation=refused.operation,
        ) from error


async def _unprotect(aws: Aws, name: str, hosts: Sequence[str]) -> None:
    for start in range(0, len(hosts), _PROTECTION_BATCH):
        await aws.call(
            "autoscaling",
            "set_instance_protection",
            AutoScalingGroupName=name,
            InstanceIds=list(hosts[start : start + _PROTECTION_BATCH]),
            ProtectedFromScaleIn=False,
        )


async def _gone(aws: Aws, name: str, *, clock: Clock, timeout_s: float) -> None:
    async def gone() -> bool:
        return await describe_group(aws, name) is None

    await wait_until(gone, clock=clock, timeout_s=timeout_s, what=f"the Auto Scaling group {name} to end")


def _group(found: Mapping[str, Any]) -> Group:
    policy = found.get("MixedInstancesPolicy", {})
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", ())
    above_base = policy.get("InstancesDistribution", {}).get("OnDemandPercentageAboveBaseCapacity", 100)
    instances = found.get("Instances", ())
    return Group(
        name=found["AutoScalingGroupName"],
        arn=found["AutoScalingGroupARN"],
        min_size=int(found["MinSize"]),
        max_size=int(found["MaxSize"]),
        hosts=tuple(one["InstanceId"] for one in instances),
        staying=sum(not one.get("LifecycleState", "").startswith("Terminat") for one in instances),
        protected=tuple(one["InstanceId"] for one in instances if one.get("ProtectedFromScaleIn")),
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", ())},
        instance_types=tuple(one["InstanceType"] for one in overrides if "InstanceType" in one),
        spot=int(above_base) == 0,
        subnets=frozenset(filter(None, found.get("VPCZoneIdentifier", "").split(","))),
        protects_new=bool(found.get("NewInstancesProtectedFromScaleIn")),
        deleting=bool(found.get("Status")),
    )


def _tag(name: str, key: str, value: str, *, hosts_too: bool = False) -> dict[str, Any]:
    return {
        "ResourceId": name,
        "ResourceType": "auto-scaling-group",
        "Key": key,
        "Value": value,
        "PropagateAtLaunch": hosts_too,
    }
