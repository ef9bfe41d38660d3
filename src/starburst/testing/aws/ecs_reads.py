"""ListTasks, DescribeTasks and StopTask."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from starburst.testing.aws import ecs_common
from starburst.testing.aws.ecs_common import invalid

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call
    from starburst.testing.aws.tasks import Task
    from starburst.testing.aws.world import World

__all__ = ["describe_tasks", "list_tasks", "stop_task"]

_PAGE = 100
_VISIBLE = timedelta(hours=1)  # ECS forgets stopped tasks about then
_ALONE = ("family", "containerInstance", "serviceName")


def list_tasks(world: World, call: Call) -> dict[str, Any]:
    """ARNs of tasks, those that should run unless STOPPED is asked for, in pages."""
    given = call.parameters
    cluster = ecs_common.cluster_of(world, call)
    if given.get("startedBy") and any(given.get(name) for name in _ALONE):
        raise invalid("When you specify startedBy as the filter, it must be the only filter that you use.")
    size = int(given.get("maxResults") or _PAGE)
    if not 1 <= size <= _PAGE:
        raise invalid(f"maxResults must be between 1 and {_PAGE}.")
    wanted = given.get("desiredStatus") or "RUNNING"
    host = str(given.get("containerInstance") or "").rpartition("/")[2]
    found = [
        task.task_arn
        for task in _visible(world, call.region, cluster.name)
        if task.desired_status == wanted
        and _is(given.get("startedBy"), task.started_by)
        and _is(given.get("family"), task.definition.family)
        and _is(given.get("launchType"), task.launch_type)
        and _is(host, task.container_instance_arn.rpartition("/")[2])
        and not given.get("serviceName")
    ]
    start = _start(given.get("nextToken"), found)
    page = found[start : start + size]
    more = base64.b64encode(page[-1].encode()).decode() if start + size < len(found) else None
    return {"taskArns": page, "nextToken": more}


def describe_tasks(world: World, call: Call) -> dict[str, Any]:
    """Up to 100 tasks; those that are not there are MISSING."""
    given = call.parameters
    cluster = ecs_common.cluster_of(world, call)
    names: list[str] = given.get("tasks") or []
    if not names:
        raise invalid("Tasks cannot be empty.")
    if len(names) > _PAGE:
        raise invalid(f"Tasks cannot have more than {_PAGE} items.")
    known = {task.id: task for task in _visible(world, call.region, cluster.name)}
    tags = "TAGS" in (given.get("include") or [])
    tasks, failures = [], []
    for name in names:
        task = known.get(_id_in(name, cluster.name))
        if task is not None:
            tasks.append(task.describe(tags=tags))
        else:
            arn = f"arn:aws:ecs:{call.region}:{world.options.account}:task/{cluster.name}/{_id_in(name, cluster.name)}"
            failures.append({"arn": arn, "reason": "MISSING"})
    return {"tasks": tasks, "failures": failures}


def stop_task(world: World, call: Call) -> dict[str, Any]:
    """SIGTERM now, SIGKILL after the stop timeout; a task that has ended stays as it is."""
    cluster = ecs_common.cluster_of(world, call)
    name = str(call.parameters.get("task") or "")
    task_id = _id_in(name, cluster.name)
    task = next((each for each in _visible(world, call.region, cluster.name) if each.id == task_id), None)
    if task is None:
        raise invalid("The referenced task was not found.")
    world.lifecycle.stop(task, "UserInitiated", call.parameters.get("reason") or "Task stopped by user")
    return {"task": task.describe()}


def _visible(world: World, region: str, cluster: str) -> list[Task]:
    forgotten = datetime.now(UTC) - _VISIBLE
    return [
        task
        for task in world.tasks.values()
        if task.cluster == cluster
        and task.region == region
        and (not task.stopped or task.times["stoppedAt"] > forgotten)
    ]


def _is(wanted: str | None, value: str) -> bool:
    return not wanted or wanted == value


def _id_in(name: str, cluster: str) -> str:
    parts = name.split("/")
    if len(parts) == 3 and parts[1] != cluster:
        raise invalid(f"Invalid identifier: Identifier is for cluster {parts[1]}. Your cluster is {cluster}")
    return parts[-1]


def _start(token: str | None, found: list[str]) -> int:
    """Behind the ARN that the last page ended with, also if that task has left the list since."""
    if not token:
        return 0
    try:
        last = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise invalid("Invalid token.") from error
    return found.index(last) + 1 if last in found else 0
