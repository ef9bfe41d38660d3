"""What containers print goes into CloudWatch Logs, as the log driver ``awslogs`` does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moto.logs.models import logs_backends

from starburst.testing.aws.tasks import Container, Task

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["MISSING_GROUP", "ready", "writer"]

MISSING_GROUP = (
    "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed "
    "to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist. : "
    "exit status 1"
)


def ready(task: Task, container: Container) -> bool:
    """Whether the container's log group is there (or may be made), so that it can start."""
    options = _options(container)
    if options is None:
        return True
    backend = _backend(task, options)
    group = options["awslogs-group"]
    if group not in backend.groups:
        if options.get("awslogs-create-group") != "true":
            return False
        backend.create_log_group(group, {})
    return True


def writer(world: World, task: Task, container: Container) -> Callable[[list[str]], None]:
    """What takes the container's lines; those without a place to go to are dropped."""
    options = _options(container)
    if options is None:
        return lambda _lines: None
    backend, group = _backend(task, options), options["awslogs-group"]
    prefix = options.get("awslogs-stream-prefix")
    stream = f"{prefix}/{container.name}/{task.id}" if prefix else container.runtime_id

    def write(lines: list[str]) -> None:
        now_ms = int(time.time() * 1000)
        events = [{"timestamp": now_ms, "message": line} for line in lines if line]
        with world.lock:
            if events and group in backend.groups:  # it may have been deleted meanwhile
                backend.ensure_log_stream(group, stream)
                backend.put_log_events(group, stream, events)

    return write


def _options(container: Container) -> dict[str, str] | None:
    configuration = container.definition.get("logConfiguration") or {}
    if configuration.get("logDriver") != "awslogs":
        return None
    options: dict[str, str] = configuration.get("options") or {}
    return options


def _backend(task: Task, options: dict[str, str]) -> Any:
    return logs_backends[task.account][options.get("awslogs-region", task.region)]
