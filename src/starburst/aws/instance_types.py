"""What EC2 instance types are: architecture, vCPUs, memory, GPUs; from AWS, or from a small table without it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from starburst.aws.clients import Aws
from starburst.errors import CloudError, OptionError

__all__ = [
    "Architecture",
    "InstanceType",
    "architecture_of",
    "check_one_architecture",
    "check_zones",
    "describe_types",
    "known_types",
]

Architecture = Literal["ARM64", "X86_64"]
"""As in the ``runtimePlatform`` of a task definition."""

_NAME = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
_ARM_FAMILY = re.compile(
    r"[a-z]+\d+g[a-z]*|a1"
)  # g right after the generation: Graviton. g4dn and gr6 are not.
_ARCHITECTURES: dict[str, Architecture] = {"arm64": "ARM64", "x86_64": "X86_64"}

# DescribeInstanceTypes of us-east-1, 2026-11-23: MiB for each vCPU, and the sizes; bare metal left out.
_SMALL = "large xlarge 2xlarge 4xlarge"
_FAMILIES: dict[str, tuple[int, str]] = {
    "c5": (2048, f"{_SMALL} 9xlarge 12xlarge 18xlarge 24xlarge"),
    "c6a": (2048, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge"),
    "c6g": (2048, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge"),
    "c6i": (2048, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "c7g": (2048, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge"),
    "c7i": (2048, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "c8g": (2048, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "m5": (4096, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge"),
    "m6g": (4096, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge"),
    "m6i": (4096, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "m7g": (4096, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge"),
    "m7i": (4096, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "m8g": (4096, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "r5": (8192, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge"),
    "r6i": (8192, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge"),
    "r7g": (8192, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge"),
    "r7i": (8192, f"{_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "r8g": (8192, f"medium {_SMALL} 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "g4dn": (4096, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge"),
    "g5": (4096, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "g6": (4096, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
    "g6e": (8192, "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"),
}
_GPUS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}  # of the g families; the other sizes have one
_BURSTABLE_MIB = {"small": 2048, "medium": 4096, "large": 8192}  # of t3 and t4g: two vCPUs each


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One type of EC2 instance.

    Attributes:
        name: Such as ``c7g.xlarge``.
        architecture: Of its processor, hence of the images that run on it.
        vcpus: As AWS counts them.
        memory_mib: All that it has; what tasks may use of it is less.
        gpus: NVIDIA GPUs; ECS hands out no others.
        spot: Whether AWS sells it as Spot.
    """

    name: str
    architecture: Architecture
    vcpus: int
    memory_mib: int
    gpus: int = 0
    spot: bool = True


def architecture_of(name: str) -> Architecture:
    """The architecture that a type's name tells.

    Raises:
        OptionError: It is not the name of an instance type.
    """
    if not _NAME.fullmatch(name):
        raise _unknown([name], "", [one.name for one in known_types()])
    return "ARM64" if _ARM_FAMILY.fullmatch(name.partition(".")[0]) else "X86_64"


def check_one_architecture(types: Sequence[str | InstanceType]) -> Architecture:
    """The one architecture of all ``types``: a worker's image is built for one.

    Args:
        types: Names, or what AWS says of them.

    Raises:
        OptionError: There are none, a name is wrong, or they are of both; then the message groups them.
    """
    groups: dict[Architecture, list[str]] = {}
    for one in types:
        if isinstance(one, InstanceType):
            groups.setdefault(one.architecture, []).append(one.name)
        else:
            groups.setdefault(architecture_of(one), []).append(one)
    if not groups:
        raise OptionError("instance_type names no type", hint='use "c7g.xlarge", or a list of types')
    if len(groups) > 1:
        parts = "; ".join(f"{architecture}: {', '.join(names)}" for architecture, names in groups.items())
        raise OptionError(
            f"instance_type mixes two architectures, and one image runs on one only ({parts})",
            hint="name types of one architecture: in c7g, m8g, t4g the g after the number means ARM64",
        )
    return next(iter(groups))


@cache
def known_types() -> tuple[InstanceType, ...]:
    """Common types that are known without asking AWS, the small ones first."""
    found = []
    for family, (mib_per_vcpu, sizes) in _FAMILIES.items():
        for size in sizes.split():
            gpus = _GPUS.get(size, 1) if family.startswith("g") else 0
            found.append(_known(family, size, _vcpus(size), mib_per_vcpu * _vcpus(size), gpus))
    for family in ("t3", "t4g"):
        found += [_known(family, size, 2, memory_mib) for size, memory_mib in _BURSTABLE_MIB.items()]
        found += [_known(family, "xlarge", 4, 16384), _known(family, "2xlarge", 8, 32768)]
    return tuple(sorted(found, key=lambda one: (one.vcpus, one.memory_mib, one.name)))


