"""Starting tasks with ``RunTask``: ten at a time, each call safe to repeat, with a way out when there is no room.

    capacity (Spot, then on-demand) ── all subnets at once ── each zone by itself ── later

Source of limits and failures: Amazon ECS API reference, ``RunTask`` and "API failures messages".
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starburst.aws.clients import Aws
from starburst.aws.names import CONTAINER, MANAGED_TAG, OWNER_TAG, SESSION_TAG
from starburst.clock import Clock, Deadline
from starburst.compute.ecs_place import EcsPlace, started_by
from starburst.errors import CloudError, CloudUnavailable, ProviderError

__all__ = ["Run", "Started", "classify", "run_tasks"]

log = logging.getLogger(__name__)

_MOST_PER_CALL = 10
_CALLS_AT_ONCE = 8
_OVERRIDES_CHARS = 8192
_REPEAT_AFTER_S = (1.0, 4.0)
_REPEAT_WITHIN_S = 60.0
"""Each call has its own time-outs and retries; what has not come by then the supervisor asks for again."""

Why = Literal["quota", "capacity", "placement", "fatal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tasks to start, all alike.

    Attributes:
        session_id: Their session.
        definition: ARN of their task definition.
        count: How many.
        command: What the container is told behind its entry point.
        environment: Variables on top of those of the definition.
        capacity: Capacity providers in the order in which they are tried.
        fargate: Whether those are Fargate's.
    """

    session_id: str
    definition: str
    count: int
    command: Sequence[str]
    capacity: Sequence[str]
    fargate: bool
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Started:
    """What came of it.

    Attributes:
        tasks: The tasks, as ECS describes them.
        why: Why there are not more; None if there are as many as asked for.
        reason: The same in words.
    """

    tasks: list[dict[str, Any]] = field(default_factory=list)
    why: Why | None = None
    reason: str = ""


def classify(reason: str) -> Why:
    """What kind of a reason for which ``RunTask`` did not start a task, at HTTP 200."""
    if re.search(r"limit on the number of (v?CPUs|tasks)", reason, re.IGNORECASE):
        return "quota"
    if re.search(r"capacity is unavailable|RESOURCE:ENI|insufficient", reason, re.IGNORECASE):
        return "capacity"
    if reason.startswith(("RESOURCE:", "AGENT", "EMPTY CAPACITY PROVIDER", "LIMIT")):
        return "placement"
    return "fatal"


async def run_tasks(aws: Aws, clock: Clock, place: EcsPlace, run: Run) -> Started:
    """Start as many tasks as there is room for.

    Raises:
        CloudError: AWS refused, and nothing was started.
        ProviderError: The command and the environment are too long for ECS.
    """
    launch = _Launch(aws, clock, place, run)
    started = Started()
    for capacity in run.capacity:
        for subnets in launch.subnets():
            missing = run.count - len(started.tasks)
            if missing <= 0:
                break
            try:
                found = await launch.fill(capacity, subnets, missing)
            except CloudError as error:
                if not started.tasks:
                    raise
                return Started(
                    started.tasks, "capacity", error.message
                )  # those that run must not be forgotten
            started.tasks += found.tasks
            if found.why is not None:
                started.why, started.reason = found.why, found.reason
            if found.why in ("quota", "fatal"):
                break  # another zone has the same
        if len(started.tasks) >= run.count:
            return Started(started.tasks)
    if started.why == "fatal" and not started.tasks:
        raise CloudError(
            f"ECS does not start the tasks: {started.reason}",
            hint="starburst setup --check",
            operation="ecs:RunTask",
        )
    return started


