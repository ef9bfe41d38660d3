"""Auto Scaling groups: how many instances, of which type, where, on Spot or on demand, and what went wrong."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any

from starburst.testing.aws.hosts import Host, Shape, new_host, shape_of
from starburst.testing.aws.prices import spot_usd
from starburst.testing.aws.quotas import ec2_quota
from starburst.testing.aws.world import World

__all__ = ["Groups", "instance_types_of", "is_next_spot"]

_ACTIVITIES = 500
_RETRY_FIRST_S = 0.5  # AWS tries again after about a minute, then less often
_RETRY_LAST_S = 5.0


class _LaunchError(Exception):
    """No instance of this kind; the argument is what AWS writes into the scaling activity."""


@dataclass(slots=True)
class _Record:
    """What we keep about a group beside moto's own."""

    activities: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_ACTIVITIES))
    retry_at: float = 0.0
    retry_s: float = _RETRY_FIRST_S


def instance_types_of(group: Any) -> list[str]:
    """The group's types in the order of preference."""
    policy = group.mixed_instances_policy or {}
    overrides = policy.get("LaunchTemplate", {}).get("Overrides") or []
    return [each["InstanceType"] for each in overrides if "InstanceType" in each] or [group.instance_type]


def is_next_spot(group: Any, *, on_demand: int, total: int) -> bool:
    """Whether a group with so many instances starts its next one on Spot.

    Args:
        group: moto's group.
        on_demand: Those on demand.
        total: All of them, without the next one.
    """
    policy = group.mixed_instances_policy
    if not policy:
        return bool(_template(group).data.get("InstanceMarketOptions", {}).get("MarketType") == "spot")
    distribution = policy.get("InstancesDistribution") or {}
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    share = distribution.get("OnDemandPercentageAboveBaseCapacity")
    percent = 100 if share is None else int(share)
    wanted = base + math.ceil(max(0, total + 1 - base) * percent / 100)
    return on_demand >= wanted


def _template(group: Any, instance_type: str = "") -> Any:
    """The version of the launch template for a type."""
    policy = group.mixed_instances_policy or {}
    for override in policy.get("LaunchTemplate", {}).get("Overrides") or []:
        own = override.get("LaunchTemplateSpecification")
        if own and override.get("InstanceType") == instance_type:
            found = {"LaunchTemplateId": own["LaunchTemplateId"]} if own.get("LaunchTemplateId") else {}
            found = found or {"LaunchTemplateName": own["LaunchTemplateName"]}
            return group.ec2_backend._get_template_from_args(  # noqa: SLF001 - there is no public way
                {**found, "Version": own.get("Version") or "$Default"}
            )
    return group.ec2_launch_template.get_version(group.launch_template_version)


