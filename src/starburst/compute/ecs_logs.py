"""What a task printed, from CloudWatch Logs."""

from __future__ import annotations

from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import CONTAINER, STREAM_PREFIX
from starburst.compute.ecs_outcome import task_id_of
from starburst.compute.ecs_place import EcsPlace
from starburst.errors import CloudError, ProviderError

__all__ = ["read_log"]


async def read_log(
    aws: Aws, place: EcsPlace, worker: str, arn: str | None, *, offset_bytes: int = 0
) -> bytes:
    """A worker's output.

    Args:
        aws: The account.
        place: Where it ran.
        worker: Its name.
        arn: Its task, if that is known.
        offset_bytes: Where to begin; negative counts from the end.

    Raises:
        ProviderError: There is no log of it.
    """
    stream = await _stream(aws, place, worker, arn)
    lines: list[str] = []
    token: dict[str, Any] = {}
    while True:
        try:
            answer = await aws.call(
                "logs",
                "get_log_events",
                logGroupName=place.log_group,
                logStreamName=stream,
                startFromHead=True,
                **token,
            )
        except CloudError as error:
            if error.code != "ResourceNotFoundException":
                raise
            raise _no_log(worker) from error
        lines += [str(event["message"]) for event in answer["events"]]
        following = answer.get("nextForwardToken")
        if not following or {"nextToken": following} == token:  # at the end the same token comes back
            break
        token = {"nextToken": following}
    return "".join(f"{line}\n" for line in lines).encode()[offset_bytes:]


async def _stream(aws: Aws, place: EcsPlace, worker: str, arn: str | None) -> str:
    prefix = f"{STREAM_PREFIX}/{CONTAINER}/"
    if arn is not None:
        return prefix + task_id_of(arn)
    # ECS forgets tasks after an hour; a worker's name is the beginning of its task's id.
    start = worker.removeprefix("supervisor-").removeprefix("w-")
    try:
        streams = await aws.pages(
            "logs",
            "describe_log_streams",
            "logStreams",
            logGroupName=place.log_group,
            logStreamNamePrefix=prefix + start,
        )
    except CloudError as error:
        if error.code != "ResourceNotFoundException":
            raise
        streams = []
    if not streams:
        raise _no_log(worker)
    return str(streams[0]["logStreamName"])


def _no_log(worker: str) -> ProviderError:
    return ProviderError(
        f"there is no log of {worker}",
        hint="its container printed nothing yet, never ran, or its log is older than the retention of the log group",
    )
