"""Task definitions: one for each image, size, architecture and role, registered once and found by its hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import CONTAINER, MANAGED_TAG, STREAM_PREFIX, SUPERVISOR_FAMILY, WORKER_FAMILY
from starburst.compute.ecs_place import EcsPlace
from starburst.errors import CloudError

__all__ = ["STOP_TIMEOUT_S", "ensure_definition", "supervisor_definition", "worker_definition"]

STOP_TIMEOUT_S = 120
"""Seconds between SIGTERM and SIGKILL; the most that ECS allows, and what a Spot notice leaves."""
_SUPERVISOR_CPU, _SUPERVISOR_MEMORY_MIB = 256, 512
_USER = "65532:65532"
"""Nobody in particular; nothing in the image needs to belong to it."""


def worker_definition(place: EcsPlace) -> dict[str, Any]:
    """The task definition of a session's workers."""
    body = _definition(
        place,
        fargate=place.launch_type == "FARGATE",
        module="starburst.worker",
        role=place.task_role_arn,
        cpu_units=place.cpu_units,
        memory_mib=place.memory_mib,
    )
    if place.gpus:
        container = body["containerDefinitions"][0]
        container["resourceRequirements"] = [{"type": "GPU", "value": str(place.gpus)}]
        # Images that are not built on a CUDA base need to be told.
        container["environment"].append({"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility,compute"})
    return {"family": _family(WORKER_FAMILY, body), **body}


def supervisor_definition(place: EcsPlace) -> dict[str, Any]:
    """The task definition of a session's supervisor: the smallest Fargate task there is."""
    body = _definition(
        place,
        fargate=True,
        module="starburst.supervisor",
        role=place.supervisor_role_arn,
        cpu_units=_SUPERVISOR_CPU,
        memory_mib=_SUPERVISOR_MEMORY_MIB,
    )
    return {"family": _family(SUPERVISOR_FAMILY, body), **body}


async def ensure_definition(aws: Aws, definition: dict[str, Any]) -> str:
    """Register a task definition unless it is there; its family names what is in it, so one revision is enough.

    Returns:
        Its ARN.

    Raises:
        CloudError: It cannot be looked up or registered.
    """
    try:
        known = await aws.call("ecs", "describe_task_definition", taskDefinition=definition["family"])
        if known["taskDefinition"].get("status", "ACTIVE") == "ACTIVE":
            return str(known["taskDefinition"]["taskDefinitionArn"])
    except CloudError as error:
        if error.code != "ClientException":  # "Unable to describe task definition."
            raise
    tags = [{"key": MANAGED_TAG, "value": "true"}]
    try:
        made = await aws.call("ecs", "register_task_definition", **definition, tags=tags)
    except CloudError as error:
        if "Too many concurrent attempts" not in error.message:
            raise
        # Somebody else registers the same just now; what is there then is as good.
        made = await aws.call("ecs", "describe_task_definition", taskDefinition=definition["family"])
    return str(made["taskDefinition"]["taskDefinitionArn"])


def _definition(
    place: EcsPlace, *, fargate: bool, module: str, role: str, cpu_units: int, memory_mib: int
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": place.image,
        "essential": True,
        "entryPoint": ["python", "-m", module],
        "command": [],
        "environment": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the one folder of the container that can be written
            {"name": "AWS_REGION", "value": place.region},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
        ],
        "workingDirectory": "/tmp",  # noqa: S108
        "user": _USER,
        "readonlyRootFilesystem": True,
        "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/tmp", "readOnly": False}],  # noqa: S108
        "linuxParameters": {"initProcessEnabled": True},
        "stopTimeout": STOP_TIMEOUT_S,
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": place.log_group,
                "awslogs-region": place.region,
                "awslogs-stream-prefix": STREAM_PREFIX,
                "mode": "non-blocking",
                "max-buffer-size": "10m",
            },
        },
    }
    return {
        "requiresCompatibilities": ["FARGATE" if fargate else "EC2"],
        # On EC2 awsvpc would take a network interface a task and give it no public address.
        "networkMode": "awsvpc" if fargate else "bridge",
        "cpu": str(cpu_units),
        "memory": str(memory_mib),
        "executionRoleArn": place.execution_role_arn,
        "taskRoleArn": role,
        "runtimePlatform": {"cpuArchitecture": place.architecture, "operatingSystemFamily": "LINUX"},
        "volumes": [{"name": "scratch"}],
        "containerDefinitions": [container],
    }


def _family(prefix: str, body: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return f"{prefix}-{digest[:16]}"
