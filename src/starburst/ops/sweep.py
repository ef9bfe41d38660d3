"""Sweeping: what still costs money, or lies about, and belongs to no session that is alive.

Supervisors, workers and AWS's own schedules end everything by themselves; this finds what was left nevertheless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from starburst.aws.autoscaling import describe_group, end_hosts, list_groups
from starburst.aws.clients import Aws
from starburst.client.status import SessionStatus, read_status
from starburst.clock import Clock, SystemClock
from starburst.compute.ec2_holds import clear, holds_of
from starburst.errors import SessionNotFound, StarburstError
from starburst.ops.choices import open_aws, stored_deployment, usual_bucket
from starburst.ops.definitions import our_definitions, remove_definitions
from starburst.ops.tasks import TaskView, cluster_tasks, stop_tasks
from starburst.protocol.keys import Keys, split_session_url
from starburst.protocol.sessions import EventLog, append_event, list_session_ids, read_manifest
from starburst.protocol.state import SessionState
from starburst.store import Store, open_store

__all__ = ["Leftover", "Sweep", "SweepPlan"]

_AT_ONCE = 8
_MAY_GO_ON = ("open", "abandoned", "unknown")

OLD_S = 30 * 86400.0
"""A task definition that old, which nothing uses, is of a version or an image that nobody comes back to."""


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that no live session needs.

    Attributes:
        kind: What it is.
        name: Its name in the account.
        why: How one knows.
    """

    kind: str
    name: str
    why: str


class SweepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep removes, or removed.

    Attributes:
        account: The account's twelve digits.
        region: The region.
        leftovers: What was found.
        unsure: What could not be judged, and stays.
        done: Whether they were removed.
    """

    account: str
    region: str
    leftovers: tuple[Leftover, ...]
    unsure: tuple[str, ...] = ()
    done: bool = False

    def __str__(self) -> str:
        lines = [f"account {self.account}, region {self.region}"]
        verb = "removed" if self.done else "remove"
        width = max((len(each.kind) for each in self.leftovers), default=0)
        lines += [f"  {verb}  {each.kind:{width}}  {each.name}  ({each.why})" for each in self.leftovers]
        lines += [f"  keep    {line}" for line in self.unsure]
        if not self.leftovers:
            lines.append("nothing is left over")
        return "\n".join(lines)


Removal = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Sweep:
    """One sweep.

    Attributes:
        aws: The account and region.
        bucket: Where sessions are, unless a task says otherwise.
        account: The account's twelve digits.
        clock: Time.
    """

    aws: Aws
    bucket: str
    account: str
    clock: Clock = field(default_factory=SystemClock)
    _states: dict[str, str | None] = field(default_factory=dict)
    _abandoned: dict[str, SessionStatus] = field(default_factory=dict)
    _stores: dict[str, Store] = field(default_factory=dict)
    _unsure: list[str] = field(default_factory=list)
    _removals: list[Removal] = field(default_factory=list)

    @classmethod
    async def open(
        cls,
        *,
        region: str | None,
        profile: str | None,
        bucket: str | None = None,
        clock: Clock | None = None,
    ) -> Sweep:
        """Choose the account and region; changes nothing.

        Raises:
            CredentialsError: There are no good credentials.
        """
        aws = open_aws(region, profile)
        identity = await aws.identity()
        stored = stored_deployment(aws.region, identity.account)
        usual = usual_bucket(stored, identity.account, aws.region)
        return cls(aws, bucket or usual, identity.account, clock or SystemClock())

    async def plan(self) -> SweepPlan:
        """What is left over.

        Raises:
            CloudError: AWS did not answer.
        """
        self._states, self._abandoned, self._unsure, self._removals = {}, {}, [], []
        tasks = [task for task in await cluster_tasks(self.aws) if task.ours]
        leftovers = [
            *await self._tasks(tasks),
            *await self._sessions(tasks),
            *await self._hosts(tasks),
            *await self._definitions(tasks),
        ]
        return SweepPlan(
            account=self.account,
            region=self.aws.region,
            leftovers=tuple(leftovers),
            unsure=tuple(self._unsure),
        )

    async def apply(self, plan: SweepPlan) -> SweepPlan:
        """Remove what was found.

        Raises:
            CloudError: AWS did not do it, or not in time.
        """
        for removal in self._removals:
            await removal()
        return msgspec.structs.replace(plan, done=True)

    async def _tasks(self, tasks: Iterable[TaskView]) -> list[Leftover]:
        """Tasks of sessions that have ended, or are nowhere."""
        over: list[tuple[TaskView, str]] = []
        for task in tasks:
            if not task.session_id:
                over.append((task, "it belongs to no session"))
                continue
            state = await self._state_of(task)
            if state == "unknown":
                self._unsure.append(f"task {task.task_id}: session {task.session_id} cannot be read")
            elif state is None:
                over.append((task, f"its session {task.session_id} is not there any more"))
            elif state == "abandoned":
                self._unsure.append(
                    f"task {task.task_id}: nobody looks after its session; starburst cleanup {task.session_id} ends it"
                )
            elif state != "open":
                over.append((task, f"its session {task.session_id} is {state}"))
        if over:

            async def stop() -> None:
                tasks = [task for task, _ in over]
                await stop_tasks(self.aws, tasks, clock=self.clock, command="starburst sweep")

            self._removals.append(stop)
        return [Leftover(kind="task", name=task.task_id, why=why) for task, why in over]

    async def _sessions(self, tasks: Iterable[TaskView]) -> list[Leftover]:
        """Calls of ``map`` and ``Executor`` whose program is gone: they are closed, their results stay.

        A session of its own is only told: whoever made it may well come back for it.
        """
        root, with_tasks = f"s3://{self.bucket}", {task.session_id for task in tasks}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look(session_id: str) -> None:
            async with gate:
                await self._state(root, session_id)

        try:
            await asyncio.gather(*map(look, await list_session_ids(self._open(root))))
        except StarburstError as error:
            self._unsure.append(f"sessions in {root} cannot be listed: {error.message}")
        found = []
        for session_id, status in sorted(self._abandoned.items()):
            left = status.pending + status.running
            if session_id in with_tasks:
                continue
            if status.kind != "map":
                self._unsure.append(
                    f"session {session_id}: nobody looks after it, and {left} tasks are not done; starburst collect "
                    f"{session_id} -o FILE goes on with it, starburst cleanup {session_id} ends it"
                )
                continue
            why = (
                f"its program is gone; closed, with {status.completed} results kept and {left} tasks not done"
            )
            found.append(Leftover(kind="session", name=session_id, why=why))

            async def close(session_id: str = session_id) -> None:
                if await _read_abandoned(self._open(root), session_id, self.clock):
                    keys = Keys(session_id)
                    data = {"reason": "closed"}
                    await append_event(self._open(root), keys, self.clock, "terminated", data=data)

            self._removals.append(close)
        return found

    async def _hosts(self, tasks: Iterable[TaskView]) -> list[Leftover]:
        """EC2 hosts on which nothing runs, and which no session holds that somebody looks after."""
        busy = {task.capacity for task in tasks}
        found = []
        for group in await list_groups(self.aws):
            if not group.hosts or group.name in busy:
                continue
            holds = holds_of(group.tags)
            states = [await self._state(f"s3://{self.bucket}", hold.session_id) for hold in holds]
            if "unknown" in states:
                self._unsure.append(f"EC2 hosts of {group.name}: a session that holds them cannot be read")
            if "open" in states or "unknown" in states:
                continue
            warm = [hold.until for hold in holds if hold.hosts]
            until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(warm))) if warm else ""
            why = f"nothing runs on them, kept warm until {until}" if warm else "nothing runs on them"
            found.append(Leftover(kind="EC2 hosts", name=f"{len(group.hosts)} of {group.name}", why=why))

            async def end(
                name: str = group.name,
                hosts: tuple[str, ...] = group.hosts,
                holders: frozenset[str] = frozenset(hold.session_id for hold in holds),
            ) -> None:
                await self._end(name, hosts, holders)

            self._removals.append(end)
        return found

    async def _end(self, name: str, hosts: tuple[str, ...], holders: frozenset[str]) -> None:
        """End idle hosts, and the holds that keep them, or would bring them back; unless somebody uses them by now."""
        group = await describe_group(self.aws, name)
        used = {task.capacity for task in await cluster_tasks(self.aws)}
        if group is None or name in used or {hold.session_id for hold in holds_of(group.tags)} - holders:
            return
        for session_id in sorted(holders):
            await clear(self.aws, name, session_id, warm=True, clock=self.clock)
        await end_hosts(self.aws, name, hosts, clock=self.clock)

    async def _definitions(self, tasks: Iterable[TaskView]) -> list[Leftover]:
        """Old task definitions that nothing uses; none while a session is open, which may need one again."""
        used = {task.definition for task in tasks}
        now = self.clock.time()
        old = [
            one
            for one in await our_definitions(self.aws)
            if one.arn not in used and 0 < one.registered_at < now - OLD_S
        ]
        if not old or await self._any_open():
            return []
        self._removals.append(lambda: remove_definitions(self.aws, old))
        day = [time.strftime("%Y-%m-%d", time.gmtime(one.registered_at)) for one in old]
        return [
            Leftover(kind="task definition", name=one.name, why=f"unused, of {when}")
            for one, when in zip(old, day, strict=True)
        ]

    async def _state_of(self, task: TaskView) -> str | None:
        root = split_session_url(task.session_url)[0] if task.session_url else f"s3://{self.bucket}"
        return await self._state(root, task.session_id)

    async def _state(self, root: str, session_id: str) -> str | None:
        """A session's state, or ``abandoned``; None if it is not there, ``unknown`` if its store does not tell."""
        known = f"{root} {session_id}"
        if known not in self._states:
            try:
                store = self._open(root)
                self._states[known] = await _read_state(store, session_id, self.clock.time())
                if self._states[known] == "open" and (
                    status := await _read_abandoned(store, session_id, self.clock)
                ):
                    self._states[known], self._abandoned[session_id] = "abandoned", status
            except SessionNotFound:
                self._states[known] = None
            except StarburstError:
                self._states[known] = "unknown"
        return self._states[known]

    async def _any_open(self) -> bool:
        root = f"s3://{self.bucket}"
        try:
            ids = await list_session_ids(self._open(root))
        except StarburstError:
            return True
        for session_id in ids:
            if await self._state(root, session_id) in _MAY_GO_ON:
                return True
        return False

    def _open(self, root: str) -> Store:
        if root not in self._stores:
            self._stores[root] = open_store(root, region=self.aws.region, profile=self.aws.profile)
        return self._stores[root]


async def _read_abandoned(store: Store, session_id: str, clock: Clock) -> SessionStatus | None:
    """The status of a session that is open though nobody looks after it; None of any other."""
    status = await read_status(store, await read_manifest(store, session_id), clock)
    return status if status.abandoned else None


async def _read_state(store: Store, session_id: str, now: float) -> str:
    manifest = await read_manifest(store, session_id)
    state = SessionState.of(manifest)
    for event in await EventLog(store, Keys(session_id)).news():
        state.apply(event)
    return state.name(now)