class Groups:
    """Keeps each group at its desired capacity; all methods are called under the world's lock.

    Attributes:
        hosts: All instances of groups, by id, the terminated ones too.
    """

    def __init__(self, world: World) -> None:
        self.hosts: dict[str, Host] = {}
        self._world = world
        self._records: dict[tuple[str, str], _Record] = {}

    def live(self, group: Any) -> list[Host]:
        """The group's instances that count for its capacity, the oldest first."""
        return [host for host in self.of(group) if not host.leaving]

    def of(self, group: Any) -> list[Host]:
        """All of the group's instances that have not ended."""
        return [
            host
            for host in self.hosts.values()
            if host.group == group.name and host.region == group.region and not host.terminated
        ]

    def forget(self, group: Any) -> None:
        """A group is removed."""
        self._records.pop((group.region, group.name), None)

    def retry_now(self, group: Any) -> None:
        """Do not wait after failures: something has changed."""
        record = self._record(group)
        record.retry_at, record.retry_s = 0.0, _RETRY_FIRST_S

    def fill(self, group: Any) -> list[Host]:
        """Start what is missing; returns the new hosts, which have not joined yet."""
        record = self._record(group)
        live = self.live(group)
        suspended = {each["ProcessName"] for each in group.suspended_processes}
        if len(live) >= (group.desired_capacity or 0) or "Launch" in suspended:
            return []
        if time.monotonic() < record.retry_at:
            return []
        started: list[Host] = []
        try:
            while len(live) < group.desired_capacity:
                host = self._start(group, live)
                self._note_start(group, host, len(live))
                self.hosts[host.id] = host
                live.append(host)
                started.append(host)
        except _LaunchError as error:
            self._note_failure(group, str(error), len(live))
            record.retry_at = time.monotonic() + record.retry_s
            record.retry_s = min(_RETRY_LAST_S, record.retry_s * 2)
        else:
            record.retry_s = _RETRY_FIRST_S
        return started

    def surplus(self, group: Any) -> list[Host]:
        """Those instances that must end for the group to have its desired capacity; protected ones stay."""
        live = self.live(group)
        count = len(live) - (group.desired_capacity or 0)
        suspended = {each["ProcessName"] for each in group.suspended_processes}
        if count <= 0 or "Terminate" in suspended:
            return []
        protected = {each.instance.id for each in group.instance_states if each.protected_from_scale_in}
        # AWS takes from the fullest zone first, and there the oldest.
        zones = Counter(host.zone for host in live)
        free = sorted((host for host in live if host.id not in protected), key=lambda host: -zones[host.zone])
        return free[:count]

    def note_end(self, group: Any, host: Host, cause: str) -> None:
        """Write the end of an instance into the group's activities."""
        now = _now()
        details = {"Subnet ID": host.instance.subnet_id, "Availability Zone": host.zone}
        self._note(
            group,
            Description=f"Terminating EC2 instance: {host.id}",
            Cause=f"At {now} {cause}",
            StatusCode="Successful",
            Details=json.dumps(details),
        )

    def activities(self, region: str, name: str | None) -> list[dict[str, Any]]:
        """Of one group, or of all in a region; the latest first."""
        found = [
            activity
            for key, record in self._records.items()
            if key[0] == region and name in (None, key[1])
            for activity in record.activities
        ]
        return sorted(found, key=lambda each: each["StartTime"], reverse=True)

    def _record(self, group: Any) -> _Record:
        return self._records.setdefault((group.region, group.name), _Record())

    def _start(self, group: Any, live: list[Host]) -> Host:
        on_demand = sum(not host.spot for host in live)
        spot = is_next_spot(group, on_demand=on_demand, total=len(live))
        error: _LaunchError | None = None
        for instance_type, (subnet, zone) in product(
            self._types(group, spot=spot), self._places(group, live)
        ):
            try:
                self._check(group, instance_type, zone, spot=spot)
            except _LaunchError as refused:
                error = refused
                continue
            return self._run(group, instance_type, subnet, zone, spot=spot)
        raise error or _LaunchError("You must specify at least one instance type.")

    def _types(self, group: Any, *, spot: bool) -> list[str]:
        types = instance_types_of(group)
        distribution = (group.mixed_instances_policy or {}).get("InstancesDistribution") or {}
        if not spot or distribution.get("SpotAllocationStrategy", "").endswith("prioritized"):
            return types
        now = datetime.now(UTC)
        return sorted(types, key=lambda name: spot_usd(name, f"{group.region}a", now) or math.inf)

    def _places(self, group: Any, live: Iterable[Host]) -> list[tuple[str | None, str]]:
        """Subnets and their zones, those with the fewest instances first."""
        crowd = Counter(host.zone for host in live)
        places: list[tuple[str | None, str]]
        if group.vpc_zone_identifier:
            subnets = (group.ec2_backend.get_subnet(each) for each in group.vpc_zone_identifier.split(","))
            places = [(subnet.id, subnet.availability_zone) for subnet in subnets]
        else:
            places = [(None, zone) for zone in group.availability_zones]
        return sorted(places, key=lambda place: crowd[place[1]])

    def _check(self, group: Any, instance_type: str, zone: str, *, spot: bool) -> None:
        shape = shape_of(instance_type)
        if shape is None:
            raise _LaunchError(
                f"The requested configuration is currently not supported: {instance_type}. "
                "Launching EC2 instance failed."
            )
        market = "Spot" if spot else "On-Demand"
        lacking = self._world.scripts.take(
            "ec2:RunInstances",
            "capacity",
            zone=zone,
            instance_type=instance_type,
            spot=spot,
            group=group.name,
        )
        if lacking is not None:
            text = (
                "There is no Spot capacity available that matches your request."
                if spot
                else f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you "
                f"requested ({zone}). Our system will be working on provisioning additional capacity. You can "
                f"currently get {instance_type} capacity by not specifying an Availability Zone in your request "
                f"or choosing {', '.join(each for each in group.availability_zones if each != zone) or zone}."
            )
            raise _LaunchError(
                f"Could not launch {market} Instances. InsufficientInstanceCapacity - {text} "
                "Launching EC2 instance failed."
            )
        self._check_quota(group, instance_type, shape, spot=spot)
        self._check_image(group, instance_type, shape)

    def _check_quota(self, group: Any, instance_type: str, shape: Shape, *, spot: bool) -> None:
        code = ec2_quota(instance_type, spot=spot)
        limit = self._world.quotas.get(("ec2", code)) if code else None
        if limit is None:
            return
        used = sum(
            host.shape.vcpus
            for host in self.hosts.values()
            if not host.terminated
            and host.region == group.region
            and ec2_quota(host.instance_type, spot=host.spot) == code
        )
        if used + shape.vcpus <= limit:
            return
        if spot:
            text = "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded."
        else:
            text = (
                "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity "
                f"than your current vCPU limit of {limit:g} allows for the instance bucket that the specified "
                "instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request "
                "an adjustment to this limit."
            )
        raise _LaunchError(f"{text} Launching EC2 instance failed.")

    def _check_image(self, group: Any, instance_type: str, shape: Shape) -> None:
        image = _image(group, _template(group, instance_type))
        known = group.ec2_backend.describe_images(filters={"image-id": image})
        if known and known[0].architecture != shape.architecture:
            raise _LaunchError(
                f"The architecture '{shape.architecture}' of the specified instance type does not match the "
                f"architecture '{known[0].architecture}' of the specified AMI. Specify an instance type and an "
                "AMI that have matching architectures, and try again. Launching EC2 instance failed."
            )

    def _run(self, group: Any, instance_type: str, subnet: str | None, zone: str, *, spot: bool) -> Host:
        from moto.autoscaling.models import ASG_NAME_TAG, InstanceState
        from moto.ec2.exceptions import EC2ClientError

        template = _template(group, instance_type)
        tags = {ASG_NAME_TAG: group.name, **template.instance_tags, **group.get_propagated_tags()}
        try:
            reservation = group.ec2_backend.run_instances(
                _image(group, template),
                1,
                _user_data(template),
                list(_security_groups(template)),
                instance_type=instance_type,
                tags={"instance": tags},
                placement=zone,
                launch_template={"LaunchTemplateId": template.template.id, "Version": template.number},
                is_instance_type_default=False,
                subnet_id=subnet,
                lifecycle="spot" if spot else None,
                metadata_options=template.data.get("MetadataOptions") or {},
                iam_instance_profile=template.data.get("IamInstanceProfile"),
            )
        except EC2ClientError as error:  # a part that the template names is gone
            raise _LaunchError(f"{error.message} Launching EC2 instance failed.") from error
        instance = reservation.instances[0]
        instance.autoscaling_group = group
        protected = group.new_instances_protected_from_scale_in
        group.instance_states.append(InstanceState(instance, protected_from_scale_in=protected))
        return new_host(instance, group=group.name, region=group.region, spot=spot)

    def _note_start(self, group: Any, host: Host, before: int) -> None:
        details = {"Subnet ID": host.instance.subnet_id, "Availability Zone": host.zone}
        self._note(
            group,
            Description=f"Launching a new EC2 instance: {host.id}",
            Cause=_difference(before, group.desired_capacity),
            StatusCode="Successful",
            Details=json.dumps(details),
        )

    def _note_failure(self, group: Any, message: str, before: int) -> None:
        self._note(
            group,
            Description=f"Launching a new EC2 instance.  Status Reason: {message}",
            Cause=_difference(before, group.desired_capacity),
            StatusCode="Failed",
            StatusMessage=message,
            Details=json.dumps({"Availability Zone": group.availability_zones[0]}),
        )

    def _note(self, group: Any, **about: Any) -> None:
        now = datetime.now(UTC)
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "StartTime": now,
            "EndTime": now,
            "Progress": 100,
            **about,
        }
        self._record(group).activities.append(activity)


