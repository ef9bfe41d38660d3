"""Taking down what set-up and sessions made: listed first, then removed in order, nothing but what is ours."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from starburst.aws.bucket import Bucket, check_bucket_name
from starburst.aws.clients import Aws
from starburst.aws.cluster import Cluster
from starburst.aws.codebuild import BuildProject
from starburst.aws.deployment import deployment_path, forget_deployment
from starburst.aws.loggroup import LogGroup
from starburst.aws.names import BUILD_ROLE, CLUSTER, bucket_name
from starburst.aws.repository import Repository
from starburst.aws.resource import Removable, Scope
from starburst.aws.roles import InstanceProfile, Role, buckets_of, roles_of
from starburst.aws.security_group import our_security_groups, remove_when_free
from starburst.aws.vpc import NewVpc
from starburst.client.engine import engine
from starburst.clock import Clock, SystemClock
from starburst.compute.ecs_outcome import task_id_of
from starburst.errors import NotSetUp
from starburst.ops.blueprint import deployment_of_scope
from starburst.ops.choices import open_aws, stored_deployment, usual_bucket
from starburst.ops.definitions import our_definitions, remove_definitions
from starburst.ops.tasks import cluster_tasks, services_of_cluster, stop_tasks

__all__ = ["Item", "Teardown", "TeardownPlan", "teardown"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to remove.

    Attributes:
        kind: What it is.
        name: Its name in the account.
        details: What is in it.
    """

    kind: str
    name: str
    details: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.details})" if self.details else "")


class TeardownPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a teardown removes, or removed.

    Attributes:
        account: The account's twelve digits.
        region: The region.
        items: In the order in which they go.
        kept: What stays, and why.
        done: Whether it was carried out.
    """

    account: str
    region: str
    items: tuple[Item, ...]
    kept: tuple[str, ...] = ()
    done: bool = False

    def __str__(self) -> str:
        lines = [f"account {self.account}, region {self.region}"]
        verb = "removed" if self.done else "remove"
        width = max((len(item.kind) for item in self.items), default=0)
        for item in self.items:
            details = f"  ({item.details})" if item.details else ""
            lines.append(f"  {verb}  {item.kind:{width}}  {item.name}{details}")
        lines += [f"  keep    {line}" for line in self.kept]
        if not self.items:
            lines.append("there is nothing of starburst to remove")
        return "\n".join(lines)


Removal = Callable[[], Awaitable[Any]]
OnItem = Callable[[Item], None]


@dataclass(slots=True)
class Teardown:
    """One teardown.

    Attributes:
        aws: The account and region.
        scope: Names and addresses.
        keep_bucket: The bucket and its sessions stay.
        clock: What waits are measured by.
    """

    aws: Aws
    scope: Scope
    keep_bucket: bool = False
    clock: Clock = field(default_factory=SystemClock)
    _removals: list[tuple[Item, Removal]] = field(default_factory=list)
    _kept: list[str] = field(default_factory=list)

    @classmethod
    async def open(
        cls,
        *,
        region: str | None,
        profile: str | None,
        bucket: str | None = None,
        keep_bucket: bool = False,
        clock: Clock | None = None,
    ) -> Teardown:
        """Choose the account and region; changes nothing.

        Raises:
            OptionError: The name of the bucket or the region cannot be one.
            CredentialsError: There are no good credentials.
        """
        if bucket is not None:
            check_bucket_name(bucket)
        aws = open_aws(region, profile)
        identity = await aws.identity()
        stored = stored_deployment(aws.region, identity.account)
        usual = usual_bucket(stored, identity.account, aws.region)
        scope = Scope.of(identity, region=aws.region, bucket=bucket or usual)
        return cls(aws, scope, keep_bucket, clock or SystemClock())

    async def plan(self) -> TeardownPlan:
        """What there is to remove.

        Raises:
            NotSetUp: Something of somebody else's runs in our cluster; nothing was changed.
            CloudError: AWS did not answer.
        """
        self._removals, self._kept = [], []
        cluster = Cluster(self.aws, self.scope, self.clock)
        if (await cluster.state()).is_ours:
            await self._plan_tasks()
        await self._plan_capacity()
        await self._plan_definitions()
        await self._plan_whole(cluster)
        await self._plan_whole(LogGroup(self.aws, self.scope))
        await self._plan_whole(Repository(self.aws, self.scope))
        buckets = await self._buckets()
        await self._plan_builds()
        await self._plan_roles(buckets)
        await self._plan_network()
        for bucket in buckets:
            await self._plan_bucket(bucket)
        path = deployment_path(self.scope.region)
        if path.exists():
            item = Item(kind="settings", name=str(path))
            self._removals.append((item, self._forget))
        return TeardownPlan(
            account=self.scope.account,
            region=self.scope.region,
            items=tuple(item for item, _ in self._removals),
            kept=tuple(self._kept),
        )

    async def apply(self, plan: TeardownPlan, on_item: OnItem | None = None) -> TeardownPlan:
        """Remove it; what is gone already is passed over, so it can be interrupted and done again.

        Args:
            plan: What :meth:`plan` said.
            on_item: Told of each thing that is removed.

        Raises:
            CloudError: AWS did not do it, or not in time; what was removed before is removed.
        """
        for item, removal in self._removals:
            await removal()
            if on_item is not None:
                on_item(item)
        return msgspec.structs.replace(plan, done=True, kept=tuple(self._kept))

    async def _plan_whole(self, resource: Removable) -> None:
        state = await resource.state()
        if state.is_ours:
            self._removals.append((Item(kind=resource.kind, name=resource.name), resource.remove))
        elif state.condition == "foreign":
            self._kept.append(f"{resource.kind} {resource.name}: starburst did not make it")

    async def _plan_tasks(self) -> None:
        tasks = await cluster_tasks(self.aws)
        foreign = [task.task_id for task in tasks if not task.ours]
        foreign += [task_id_of(arn) for arn in await services_of_cluster(self.aws)]
        if foreign:
            raise NotSetUp(
                f"the cluster {CLUSTER} runs tasks or services that starburst did not start: "
                f"{', '.join(foreign[:10])}; nothing was changed",
                hint="stop them, or move them to another cluster; then: starburst teardown",
            )
        if not tasks:
            return
        sessions = {task.session_id for task in tasks if task.session_id}

        async def stop() -> None:
            running = await cluster_tasks(self.aws)
            await stop_tasks(self.aws, running, clock=self.clock, command="starburst teardown")

        item = Item(kind="tasks", name=CLUSTER, details=f"{len(tasks)} running, of {len(sessions)} sessions")
        self._removals.append((item, stop))

    async def _plan_capacity(self) -> None:
        from starburst.compute.ec2_capacity import list_capacity, remove_capacity

        deployment = deployment_of_scope(self.scope, Repository(self.aws, self.scope).uri)
        for one in await list_capacity(self.aws, deployment):

            async def remove(name: str = one.name) -> None:
                try:
                    await remove_capacity(self.aws, deployment, name, clock=self.clock)
                except NotSetUp as error:  # a part of that name is somebody else's
                    self._kept.append(error.message)

            self._removals.append((Item(kind="EC2 capacity", name=one.name), remove))

    async def _plan_definitions(self) -> None:
        definitions = await our_definitions(self.aws)
        if definitions:
            active = sum(one.active for one in definitions)
            item = Item(
                kind="task definitions",
                name=", ".join(sorted({one.name.rsplit(":", 1)[0] for one in definitions})),
                details=f"{len(definitions)} revisions, {active} active",
            )
            self._removals.append((item, lambda: remove_definitions(self.aws, definitions)))

    async def _plan_roles(self, buckets: list[Bucket]) -> None:
        await self._plan_whole(InstanceProfile(self.aws, self.scope))
        for role in roles_of(self.aws, self.scope, remote_build=True):
            # The policies of all our buckets in this region go with it; other regions' stay.
            documents = dict(role.documents)
            if f"starburst-{self.scope.bucket}" in documents:
                documents |= {f"starburst-{bucket.name}": {} for bucket in buckets}
            await self._plan_role(replace(role, documents=documents))

    async def _plan_builds(self) -> None:
        """The project of remote builds; where its role is not, it cannot be, and no permission is needed to look."""
        roles = roles_of(self.aws, self.scope, remote_build=True)
        if (await next(role for role in roles if role.name == BUILD_ROLE).state()).is_ours:
            await self._plan_whole(BuildProject(self.aws, self.scope, self.clock))

    async def _plan_role(self, role: Role) -> None:
        state = await role.state()
        if state.condition == "missing":
            return
        if state.condition == "foreign":
            self._kept.append(f"role {role.name}: starburst did not make it")
            return
        others = await role.still_needed_by()
        details = f"only its policies for this region: {', '.join(others)} still need it" if others else ""
        self._removals.append((Item(kind="role", name=role.name, details=details), role.remove))

    async def _plan_network(self) -> None:
        for group in await our_security_groups(self.aws):
            item = Item(kind="security group", name=group["GroupId"], details=f"of {group['VpcId']}")

            async def remove(group_id: str = group["GroupId"]) -> None:
                await remove_when_free(self.aws, "delete_security_group", self.clock, GroupId=group_id)

            self._removals.append((item, remove))
        await self._plan_whole(NewVpc(self.aws, self.scope, self.clock))

    async def _plan_bucket(self, bucket: Bucket) -> None:
        state = await bucket.state()
        if state.condition == "foreign":
            self._kept.append(
                f"bucket {bucket.name}: {'; '.join(state.details) or 'starburst did not make it'}"
            )
        if not state.is_ours:
            return
        n, size_bytes = await bucket.contents()
        more = "more than " if n >= 10_000 else ""
        holds = f"{more}{n:,} objects, {size_bytes / 1e6:,.1f} MB"
        if self.keep_bucket:
            self._kept.append(f"bucket {bucket.name} ({holds})")
            return
        item = Item(kind="bucket", name=bucket.name, details=f"{holds}: results of sessions go with it")
        self._removals.append((item, bucket.remove))

    async def _buckets(self) -> list[Bucket]:
        """This region's buckets of ours: the one in the settings, and those that the roles have policies for."""
        names = {self.scope.bucket, bucket_name(self.scope.account, self.scope.region)}
        names.update(await buckets_of(self.aws))
        buckets = [Bucket(self.aws, replace(self.scope, bucket=name)) for name in sorted(names)]
        return [one for one in buckets if await one.region() in (None, self.scope.region)]

    async def _forget(self) -> None:
        forget_deployment(self.scope.region)


def teardown(
    region: str | None = None,
    *,
    profile: str | None = None,
    bucket: str | None = None,
    keep_bucket: bool = False,
    yes: bool = False,
) -> TeardownPlan:
    """Remove what :func:`starburst.setup` and sessions made in a region: tasks, capacity, cluster, roles, bucket.

    Prints what goes and what stays; without ``yes=True`` that is all it does. Only what carries our tag is removed.

        starburst.teardown(yes=True)

    Args:
        region: The region; that of the settings, the environment or the profile unless given.
        profile: The AWS profile.
        bucket: The bucket, where the settings do not know it any more.
        keep_bucket: The bucket and its sessions stay.
        yes: Do it.

    Returns:
        What was, or would be, removed.

    Raises:
        CredentialsError: There are no good credentials.
        NotSetUp: Something of somebody else's runs in our cluster; nothing was changed.
        CloudError: AWS did not do it, or not in time; what was removed before is removed.
    """
    work = engine.run(Teardown.open(region=region, profile=profile, bucket=bucket, keep_bucket=keep_bucket))
    try:
        plan = engine.run(work.plan())
        sys.stdout.write(f"{plan}\n")
        return engine.run(work.apply(plan)) if yes else plan
    finally:
        work.aws.close()
