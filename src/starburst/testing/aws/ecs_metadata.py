"""What a container asks on its host: the task metadata endpoint, version 4, and the credentials of its role."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.control import Reply, Request

if TYPE_CHECKING:
    from starburst.testing.aws.tasks import Container, Task
    from starburst.testing.aws.world import World

__all__ = ["install"]

_CREDENTIALS_S = 6 * 3600


def install(world: World) -> None:
    """Add both to the control server."""
    world.control.route("/v4/", lambda request: _metadata(world, request))
    world.control.route("/creds/", lambda request: _credentials(world, request))


def _metadata(world: World, request: Request) -> Reply:
    runtime_id, _, what = request.path.strip("/").partition("/")
    with world.lock:
        task = world.tasks[runtime_id.partition("-")[0]]
        container = next(each for each in task.containers if each.runtime_id == runtime_id)
        if what == "":
            return Reply(_container(task, container))
        if what == "task":
            return Reply(_task(task))
        if what == "stats":
            return Reply({})
        if what == "task/stats":
            return Reply({each.runtime_id: {} for each in task.containers})
    raise KeyError(request.path)


def _task(task: Task) -> dict[str, Any]:
    family, _, revision = task.definition_arn.rpartition("/")[2].partition(":")
    about: dict[str, Any] = {
        "Cluster": task.cluster_arn,
        "TaskARN": task.task_arn,
        "Family": family,
        "Revision": revision,
        "ServiceName": "",
        "DesiredStatus": task.desired_status,
        "KnownStatus": task.last_status,
        "LaunchType": task.launch_type,
        "AvailabilityZone": task.zone,
        "Limits": {"CPU": task.cpu / 1024, "Memory": task.memory_mib},
        "PullStartedAt": _text(task.times.get("pullStartedAt")),
        "PullStoppedAt": _text(task.times.get("pullStoppedAt")),
        "CreatedAt": _text(task.created_at),
        "Containers": [_container(task, each) for each in task.containers],
    }
    if task.container_instance_arn:
        about["ContainerInstanceARN"] = task.container_instance_arn
        about["EC2InstanceID"] = task.host
    elif task.launch_type == "FARGATE":
        about["FaultInjectionEnabled"] = False
        about["EphemeralStorageMetrics"] = {"Utilized": 1, "Reserved": 20496}
    return {name: value for name, value in about.items() if value is not None}


def _container(task: Task, container: Container) -> dict[str, Any]:
    logs = (container.definition.get("logConfiguration") or {}).get("options") or {}
    return {
        "DockerId": container.runtime_id,
        "Name": container.name,
        "DockerName": container.name,
        "Image": container.definition.get("image"),
        "Labels": {
            "com.amazonaws.ecs.cluster": task.cluster_arn,
            "com.amazonaws.ecs.container-name": container.name,
            "com.amazonaws.ecs.task-arn": task.task_arn,
        },
        "DesiredStatus": task.desired_status,
        "KnownStatus": container.last_status,
        "Type": "NORMAL",
        "LogDriver": (container.definition.get("logConfiguration") or {}).get("logDriver", ""),
        "LogOptions": logs,
        "ContainerARN": container.arn,
    }


def _credentials(world: World, request: Request) -> Reply:
    task_id = request.path.strip("/")
    with world.lock:
        task = world.tasks[task_id]
        key, secret, token = world.credentials_for(task.task_role)
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _CREDENTIALS_S))
    return Reply(
        {
            "RoleArn": task.task_role,
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Token": token,
            "Expiration": expires,
        }
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