def _user_data(template: Any) -> Any:
    """A template's user data as moto wants it; of later versions moto keeps the bare text."""
    from moto.core.types import Base64EncodedString

    found = template.data.get("UserData")
    return Base64EncodedString(found) if isinstance(found, str) else found


def _image(group: Any, template: Any) -> str:
    """The machine image; ``resolve:ssm:…`` is looked up now, as at each launch on AWS."""
    image = str(template.image_id)
    if not image.startswith("resolve:ssm:"):
        return image
    from moto.ssm.models import ssm_backends

    name = image.removeprefix("resolve:ssm:")
    found = ssm_backends[group.account_id][group.region].get_parameter(name)
    if found is None:
        raise _LaunchError(f"Systems Manager parameter {name} does not exist. Launching EC2 instance failed.")
    return str(found.value)


def _security_groups(template: Any) -> Iterator[str]:
    yield from template.data.get("SecurityGroups") or []
    if not template.data.get("SecurityGroupIds"):  # moto reads those itself
        for interface in template.data.get("NetworkInterfaces") or []:
            yield from interface.get("Groups") or []


def _difference(before: int, desired: int) -> str:
    now = _now()
    return (
        f"At {now} an instance was started in response to a difference between desired and actual capacity, "
        f"increasing the capacity from {before} to {desired}."
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
