"""The tasks of one session on ECS: listed and described no more often than needed, and remembered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from starburst.aws.clients import Aws
from starburst.clock import Clock, Deadline
from starburst.compute.base import ProviderStatus
from starburst.compute.ecs_outcome import status_of
from starburst.compute.ecs_place import EcsPlace, started_by
from starburst.errors import CloudError

__all__ = ["SessionTasks"]

log = logging.getLogger(__name__)

_PER_CALL = 100
_STOPS_AT_ONCE = 16
_LIST_STOPPED_EVERY_S = 60.0
_UNKNOWN_FOR_S = 60.0
"""ECS may not list a task at once that it has just started."""
_MISSING = "ECS does not know this task any more"


class SessionTasks:
    """What ECS knows of a session's tasks.

    Args:
        aws: The account.
        place: Where the tasks are.
        session_id: The session.
        clock: Time.
        every_s: Seconds between two looks of a small session; large ones look less often.
    """

    def __init__(
        self, aws: Aws, place: EcsPlace, session_id: str, clock: Clock, *, every_s: float = 1.0
    ) -> None:
        self._aws = aws
        self._place = place
        self._started_by = started_by(session_id)
        self._clock = clock
        self._every_s = every_s
        self._tasks: dict[str, dict[str, Any]] = {}
        self._statuses: dict[str, ProviderStatus] = {}
        self._missed_s: dict[str, float] = {}
        self._looked_s = float("-inf")
        self._listed_stopped_s = float("-inf")
        self._looking = asyncio.Lock()

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """The tasks as ECS described them last, by ARN."""
        return self._tasks

    @property
    def statuses(self) -> list[ProviderStatus]:
        """All tasks that were ever seen, sorted by name."""
        return sorted(self._statuses.values(), key=lambda status: status.worker)

    def arn_of(self, worker: str) -> str | None:
        """The task of a worker; None if there is none."""
        return next((arn for arn, status in self._statuses.items() if status.worker == worker), None)

    def alive(self) -> list[str]:
        """ARNs of those that are not gone."""
        return [arn for arn, status in self._statuses.items() if status.alive]

    def add(self, tasks: Iterable[dict[str, Any]]) -> list[ProviderStatus]:
        """Tasks that were just started."""
        return [self._take(task) for task in tasks]

    async def look(self, *, at_once: bool = False) -> None:
        """Bring the statuses up to date, unless that was done a moment ago.

        Raises:
            CloudError: ECS does not answer.
        """
        async with self._looking:
            pause_s = max(self._every_s, len(self.alive()) / 50)
            if not at_once and self._clock.monotonic() - self._looked_s < pause_s:
                return
            listed = set(await self._list("RUNNING"))
            if self._clock.monotonic() - self._listed_stopped_s >= _LIST_STOPPED_EVERY_S:
                self._listed_stopped_s = self._clock.monotonic()
                listed.update(await self._list("STOPPED"))
            unknown = [arn for arn in listed if arn not in self._statuses]
            await self._describe([*self.alive(), *unknown])
            self._looked_s = self._clock.monotonic()

    async def stop(self, arns: Sequence[str], reason: str) -> None:
        """Ask ECS to stop tasks: SIGTERM, and SIGKILL two minutes later.

        Raises:
            CloudError: One could not be asked for.
        """
        gate = asyncio.Semaphore(_STOPS_AT_ONCE)

        async def stop(arn: str) -> None:
            async with gate:
                await self._aws.call(
                    "ecs", "stop_task", cluster=self._place.cluster, task=arn, reason=reason[:255]
                )

        results = await asyncio.gather(*map(stop, arns), return_exceptions=True)
        self._looked_s = float("-inf")
        for arn, result in zip(arns, results, strict=True):
            if isinstance(result, BaseException) and "was not found" not in str(result):
                log.warning("task %s was not stopped: %s", arn, result)
                raise result

    async def until_gone(self, arns: Sequence[str], deadline: Deadline) -> list[str]:
        """Wait for tasks to end; those that have not when time is up."""
        while True:
            # No more often than all else looks: many may wait at the same time, each for its own.
            await self.look()
            left = [arn for arn in arns if arn in self._statuses and self._statuses[arn].alive]
            if not left or deadline.passed:
                return left
            await self._clock.sleep(min(self._every_s, deadline.remaining_s()))

    async def _list(self, desired: str) -> list[str]:
        try:
            return await self._aws.pages(
                "ecs",
                "list_tasks",
                "taskArns",
                cluster=self._place.cluster,
                startedBy=self._started_by,
                desiredStatus=desired,
            )
        except CloudError as error:
            # The API's text says that startedBy must be the only filter; those that stopped before we looked
            # first are then not known, and all others are.
            if desired == "STOPPED" and error.code == "InvalidParameterException":
                log.info("tasks that have stopped are not listed: %s", error.message)
                return []
            raise

    async def _describe(self, arns: Sequence[str]) -> None:
        for first in range(0, len(arns), _PER_CALL):
            some = list(arns[first : first + _PER_CALL])
            answer = await self._aws.call("ecs", "describe_tasks", cluster=self._place.cluster, tasks=some)
            described = {str(task["taskArn"]) for task in answer["tasks"]}
            for task in answer["tasks"]:
                self._take(task)
            for arn in some:
                if arn not in described:
                    self._miss(arn)

    def _take(self, task: dict[str, Any]) -> ProviderStatus:
        arn = str(task["taskArn"])
        self._missed_s.pop(arn, None)
        self._tasks[arn] = task
        status = self._statuses[arn] = status_of(task)
        return status

    def _miss(self, arn: str) -> None:
        if arn not in self._tasks:
            return
        missed_s = self._missed_s.setdefault(arn, self._clock.monotonic())
        if self._clock.monotonic() - missed_s >= _UNKNOWN_FOR_S:
            stopped = {**self._tasks[arn], "lastStatus": "STOPPED", "stoppedReason": _MISSING}
            self._take(stopped)