@dataclass(frozen=True, slots=True)
class _Launch:
    aws: Aws
    clock: Clock
    place: EcsPlace
    run: Run

    def subnets(self) -> list[tuple[str, ...]]:
        """All subnets first, then those of one zone at a time: a zone without capacity must not stop the others."""
        if not self.run.fargate:
            return [()]
        place = self.place
        zones: dict[str, list[str]] = {}
        for subnet, zone in zip(place.subnets, place.zones or place.subnets, strict=True):
            zones.setdefault(zone, []).append(subnet)
        single = [tuple(subnets) for subnets in zones.values()]
        return [place.subnets, *(single if len(single) > 1 else [])]

    async def fill(self, capacity: str, subnets: tuple[str, ...], missing: int) -> Started:
        """One round of calls, side by side."""
        gate = asyncio.Semaphore(_CALLS_AT_ONCE)
        sizes = [min(_MOST_PER_CALL, missing - first) for first in range(0, missing, _MOST_PER_CALL)]
        stop = asyncio.Event()

        async def call(count: int) -> dict[str, Any] | CloudError:
            async with gate:
                if stop.is_set():  # there is no room: more calls would find none either
                    return {"tasks": [], "failures": []}
                try:
                    if self.run.fargate:
                        await self.aws.pace_launches(count, spot=capacity == self.place.spot_provider)
                    answer = await self._call(self._parameters(capacity, subnets, count))
                except CloudError as error:
                    stop.set()
                    return error
                if any(classify(_reason(failure)) != "capacity" for failure in answer.get("failures", ())):
                    stop.set()
                return answer

        found = Started()
        errors = []
        for answer in await asyncio.gather(*map(call, sizes)):
            if isinstance(answer, CloudError):
                errors.append(answer)
                continue
            found.tasks += answer["tasks"]
            for failure in answer.get("failures", ()):
                found.reason = _reason(failure)
                found.why = classify(found.reason)
        if errors and not found.tasks:
            raise errors[0]
        if errors:
            found.why, found.reason = "capacity", errors[0].message
        elif found.why is None and len(found.tasks) < missing:
            found.why = "capacity"
            found.reason = f"ECS started {len(found.tasks)} of {missing} tasks and did not say why"
        return found

    async def _call(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """One ``RunTask``; the token makes a call whose answer was lost safe to repeat."""
        asked = {**parameters, "clientToken": uuid.uuid4().hex}
        deadline = Deadline(self.clock, _REPEAT_WITHIN_S)
        for pause_s in _REPEAT_AFTER_S:
            try:
                return dict(await self.aws.call("ecs", "run_task", **asked))
            except CloudUnavailable as error:
                if deadline.remaining_s() <= pause_s:
                    raise
                log.info("RunTask is repeated: %s", error.message)
                await self.clock.sleep(pause_s)
        return dict(await self.aws.call("ecs", "run_task", **asked))

    def _parameters(self, capacity: str, subnets: tuple[str, ...], count: int) -> dict[str, Any]:
        place, run = self.place, self.run
        tags = {MANAGED_TAG: "true", SESSION_TAG: run.session_id, OWNER_TAG: place.owner}
        parameters: dict[str, Any] = {
            "cluster": place.cluster,
            "taskDefinition": run.definition,
            "count": count,
            "capacityProviderStrategy": [{"capacityProvider": capacity, "weight": 1}],
            "overrides": _overrides(run),
            "startedBy": started_by(run.session_id),
            "tags": [{"key": key, "value": value} for key, value in tags.items() if value],
            "enableECSManagedTags": True,
        }
        if run.fargate:
            parameters["networkConfiguration"] = {
                "awsvpcConfiguration": {
                    "subnets": list(subnets),
                    "securityGroups": list(place.security_groups),
                    "assignPublicIp": "ENABLED" if place.assign_public_ip else "DISABLED",
                }
            }
        else:
            parameters["placementStrategy"] = [{"type": "binpack", "field": "memory"}]
        return parameters


def _overrides(run: Run) -> dict[str, Any]:
    environment = [{"name": name, "value": value} for name, value in run.environment.items()]
    container = {"name": CONTAINER, "command": list(run.command), "environment": environment}
    overrides = {"containerOverrides": [container]}
    if len(json.dumps(overrides)) > _OVERRIDES_CHARS:
        raise ProviderError(
            f"the command and the environment of a worker take more than the {_OVERRIDES_CHARS} characters "
            "that ECS allows",
            hint="put large values into files or arguments of tasks instead of environment variables",
        )
    return overrides


def _reason(failure: dict[str, Any]) -> str:
    reason, detail = str(failure.get("reason", "")), str(failure.get("detail", ""))
    return f"{reason}: {detail}" if detail else reason
