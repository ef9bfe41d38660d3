"""EC2 instances as hosts of an ECS cluster: their room, their life, and what ECS tells about them."""

from __future__ import annotations

import base64
import binascii
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.world import HostInfo

if TYPE_CHECKING:
    from starburst.testing.aws.tasks import Task

__all__ = ["GONE_CODE", "Host", "Shape", "cluster_in", "gone_reason", "new_host", "shape_of"]

GONE_CODE = "TerminationNotice"
"""Stop code of a task whose host has gone."""

_MEMORY_SHARE = 0.95  # the rest is the operating system's
_CLUSTER = re.compile(r"^\s*(?:echo\s+[\"']?)?ECS_CLUSTER=([A-Za-z0-9_-]+)", re.MULTILINE)
_GPU_SUPPORT = re.compile(r"ECS_ENABLE_GPU_SUPPORT=true")


@dataclass(frozen=True, slots=True)
class Shape:
    """What an instance type has for tasks.

    Attributes:
        vcpus: As quotas count them.
        cpu: vCPU units, 1024 for one.
        memory_mib: After what the operating system takes.
        gpus: Its GPUs.
        architecture: x86_64 or arm64.
        interfaces: Network interfaces, the instance's own among them.
    """

    vcpus: int
    cpu: int
    memory_mib: int
    gpus: int
    architecture: str
    interfaces: int


@cache
def shape_of(instance_type: str) -> Shape | None:
    """The shape of a type, from DescribeInstanceTypes; None if AWS has no such type."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    known = INSTANCE_TYPES.get(instance_type)
    if known is None:
        return None
    vcpus = int(known["VCpuInfo"]["DefaultVCpus"])
    architectures = known["ProcessorInfo"]["SupportedArchitectures"]
    return Shape(
        vcpus=vcpus,
        cpu=vcpus * 1024,
        memory_mib=int(known["MemoryInfo"]["SizeInMiB"] * _MEMORY_SHARE),
        gpus=sum(each["Count"] for each in known.get("GpuInfo", {}).get("Gpus", [])),
        architecture="arm64" if "arm64" in architectures else "x86_64",
        interfaces=int(known["NetworkInfo"]["MaximumNetworkInterfaces"]),
    )


def gone_reason(instance_id: str) -> str:
    """Why tasks end when their host does, in AWS's words."""
    return f"Host EC2 (instance {instance_id}) terminated."


def cluster_in(user_data: Any) -> tuple[str, bool]:
    """What the ECS agent reads from the script of an instance: cluster, and whether tasks may use GPUs.

    Args:
        user_data: In base64; None if there is none.

    Returns:
        ``default`` is the cluster where the script names none.
    """
    try:
        script = base64.b64decode(str(user_data or "")).decode(errors="replace")
    except binascii.Error:
        script = ""
    named = _CLUSTER.findall(script)  # of two, the agent takes the last one
    return (named[-1] if named else "default"), bool(_GPU_SUPPORT.search(script))


