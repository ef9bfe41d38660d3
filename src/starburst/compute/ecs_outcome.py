"""What became of an ECS task, in our words: its state, why it stopped, whether another one would fare better.

Sources: Amazon ECS Developer Guide, "Stopped tasks error messages" and "Task lifecycle"; API reference, "Task".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starburst.aws.names import CONTAINER, STREAM_PREFIX, SUPERVISOR_FAMILY
from starburst.compute.base import ProviderStatus, WorkerState
from starburst.protocol.keys import worker_of_task

__all__ = ["NO_SPOT", "name_of", "status_of", "task_id_of"]

_STARTING = ("PROVISIONING", "PENDING", "ACTIVATING")
_GONE = ("DEPROVISIONING", "STOPPED", "DELETED")
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}

NO_SPOT = "starburst: no Spot capacity came"
"""Why we stop a task ourselves that waits for a Spot host."""
_TAKEN = (
    NO_SPOT,
    "Your Spot Task was interrupted",
    "Capacity is unavailable",
    "ECS is performing maintenance",
    "Host EC2",
    "Timeout waiting for network interface",
    "Timeout waiting for EC2 instance",
    "InternalError",
    "ServerException",
    "TaskFailedToStart",
    "ContainerRuntime",
    "CannotInspectContainer",
    "CannotStopContainer",
    "InsufficientFreeAddresses",
    "Unexpected EC2 error",
    "failed to configure ENI",
)
"""The worker is not to blame, and the next one may fare better."""
_HOPELESS = (
    "CannotPullContainerError",
    "ResourceInitializationError",
    "exec format error",
    "executable file not found",
)
"""The next one would meet the same, except for timeouts."""
_PASSING = re.compile(
    r"timeout|timed out|deadline exceeded|context cancell?ed|i/o|\bEOF\b|rate exceeded|throttl|toomanyrequests"
    r"|connection (reset|refused)|service unavailable|bad gateway|internal server error"
    r"|failed to configure ENI|container runtime",
    re.IGNORECASE,
)
_PLATFORM = re.compile(r"descriptor matching platform|exec format error", re.IGNORECASE)


def task_id_of(arn: str) -> str:
    """A task's id, the last part of its ARN."""
    return arn.rsplit("/", 1)[-1]


def name_of(task: Mapping[str, Any]) -> str:
    """The name of the worker or supervisor that a task is."""
    arn = str(task["taskArn"])
    family = str(task.get("taskDefinitionArn", "")).rsplit("/", 1)[-1]
    if family.startswith(SUPERVISOR_FAMILY):
        return f"supervisor-{worker_of_task(arn).removeprefix('w-')}"
    return worker_of_task(arn)


def status_of(task: Mapping[str, Any]) -> ProviderStatus:
    """The status of a task as ``DescribeTasks`` or ``RunTask`` describe it."""
    last = str(task.get("lastStatus", "PROVISIONING"))
    state: WorkerState = "starting" if last in _STARTING else "exited" if last in _GONE else "running"
    reason, exit_code = last.lower(), None
    taken = hopeless = False
    if state == "exited":
        exit_code, reason, taken, hopeless = _ending(task)
    return ProviderStatus(
        worker=name_of(task),
        state=state,
        exit_code=exit_code,
        reason=reason,
        log=f"{STREAM_PREFIX}/{CONTAINER}/{task_id_of(str(task['taskArn']))}",
        taken=taken,
        hopeless=hopeless,
        placed=not _waits_for_host(task),
        details=_details(task),
    )


def _waits_for_host(task: Mapping[str, Any]) -> bool:
    """Whether managed scaling still has to bring an EC2 host; Fargate has a machine for each task that it takes."""
    provider = str(task.get("capacityProviderName") or "FARGATE")
    return task.get("lastStatus") == "PROVISIONING" and not provider.startswith("FARGATE")


def _ending(task: Mapping[str, Any]) -> tuple[int | None, str, bool, bool]:
    """Exit code (negative for a signal), reason, and whether it was taken away or is hopeless."""
    container: Mapping[str, Any] = next(iter(task.get("containers") or ()), {})
    code = container.get("exitCode")
    stop_code = str(task.get("stopCode", ""))
    texts = [str(text) for text in (task.get("stoppedReason"), container.get("reason")) if text]
    whole = ": ".join(dict.fromkeys(texts))
    taken = stop_code in ("SpotInterruption", "TerminationNotice") or (
        (stop_code != "UserInitiated" or NO_SPOT in whole) and any(word in whole for word in _TAKEN)
    )
    hopeless = any(word in whole for word in _HOPELESS) and not _PASSING.search(whole)
    if hopeless:
        taken = False
    return _signed(code), _words(whole, code, stop_code), taken, hopeless


def _signed(code: int | None) -> int | None:
    return 128 - code if code is not None and code in _SIGNALS else code


def _words(whole: str, code: int | None, stop_code: str) -> str:
    if "OutOfMemory" in whole:
        return f"out of memory ({whole}); ask for more memory="
    if _PLATFORM.search(whole):
        return f"the image is not built for this architecture ({whole})"
    if stop_code == "EssentialContainerExited" and code is not None:
        return f"killed by {_SIGNALS[code]}" if code in _SIGNALS else f"exit code {code}"
    if code in _SIGNALS and code is not None:
        return f"{whole} (killed by {_SIGNALS[code]})"
    return whole or (f"exit code {code}" if code is not None else "stopped before it ran")


def _details(task: Mapping[str, Any]) -> dict[str, str]:
    """What the session's events keep of a task: ECS itself forgets it within the hour."""
    found = {
        "task": task_id_of(str(task["taskArn"])),
        "zone": task.get("availabilityZone"),
        "capacity": task.get("capacityProviderName") or task.get("launchType"),
        "stop_code": task.get("stopCode"),
        "host": task_id_of(str(task["containerInstanceArn"])) if task.get("containerInstanceArn") else None,
        "pull_started_at": _time(task.get("pullStartedAt")),
        "started_at": _time(task.get("startedAt")),
        # While its network is taken down, the containers have ended already, and all else is known.
        "stopped_at": _time(task.get("stoppedAt") or task.get("executionStoppedAt")),
    }
    return {name: str(value) for name, value in found.items() if value}


def _time(value: Any) -> str | None:
    return None if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
