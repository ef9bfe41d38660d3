"""Why an Auto Scaling group could not start hosts: quota or capacity, which RunTask does not tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starburst.aws.clients import Aws

__all__ = ["ScalingFailure", "scaling_failures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingFailure:
    """Why no host came: what RunTask does not tell.

    Attributes:
        message: AWS's own words.
        at: Seconds since 1970.
        quota: The account's vCPU quota is used up.
        capacity: AWS has no such instances just now.
    """

    message: str
    at: float
    quota: bool
    capacity: bool


async def scaling_failures(aws: Aws, name: str, *, since: float) -> list[ScalingFailure]:
    """Attempts to start hosts that failed since then, the latest first; at most the last hundred are looked at.

    Raises:
        CloudError: AWS did not answer.
    """
    answer = await aws.call(
        "autoscaling", "describe_scaling_activities", AutoScalingGroupName=name, MaxRecords=100
    )
    failures = []
    for activity in answer["Activities"]:
        at = activity["StartTime"].timestamp()
        if activity["StatusCode"] != "Failed" or at < since:
            continue
        message = activity.get("StatusMessage") or activity.get("Description", "")
        failures.append(
            ScalingFailure(
                message=message,
                at=at,
                quota=_mentions(message, ("VcpuLimitExceeded", "vCPU limit", "MaxSpotInstanceCountExceeded")),
                capacity=_mentions(
                    message, ("InsufficientInstanceCapacity", "sufficient", "UnfulfillableCapacity")
                ),
            )
        )
    return failures


def _mentions(message: str, texts: Iterable[str]) -> bool:
    return any(text.lower() in message.lower() for text in texts)