_described: dict[tuple[str, str], InstanceType] = {}


async def describe_types(aws: Aws, names: Iterable[str]) -> tuple[InstanceType, ...]:
    """What AWS says of the types, in the order given; asked once for each.

    Raises:
        OptionError: One is unknown in the region; the message has the nearest names.
        CloudError: AWS did not answer.
    """
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        architecture_of(name)  # a name that AWS would refuse as malformed
    region = aws.region
    missing = [name for name in wanted if (region, name) not in _described]
    if missing:
        try:
            answers = await aws.pages(
                "ec2", "describe_instance_types", "InstanceTypes", InstanceTypes=missing
            )
        except CloudError as error:
            if error.code != "InvalidInstanceType":
                raise
            unknown = [
                name
                for name in missing
                if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", error.message)
            ]
            raise _unknown(unknown or missing, region, await _offered(aws)) from error
        for answer in answers:
            _described[region, answer["InstanceType"]] = _from_answer(answer)
    return tuple(_described[region, name] for name in wanted)


async def check_zones(aws: Aws, types: Sequence[InstanceType], subnets: Sequence[str]) -> None:
    """See that each type is sold in a zone of one of the subnets; else no host would ever come.

    Raises:
        OptionError: One is sold in other zones only.
        CloudError: AWS did not answer.
    """
    names = [one.name for one in types]
    offers = await aws.pages(
        "ec2",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": names}],
    )
    answers = await aws.pages("ec2", "describe_subnets", "Subnets", SubnetIds=list(subnets))
    zones = {subnet["AvailabilityZone"] for subnet in answers}
    for name in names:
        sold = {offer["Location"] for offer in offers if offer["InstanceType"] == name}
        if not sold & zones:
            where = f"only in {', '.join(sorted(sold))}" if sold else "nowhere in this region"
            raise OptionError(
                f"{name} is not to be had in {', '.join(sorted(zones))}, where the workers' subnets are: "
                f"AWS has it {where}",
                hint="use another instance_type, or `starburst setup` with subnets in those zones",
            )


def _from_answer(answer: dict[str, Any]) -> InstanceType:
    found = [
        _ARCHITECTURES[one]
        for one in answer["ProcessorInfo"]["SupportedArchitectures"]
        if one in _ARCHITECTURES
    ]
    if not found:
        raise OptionError(
            f"{answer['InstanceType']} cannot run Linux containers of ARM64 or X86_64",
            hint='use another instance_type, such as "c7g.xlarge"',
        )
    gpus = answer.get("GpuInfo", {}).get("Gpus", ())
    return InstanceType(
        name=answer["InstanceType"],
        architecture=found[0],
        vcpus=answer["VCpuInfo"]["DefaultVCpus"],
        memory_mib=answer["MemoryInfo"]["SizeInMiB"],
        gpus=sum(gpu.get("Count", 0) for gpu in gpus if gpu.get("Manufacturer") == "NVIDIA"),
        spot="spot" in answer.get("SupportedUsageClasses", ()),
    )


async def _offered(aws: Aws) -> list[str]:
    """The names of all types of the region; those of the table if AWS does not tell."""
    try:
        offers = await aws.pages(
            "ec2", "describe_instance_type_offerings", "InstanceTypeOfferings", LocationType="region"
        )
    except CloudError:
        return [one.name for one in known_types()]
    return [offer["InstanceType"] for offer in offers]


def _unknown(names: Sequence[str], region: str, offered: Sequence[str]) -> OptionError:
    near = [
        one for name in names for one in difflib.get_close_matches(name.lower(), offered, n=3, cutoff=0.5)
    ]
    which = ", ".join(repr(name) for name in names)
    where = f" in {region}" if region else ""
    verb = "is not an instance type" if len(names) == 1 else "are not instance types"
    guess = f"did you mean {', '.join(dict.fromkeys(near))}? " if near else ""
    return OptionError(
        f"instance_type: {which} {verb}{where}",
        hint=f"{guess}`aws ec2 describe-instance-type-offerings` lists those of a region",
    )


def _known(family: str, size: str, vcpus: int, memory_mib: int, gpus: int = 0) -> InstanceType:
    name = f"{family}.{size}"
    return InstanceType(
        name=name, architecture=architecture_of(name), vcpus=vcpus, memory_mib=memory_mib, gpus=gpus
    )


def _vcpus(size: str) -> int:
    if size in ("medium", "large"):
        return 1 if size == "medium" else 2
    return 4 * int(size.removesuffix("xlarge") or 1)
