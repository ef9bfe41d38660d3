"""Workers as tasks of ECS: ``FARGATE`` and ``EC2``.

All that is known stands in the session's manifest and in ECS, so any process with credentials for the account can
look after a session that another one made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from starburst.aws.clients import Aws
from starburst.clock import Clock, Deadline, SystemClock
from starburst.compute.base import Launched, LaunchSpec, Place, PlaceEnvironment, ProviderStatus
from starburst.compute.ecs_definition import (
    STOP_TIMEOUT_S,
    ensure_definition,
    supervisor_definition,
    worker_definition,
)
from starburst.compute.ecs_launch import Run, Started, run_tasks
from starburst.compute.ecs_logs import read_log
from starburst.compute.ecs_outcome import name_of
from starburst.compute.ecs_place import EcsPlace, place_from
from starburst.compute.ecs_prepare import Target, aws_for, prepare_fargate, target_of
from starburst.compute.ecs_spot import why_not_spot
from starburst.compute.ecs_tasks import SessionTasks
from starburst.container import in_ecs, task_arn
from starburst.errors import CloudError, ProviderError
from starburst.options import Options

__all__ = ["EcsProvider", "FargateProvider"]

log = logging.getLogger(__name__)

_ON_DEMAND_FARGATE = ("FARGATE",)
_SLACK_S = 60.0
_ROUNDS = 5


class EcsProvider:
    """What both launch types share; an instance looks after sessions of one place.

    Args:
        clock: Time.
        look_every_s: Seconds between two looks at a small session's tasks.
    """

    name: ClassVar[str] = "ECS"

    def __init__(self, *, clock: Clock | None = None, look_every_s: float = 1.0) -> None:
        self._clock = clock or SystemClock()
        self._look_every_s = look_every_s
        self._place: EcsPlace | None = None
        self._aws: Aws | None = None
        self._sessions: dict[str, SessionTasks] = {}

    @property
    def place(self) -> EcsPlace:
        """Where the tasks are.

        Raises:
            ProviderError: The provider was neither prepared nor attached.
        """
        if self._place is None:
            raise ProviderError(f"the provider {self.name} was not told which session it is for")
        return self._place

    @property
    def aws(self) -> Aws:
        """The account that they are in."""
        if self._aws is None:
            self._aws = aws_for(self.place.region)
        return self._aws

    async def prepare(self, options: Options) -> Place:
        """Check that the account is set up, the size exists and the image is there.

        Raises:
            OptionError: An option does not fit.
            CloudError: Something is missing; the hint says how to get it.
        """
        target = await target_of(options)
        self._aws = target.aws
        place, environment = await self._placed(target, options)
        definition = await ensure_definition(target.aws, worker_definition(place))
        self._place = msgspec.structs.replace(place, definition=definition)
        return Place(
            store=f"s3://{target.deployment.bucket}",
            environment=environment,
            deployment=msgspec.to_builtins(self._place),
        )

    def attach(self, deployment: Mapping[str, Any]) -> None:
        """Look after a session that was prepared elsewhere.

        Raises:
            ProviderError: Its manifest does not say where its workers are.
        """
        self._place, self._aws = place_from(deployment), None

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start workers, as many as quota and capacity allow; they get their names from their tasks.

        Raises:
            CloudError: AWS refused, and nothing was started.
        """
        if not spec.workers:
            return Launched(workers=())
        await self._before_launch(spec)
        found: list[ProviderStatus] = []
        tasks = self._tasks(spec.session_id)
        fallback = self._why_not_spot(tasks)
        for first, count, capacity in self._parts(spec, spot=not fallback):
            command = [
                spec.session_url,
                "--ordinal",
                str(first),
                "--of",
                str(count),
                "--slots",
                str(spec.slots),
            ]
            run = Run(
                session_id=spec.session_id,
                definition=self.place.definition,
                count=count,
                command=command,
                capacity=capacity,
                fargate=self.place.launch_type == "FARGATE",
                environment=dict(spec.env),
            )
            try:
                started = await run_tasks(self.aws, self._clock, self.place, run)
            except CloudError as error:
                if not found:
                    raise
                return Launched(workers=tuple(found), shortfall=error.message, fallback=fallback)
            found += tasks.add(started.tasks)
            if started.why is not None:
                return Launched(workers=tuple(found), shortfall=_shortfall(started), fallback=fallback)
        return Launched(workers=tuple(found), fallback=fallback)

    async def launch_supervisor(
        self,
        session_url: str,
        session_id: str,
        *,
        cwd: str | None = None,  # noqa: ARG002 - of a machine, not of a container
        env: Mapping[str, str] | None = None,
        python: str | None = None,  # noqa: ARG002
    ) -> ProviderStatus:
        """Start a supervisor as the smallest on-demand Fargate task.

        Raises:
            ProviderError: There is no room for it, or AWS refused.
        """
        definition = await ensure_definition(self.aws, supervisor_definition(self.place))
        run = Run(
            session_id=session_id,
            definition=definition,
            count=1,
            command=[session_url],
            capacity=_ON_DEMAND_FARGATE,
            fargate=True,
            environment=dict(env or {}),
        )
        started = await run_tasks(self.aws, self._clock, self.place, run)
        if not started.tasks:
            raise ProviderError(
                f"the supervisor of session {session_id} cannot start: {started.reason}",
                hint="a quarter of a vCPU of the Fargate on-demand quota is enough for it",
            )
        return self._tasks(session_id).add(started.tasks)[0]

    async def extend(self, session_id: str, deadline_at: float) -> None:
        """Nothing to move: tasks keep the deadline themselves."""

    async def describe(self, session_id: str) -> list[ProviderStatus]:
        """All tasks of a session that ECS knows, or that were seen while it did.

        Raises:
            CloudError: ECS does not answer.
        """
        tasks = self._tasks(session_id)
        await tasks.look()
        return tasks.statuses

    async def tend(self, session_id: str) -> None:
        """Nothing: Fargate has no hosts."""

    async def stop(
        self,
        session_id: str,
        workers: Sequence[str] | None = None,
        *,
        grace_s: float = 10.0,  # noqa: ARG002 - a container has what its definition gives it
        wait: bool = True,
    ) -> None:
        """Stop tasks: SIGTERM, and SIGKILL after two minutes.

        Raises:
            ProviderError: Some still run long after that.
            CloudError: ECS does not answer.
        """
        await self._stop(session_id, workers, wait=wait)
        if workers is None:
            await self._after_stop(session_id)

    async def _stop(self, session_id: str, workers: Sequence[str] | None, *, wait: bool) -> None:
        tasks = self._tasks(session_id)
        deadline = Deadline(self._clock, STOP_TIMEOUT_S + _SLACK_S)
        asked: set[str] = set()
        # Who stops all does not stop itself.
        own = await asyncio.to_thread(task_arn) if workers is None and in_ecs() else None
        for _ in range(_ROUNDS):  # a supervisor may start others before it ends itself
            await tasks.look(at_once=workers is None)
            named = [
                arn
                for arn in tasks.alive()
                if (arn != own if workers is None else name_of(tasks.tasks[arn]) in workers)
            ]
            fresh = [arn for arn in named if arn not in asked]
            await tasks.stop(fresh, "starburst: no longer needed")
            asked.update(fresh)
            if wait and (left := await tasks.until_gone(named, deadline)):
                raise ProviderError(
                    f"{len(left)} tasks of session {session_id} still run {STOP_TIMEOUT_S + _SLACK_S:g} s after they "
                    f"were stopped: {', '.join(left)}",
                    hint=f"starburst sweep; or: aws ecs list-tasks --cluster {self.place.cluster} "
                    f"--started-by {session_id}",
                )
            if workers is not None or not fresh:
                return

    async def logs(self, session_id: str, worker: str, *, offset_bytes: int = 0) -> bytes:
        """What a worker printed, from CloudWatch Logs.

        Raises:
            ProviderError: There is no log of it.
        """
        arn = self._tasks(session_id).arn_of(worker)
        return await read_log(self.aws, self.place, worker, arn, offset_bytes=offset_bytes)

    async def forget(self, session_id: str) -> None:
        """Nothing is recorded here; logs go when their retention is over."""
        self._sessions.pop(session_id, None)

    async def _placed(self, target: Target, options: Options) -> tuple[EcsPlace, PlaceEnvironment]:
        raise NotImplementedError

    async def _before_launch(self, spec: LaunchSpec) -> None:
        """What has to be there first."""

    async def _after_stop(self, session_id: str) -> None:
        """What follows when a session's last tasks were stopped."""

    def _capacity(self, *, spot: bool) -> tuple[str, ...]:
        """Capacity providers in the order in which they are tried; the first one is Spot, if there are two."""
        return self.place.capacity if spot else self.place.capacity[1:]

    def _why_not_spot(self, tasks: SessionTasks) -> str:
        """Why on-demand capacity is used though there may be Spot; empty if Spot is tried, or never left."""
        if self.place.spot != "prefer":
            return ""
        return why_not_spot(tasks.tasks.values(), self.place.spot_provider, self._clock.time())

    def _parts(self, spec: LaunchSpec, *, spot: bool) -> list[tuple[int, int, tuple[str, ...]]]:
        """First ordinal, number and capacity: those below ``on_demand_base`` are on-demand in any case."""
        first, count = spec.first_ordinal, len(spec.workers)
        sure = max(0, min(count, self.place.on_demand_base - first))
        parts = [
            (first, sure, (self.place.on_demand_provider,)),
            (first + sure, count - sure, self._capacity(spot=spot)),
        ]
        return [part for part in parts if part[1]]

    def _tasks(self, session_id: str) -> SessionTasks:
        found = self._sessions.get(session_id)
        if found is None:
            found = self._sessions[session_id] = SessionTasks(
                self.aws, self.place, session_id, self._clock, every_s=self._look_every_s
            )
        return found


class FargateProvider(EcsProvider):
    """Workers on Fargate and Fargate Spot."""

    name = "FARGATE"

    async def _placed(self, target: Target, options: Options) -> tuple[EcsPlace, PlaceEnvironment]:
        return await prepare_fargate(target, options)


def _shortfall(started: Started) -> str:
    what = {
        "quota": "the account's vCPU quota is used up",
        "capacity": "AWS has no capacity just now",
        "placement": "no host has room",
        "fatal": "ECS refuses",
    }
    return f"{what[started.why or 'fatal']}: {started.reason}"