@dataclass(slots=True, kw_only=True, eq=False)
class Host:
    """One instance of an Auto Scaling group; the world's lock protects it.

    Attributes:
        instance: moto's instance.
        group: Name of its Auto Scaling group.
        region: Where it is.
        shape: What it has.
        spot: Whether Spot can take it back.
        gpus: GPUs that tasks may use: none without the agent's support for them.
        cluster: That it joins.
        provider: The capacity provider whose group it belongs to; empty if there is none.
        record: moto's container instance, once it has joined.
        tasks: Those on it, by id.
        leaving: It drains, and ends with its last task.
        terminated: It has ended.
        notice_at: When Spot will take it, in seconds since 1970; None if it will not.
        empty_since: When its last task ended, on the monotonic clock; it counts from its start.
    """

    instance: Any
    group: str
    region: str
    shape: Shape
    spot: bool
    gpus: int
    cluster: str
    provider: str = ""
    record: Any = None
    tasks: dict[str, Task] = field(default_factory=dict)
    leaving: bool = False
    terminated: bool = False
    notice_at: float | None = None
    empty_since: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """``i-…``."""
        return str(self.instance.id)

    @property
    def instance_type(self) -> str:
        """Such as c7g.xlarge."""
        return str(self.instance.instance_type)

    @property
    def zone(self) -> str:
        """Its availability zone."""
        return str(self.instance.placement.zone)

    @property
    def state(self) -> str:
        """As in :class:`HostInfo`."""
        if self.terminated:
            return "terminated"
        if self.record is None:
            return "pending"
        return "running" if self.record.status == "ACTIVE" else "draining"

    @property
    def active(self) -> bool:
        """Whether it takes tasks."""
        return self.state == "running" and not self.leaving

    @property
    def free_cpu(self) -> int:
        """CPU units that no task has."""
        return self.shape.cpu - sum(task.cpu for task in self.tasks.values())

    @property
    def free_memory_mib(self) -> int:
        """Memory that no task has."""
        return self.shape.memory_mib - sum(task.memory_mib for task in self.tasks.values())

    @property
    def free_gpus(self) -> int:
        """GPUs that no task has."""
        return self.gpus - sum(task.gpus for task in self.tasks.values())

    @property
    def free_interfaces(self) -> int:
        """Network interfaces for tasks with one of their own."""
        return self.shape.interfaces - 1 - sum(bool(task.attachments) for task in self.tasks.values())

    def join(self, backend: Any) -> None:
        """Become a container instance of the cluster, which must exist."""
        record = backend.register_container_instance(self.cluster, self.id)
        instances = backend.container_instances[self.cluster]
        del instances[record.id]
        record.id = uuid.uuid4().hex
        instances[record.id] = record
        record.attributes = {
            **record.attributes,
            "ecs.cpu-architecture": self.shape.architecture,
            "ecs.os-family": "LINUX",
            "ecs.subnet-id": self.instance.subnet_id,
            "ecs.vpc-id": self.instance.vpc_id,
        }
        record.version_info = {
            "agentVersion": "1.98.0",
            "agentHash": "2d4e3a1f",
            "dockerVersion": "DockerVersion: 25.0.8",
        }
        record.registered_resources = self._resources(self.shape.cpu, self.shape.memory_mib, self.gpus)
        record.registered_at = datetime.now(UTC)
        self.record = record
        self.update_record()

    def update_record(self) -> None:
        """Let ECS tell what is free, and how many tasks there are."""
        if self.record is None:
            return
        self.record.remaining_resources = self._resources(self.free_cpu, self.free_memory_mib, self.free_gpus)
        running = sum(task.last_status == "RUNNING" for task in self.tasks.values())
        self.record.running_tasks_count = running
        self.record.pending_tasks_count = len(self.tasks) - running

    def _resources(self, cpu: int, memory_mib: int, gpus: int) -> list[dict[str, Any]]:
        found = [_integer("CPU", cpu), _integer("MEMORY", memory_mib)]
        found.append(_strings("PORTS", ["22", "2376", "2375", "51678", "51679"]))
        found.append(_strings("PORTS_UDP", []))
        if self.gpus:
            names = [f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.id}/{n}')}" for n in range(self.gpus)]
            found.append(_strings("GPU", names[self.gpus - gpus :]))
        return found

    def info(self) -> HostInfo:
        """As the handle tells it."""
        return HostInfo(
            instance_id=self.id,
            instance_type=self.instance_type,
            architecture=self.shape.architecture,
            zone=self.zone,
            state=self.state,
            cluster=self.cluster if self.record is not None else "",
            capacity_provider=self.provider,
            spot=self.spot,
            cpu=self.shape.cpu,
            memory_mib=self.shape.memory_mib,
            gpus=self.gpus,
            free_cpu=self.free_cpu,
            free_memory_mib=self.free_memory_mib,
            tasks=list(self.tasks),
        )


def new_host(instance: Any, *, group: str, region: str, spot: bool) -> Host:
    """A host for an instance that has just started."""
    shape = shape_of(instance.instance_type)
    assert shape is not None
    cluster, gpu_support = cluster_in(instance.user_data)
    return Host(
        instance=instance,
        group=group,
        region=region,
        shape=shape,
        spot=spot,
        gpus=shape.gpus if gpu_support else 0,
        cluster=cluster,
    )


def _integer(name: str, value: int) -> dict[str, Any]:
    return {"name": name, "type": "INTEGER", "doubleValue": 0.0, "longValue": 0, "integerValue": value}


def _strings(name: str, values: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STRINGSET",
        "doubleValue": 0.0,
        "longValue": 0,
        "integerValue": 0,
        "stringSetValue": values,
    }
