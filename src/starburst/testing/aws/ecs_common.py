"""What the operations of ECS share: lookups in moto, numbers, checks of networks."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from moto.ec2.models import ec2_backends
from moto.ecs.models import ecs_backends

from starburst.testing.aws.front import Refusal

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call
    from starburst.testing.aws.world import World

__all__ = [
    "FARGATE_PROVIDERS",
    "active_definition",
    "attachment",
    "backend",
    "backend_of",
    "check_network",
    "cluster_of",
    "cpu_units",
    "gpus",
    "invalid",
    "memory_mib",
]

FARGATE_PROVIDERS = ("FARGATE", "FARGATE_SPOT")
_MAX_SUBNETS = 16
_MAX_SECURITY_GROUPS = 5


def invalid(message: str) -> Refusal:
    """An InvalidParameterException."""
    return Refusal("InvalidParameterException", message)


def backend(call: Call) -> Any:
    """Moto's model of ECS in the region of a call."""
    return backend_of(call.account, call.region)


def backend_of(account: str, region: str) -> Any:
    """Moto's model of ECS."""
    return ecs_backends[account][region]


def cluster_of(world: World, call: Call) -> Any:
    """The active cluster that a call is about.

    Raises:
        Refusal: There is none.
    """
    name = str(call.parameters.get("cluster") or "default").rpartition("/")[2]
    cluster = backend_of(world.options.account, call.region).clusters.get(name)
    if cluster is None:
        raise Refusal("ClusterNotFoundException", "Cluster not found.")
    if cluster.status == "INACTIVE":
        raise Refusal("ClusterNotFoundException", "The referenced cluster was inactive.")
    return cluster


def active_definition(world: World, call: Call, name: str) -> Any:
    """A task definition by ``family`` (its newest active revision), ``family:revision`` or ARN.

    Raises:
        Refusal: There is none, or it is inactive.
    """
    family, _, revision = name.rpartition("/")[2].partition(":")
    revisions = backend_of(world.options.account, call.region).task_definitions.get(family, {})
    if revision:
        found = revisions.get(int(revision)) if revision.isdecimal() else None
    else:
        active = [number for number, each in revisions.items() if each.status == "ACTIVE"]
        found = revisions[max(active)] if active else None
    if found is None:
        raise Refusal("ClientException", "TaskDefinition not found.")
    if found.status != "ACTIVE":
        raise Refusal("ClientException", "TaskDefinition is inactive")
    return found


def cpu_units(text: str | None) -> int:
    """``"1024"``, ``"1 vCPU"`` → 1024; 0 for nothing."""
    match = re.fullmatch(r"\s*([\d.]+)\s*(vcpus?)?\s*", text or "", re.IGNORECASE)
    if match is None:
        return 0
    return round(float(match[1]) * 1024) if match[2] else int(float(match[1]))


def memory_mib(text: str | None) -> int:
    """``"2048"``, ``"2 GB"`` → 2048; 0 for nothing."""
    match = re.fullmatch(r"\s*([\d.]+)\s*(gb|mb)?\s*", text or "", re.IGNORECASE)
    if match is None:
        return 0
    return round(float(match[1]) * (1024 if (match[2] or "").lower() == "gb" else 1))


def gpus(container: dict[str, Any]) -> int:
    """How many GPUs a container asks for."""
    wanted = container.get("resourceRequirements") or []
    return sum(int(each["value"]) for each in wanted if each.get("type") == "GPU")


def check_network(call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
    """Subnets and security groups must exist and be of one VPC.

    Returns:
        ``zones``: pairs of subnet and zone.
    """
    ec2 = ec2_backends[backend(call).account_id][call.region]
    subnets: list[str] = wanted["subnets"]
    groups: list[str] = wanted.get("securityGroups") or []
    if len(subnets) > _MAX_SUBNETS:
        raise invalid(f"subnets can have at most {_MAX_SUBNETS} items.")
    if len(groups) > _MAX_SECURITY_GROUPS:
        raise invalid(f"securityGroups can have at most {_MAX_SECURITY_GROUPS} items.")
    known = {key: subnet for by_zone in ec2.subnets.values() for key, subnet in by_zone.items()}
    missing = [each for each in subnets if each not in known]
    if missing:
        raise invalid(
            f"Error retrieving subnet information for [{', '.join(subnets)}]: The subnet ID '{missing[0]}' does not "
            "exist (ErrorCode: InvalidSubnetID.NotFound)"
        )
    vpcs = {known[each].vpc_id for each in subnets}
    if len(vpcs) > 1:
        raise invalid("subnets must all be in the same VPC.")
    for each in groups:
        group = ec2.get_security_group_from_id(each)
        if group is None:
            raise invalid(
                f"Error retrieving security group information for [{', '.join(groups)}]: The security group '{each}' "
                "does not exist (ErrorCode: InvalidGroup.NotFound)"
            )
        if group.vpc_id not in vpcs:
            raise invalid(
                f"Security group {each} does not appear to belong to the same VPC as the input subnets."
            )
    return {"zones": [(each, known[each].availability_zone) for each in subnets]}


def attachment(subnet: str) -> dict[str, Any]:
    """The network interface of a task."""
    number = uuid.uuid4()
    low = number.int
    return {
        "id": str(number),
        "type": "ElasticNetworkInterface",
        "status": "ATTACHED",
        "details": [
            {"name": "subnetId", "value": subnet},
            {"name": "networkInterfaceId", "value": f"eni-{number.hex[:17]}"},
            {"name": "macAddress", "value": "02:" + ":".join(f"{low >> 8 * n & 255:02x}" for n in range(5))},
            {"name": "privateIPv4Address", "value": f"172.31.{low >> 40 & 255}.{1 + (low >> 48) % 254}"},
        ],
    }
