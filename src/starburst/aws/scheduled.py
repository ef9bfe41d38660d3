"""Scheduled actions of Auto Scaling groups: what AWS does at a given time, whoever is alive then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from starburst.aws.clients import Aws
from starburst.aws.waiting import call_when_idle
from starburst.clock import Clock
from starburst.errors import CloudError

__all__ = ["list_actions", "put_action", "remove_action"]


async def list_actions(aws: Aws, group: str) -> tuple[str, ...]:
    """The names of the group's actions that are still to come.

    Raises:
        CloudError: AWS did not answer.
    """
    found = await aws.pages(
        "autoscaling", "describe_scheduled_actions", "ScheduledUpdateGroupActions", AutoScalingGroupName=group
    )
    return tuple(one["ScheduledActionName"] for one in found)


async def put_action(
    aws: Aws, group: str, name: str, *, at: int, sizes: Mapping[str, int], clock: Clock
) -> None:
    """Have AWS set ``sizes`` at that time, once.

    Args:
        aws: The client.
        group: The Auto Scaling group.
        name: The action's name; one of that name is replaced.
        at: Seconds since 1970; in the future, and no two actions of a group in the same second.
        sizes: Any of ``MinSize``, ``MaxSize``, ``DesiredCapacity``.
        clock: What waits are measured by.

    Raises:
        CloudError: AWS did not do it.
    """
    await call_when_idle(
        aws,
        "autoscaling",
        "put_scheduled_update_group_action",
        clock=clock,
        AutoScalingGroupName=group,
        ScheduledActionName=name,
        StartTime=datetime.fromtimestamp(at, UTC),
        **sizes,
    )


async def remove_action(aws: Aws, group: str, name: str, *, clock: Clock) -> None:
    """Remove an action; fine if it has run, or was removed, meanwhile.

    Raises:
        CloudError: AWS did not do it.
    """
    try:
        await call_when_idle(
            aws,
            "autoscaling",
            "delete_scheduled_action",
            clock=clock,
            AutoScalingGroupName=group,
            ScheduledActionName=name,
        )
    except CloudError as error:
        if error.code != "ValidationError" or "not found" not in error.message.lower():
            raise
