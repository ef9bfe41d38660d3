"""The tasks of our cluster, whoever started them: looked at, and stopped."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import CLUSTER, SESSION_TAG
from starburst.aws.resource import is_ours
from starburst.clock import Clock, Deadline
from starburst.compute.ecs_outcome import task_id_of
from starburst.errors import CloudError, CloudUnavailable, NotSetUp

__all__ = ["TaskView", "cluster_tasks", "services_of_cluster", "stop_tasks"]

_PER_CALL = 100
_STOPS_AT_ONCE = 16
_LOOK_EVERY_S = 1.0
_STOPPED_WITHIN_S = 240.0
"""A task has two minutes between SIGTERM and SIGKILL, and its network interface goes after that."""
_SESSION_URL = re.compile(r"[a-z0-9]+://[^\s\"'\\]+/sessions/[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One task.

    Attributes:
        arn: Its address.
        ours: Whether it carries our tag.
        session_id: Whose it is, as its tag says; empty if it has none.
        session_url: Where that session is, as its command line says; empty if it does not.
        definition: Its task definition.
        capacity: The capacity provider that it runs on.
        status: ECS's last word, such as ``RUNNING``.
        created_at: Seconds since 1970; 0 if ECS does not tell.
    """

    arn: str
    ours: bool
    session_id: str
    session_url: str
    definition: str
    capacity: str
    status: str
    created_at: float

    @property
    def task_id(self) -> str:
        """The last part of its address."""
        return task_id_of(self.arn)


async def cluster_tasks(aws: Aws) -> list[TaskView]:
    """All tasks of the cluster that are not gone yet; none if there is no cluster.

    Raises:
        CloudError: AWS did not answer.
    """
    arns: dict[str, None] = {}
    for desired in ("RUNNING", "STOPPED"):  # those that are being stopped still hold what they use
        try:
            found = await aws.pages("ecs", "list_tasks", "taskArns", cluster=CLUSTER, desiredStatus=desired)
        except NotSetUp:
            return []
        arns |= dict.fromkeys(found)
    names = list(arns)
    tasks: list[TaskView] = []
    for first in range(0, len(names), _PER_CALL):
        answer = await aws.call(
            "ecs",
            "describe_tasks",
            cluster=CLUSTER,
            tasks=names[first : first + _PER_CALL],
            include=["TAGS"],
        )
        tasks += [_view(task) for task in answer["tasks"]]
    return [task for task in tasks if task.status not in ("STOPPED", "DELETED")]


async def services_of_cluster(aws: Aws) -> list[str]:
    """Services that somebody runs in the cluster; we make none.

    Raises:
        CloudError: AWS did not answer.
    """
    try:
        return await aws.pages("ecs", "list_services", "serviceArns", cluster=CLUSTER)
    except NotSetUp:
        return []


async def stop_tasks(aws: Aws, tasks: Sequence[TaskView], *, clock: Clock, command: str) -> None:
    """Stop tasks and wait until they are gone.

    Args:
        aws: The account.
        tasks: Which.
        clock: What the wait is measured by.
        command: What the user typed; they are told that it was the reason.

    Raises:
        CloudUnavailable: Some are still there when time is up.
        CloudError: AWS did not do it.
    """
    gate = asyncio.Semaphore(_STOPS_AT_ONCE)

    async def stop(task: TaskView) -> None:
        async with gate:
            try:
                await aws.call("ecs", "stop_task", cluster=CLUSTER, task=task.arn, reason=command)
            except CloudError as error:
                if "was not found" not in error.message:
                    raise

    await asyncio.gather(*map(stop, tasks))
    wanted = {task.arn for task in tasks}
    deadline = Deadline(clock, _STOPPED_WITHIN_S)
    while left := [task for task in await cluster_tasks(aws) if task.arn in wanted]:
        if deadline.passed:
            names = ", ".join(task.task_id for task in left[:5])
            raise CloudUnavailable(
                f"{len(left)} tasks are still stopping: {names}", hint=f"{command} again, in a minute"
            )
        await clock.sleep(_LOOK_EVERY_S)


def _view(task: Mapping[str, Any]) -> TaskView:
    tags: Collection[Mapping[str, str]] = task.get("tags", ())
    sessions = [tag["value"] for tag in tags if tag["key"] == SESSION_TAG]
    url = _SESSION_URL.search(json.dumps(task.get("overrides", {})))
    created = task.get("createdAt")
    return TaskView(
        arn=task["taskArn"],
        ours=is_ours(tags) or bool(sessions),
        session_id=sessions[0] if sessions else "",
        session_url=url[0] if url else "",
        definition=task.get("taskDefinitionArn", ""),
        capacity=task.get("capacityProviderName", ""),
        status=task.get("lastStatus", ""),
        created_at=created.timestamp() if created else 0.0,
    )
