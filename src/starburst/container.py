"""What ECS tells a container about itself; all of it is None or False outside of ECS.

Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4".
"""

from __future__ import annotations

import json
import os
import urllib.request

__all__ = ["LOCK_VARIABLE", "host_of_container", "in_ecs", "on_ec2", "task_arn"]

LOCK_VARIABLE = "STARBURST_LOCK"
"""The variable by which a worker's image says whose packages it has."""
_METADATA = "ECS_CONTAINER_METADATA_URI_V4"
_TIMEOUT_S = 5.0
_TRIES = 3


def in_ecs() -> bool:
    """Whether this process runs in a container that ECS started."""
    return bool(os.environ.get(_METADATA))


def on_ec2() -> bool:
    """Whether that container is on an EC2 host, which may be interrupted without a signal to us."""
    return in_ecs() and os.environ.get("AWS_EXECUTION_ENV") == "AWS_ECS_EC2"


def host_of_container() -> str | None:
    """A name for this container that no other one has; its hostname may be that of the machine."""
    uri = os.environ.get(_METADATA)
    return f"ecs-{uri.rstrip('/').rsplit('/', 1)[1]}" if uri else None


def task_arn() -> str | None:
    """The ARN of the task that this container is; asks the metadata endpoint.

    Raises:
        OSError: The endpoint does not answer.
    """
    uri = os.environ.get(_METADATA)
    if not uri:
        return None
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(f"{uri}/task", timeout=_TIMEOUT_S) as answer:  # noqa: S310 - ECS sets it
                return str(json.load(answer)["TaskARN"])
        except (OSError, ValueError, KeyError) as error:
            if attempt == _TRIES - 1:
                raise OSError(f"the task metadata endpoint gives no answer: {error}") from error
    return None
