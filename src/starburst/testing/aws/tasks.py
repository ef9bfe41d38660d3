"""One ECS task: its state, and how AWS and the simulator's handle see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starburst.testing.aws.world import TaskInfo

__all__ = ["Container", "Task"]


@dataclass(slots=True)
class Container:
    """One container of a task.

    Attributes:
        definition: Its definition, with the overrides of RunTask applied.
        arn: Its name in AWS.
        runtime_id: The task's id and ten digits: what the container engine calls it.
        last_status: PENDING, RUNNING or STOPPED.
        exit_code: None before its end, and if it never ran.
        reason: Why it ended, where the exit code does not tell.
        pid: Its process on this machine while it runs.
    """

    definition: dict[str, Any]
    arn: str
    runtime_id: str
    last_status: str = "PENDING"
    exit_code: int | None = None
    reason: str = ""
    pid: int | None = None

    @property
    def name(self) -> str:
        """Unique in its task."""
        return str(self.definition["name"])


@dataclass(slots=True, kw_only=True)
class Task:
    """The state of one task; the world's lock protects it.

    ``id``, ``task_arn`` and ``tags`` are read by moto, too, which keeps the task among its own. ``environment``
    is what its host adds to its containers' variables.
    """

    id: str
    region: str
    account: str
    cluster: str
    definition: Any
    definition_arn: str
    containers: list[Container]
    launch_type: str
    capacity_provider: str
    cpu: int
    memory_mib: int
    gpus: int
    overrides: dict[str, Any]
    started_by: str
    group: str
    tags: list[dict[str, str]]
    platform_version: str
    subnet: str
    zone: str
    task_role: str
    spot: bool
    created_at: datetime
    placement_constraints: list[dict[str, str]] = field(default_factory=list)
    placement_strategy: list[dict[str, str]] = field(default_factory=list)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    container_instance_arn: str = ""
    host: str = ""
    last_status: str = "PROVISIONING"
    desired_status: str = "RUNNING"
    stop_code: str = ""
    stopped_reason: str = ""
    times: dict[str, datetime] = field(default_factory=dict)
    version: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def task_arn(self) -> str:
        """Its name in AWS."""
        return f"arn:aws:ecs:{self.region}:{self.account}:task/{self.cluster}/{self.id}"

    @property
    def cluster_arn(self) -> str:
        """The name of its cluster in AWS."""
        return f"arn:aws:ecs:{self.region}:{self.account}:cluster/{self.cluster}"

    @property
    def stopped(self) -> bool:
        """Whether it has ended for good."""
        return self.last_status == "STOPPED"

    def describe(self, *, tags: bool = True) -> dict[str, Any]:
        """As DescribeTasks and RunTask answer it."""
        about: dict[str, Any] = {
            "attachments": self.attachments,
            "attributes": [{"name": "ecs.cpu-architecture", "value": self.architecture}],
            "availabilityZone": self.zone,
            "capacityProviderName": self.capacity_provider or None,
            "clusterArn": self.cluster_arn,
            "connectivity": "CONNECTED" if "startedAt" in self.times and not self.stopped else None,
            "containerInstanceArn": self.container_instance_arn or None,
            "containers": [self._container(each) for each in self.containers],
            "cpu": str(self.cpu) if self.cpu else None,
            "createdAt": self.created_at,
            "desiredStatus": self.desired_status,
            "enableExecuteCommand": False,
            "group": self.group,
            "healthStatus": "UNKNOWN",
            "lastStatus": self.last_status,
            "launchType": self.launch_type,
            "memory": str(self.memory_mib) if self.memory_mib else None,
            "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": [], **self.overrides},
            "platformFamily": "Linux" if self.platform_version else None,
            "platformVersion": self.platform_version or None,
            "startedBy": self.started_by or None,
            "stopCode": self.stop_code or None,
            "stoppedReason": self.stopped_reason or None,
            "tags": self.tags if tags else [],
            "taskArn": self.task_arn,
            "taskDefinitionArn": self.definition_arn,
            "version": self.version,
            **self.times,
        }
        return {name: value for name, value in about.items() if value is not None}

    @property
    def architecture(self) -> str:
        """x86_64 or arm64, from the task definition."""
        platform = self.definition.runtime_platform or {}
        return "arm64" if platform.get("cpuArchitecture") == "ARM64" else "x86_64"

    def info(self) -> TaskInfo:
        """As the handle tells it."""
        started, stopped = self.times.get("startedAt"), self.times.get("stoppedAt")
        return TaskInfo(
            task_id=self.id,
            task_arn=self.task_arn,
            cluster=self.cluster,
            definition=self.definition_arn.rpartition("/")[2],
            last_status=self.last_status,
            desired_status=self.desired_status,
            stop_code=self.stop_code,
            stopped_reason=self.stopped_reason,
            exit_code=self.containers[0].exit_code,
            capacity_provider=self.capacity_provider,
            launch_type=self.launch_type,
            zone=self.zone,
            started_by=self.started_by,
            tags={each["key"]: each.get("value", "") for each in self.tags},
            pid=self.containers[0].pid,
            host=self.host,
            cpu=self.cpu,
            memory_mib=self.memory_mib,
            created_at=self.created_at.timestamp(),
            started_at=started.timestamp() if started else None,
            stopped_at=stopped.timestamp() if stopped else None,
        )

    def _container(self, container: Container) -> dict[str, Any]:
        definition = container.definition
        about: dict[str, Any] = {
            "containerArn": container.arn,
            "cpu": str(definition.get("cpu", 0)),
            "exitCode": container.exit_code,
            "healthStatus": "UNKNOWN",
            "image": definition.get("image"),
            "lastStatus": container.last_status,
            "memory": str(definition["memory"]) if definition.get("memory") else None,
            "name": container.name,
            "networkInterfaces": [],
            "reason": container.reason or None,
            "runtimeId": container.runtime_id if "startedAt" in self.times else None,
            "taskArn": self.task_arn,
        }
        return {name: value for name, value in about.items() if value is not None}
