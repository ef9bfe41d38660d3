"""What should be in the account, as resources in the order in which they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from starburst.aws.bucket import Bucket
from starburst.aws.clients import Aws
from starburst.aws.cluster import Cluster
from starburst.aws.codebuild import BuildProject
from starburst.aws.deployment import Deployment, deployment_path, save_deployment
from starburst.aws.loggroup import LogGroup
from starburst.aws.names import (
    BUILD_PROJECT,
    CLUSTER,
    EXECUTION_ROLE,
    INSTANCE_PROFILE,
    LOG_GROUP,
    SUPERVISOR_ROLE,
    TASK_ROLE,
)
from starburst.aws.network import (
    Placement,
    check_security_groups,
    default_placement,
    given_placement,
)
from starburst.aws.repository import Repository
from starburst.aws.resource import MISSING, OURS, Resource, Scope, State
from starburst.aws.roles import InstanceProfile, ServiceLinkedRoles, roles_of
from starburst.aws.security_group import SecurityGroup
from starburst.aws.vpc import NewVpc
from starburst.clock import Clock, SystemClock
from starburst.errors import CloudError, OptionError
from starburst.ops.capacity import Capacity, types_of
from starburst.ops.choices import Choices, stored_deployment, usual_bucket

__all__ = ["Blueprint", "Used", "deployment_of_scope"]


@dataclass(frozen=True, slots=True)
class Used:
    """Something of the user's that workers use, and that we leave as it is.

    Attributes:
        kind: What it is.
        name: Its names.
        details: What it is like.
        warnings: What may go wrong with it.
    """

    kind: str
    name: str
    details: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    way_out = ""

    async def state(self) -> State:
        """It was looked at already."""
        return State("ours", self.details, self.warnings)

    async def ensure(self) -> None:
        """It is there."""


def deployment_of_scope(
    scope: Scope,
    repository: str,
    *,
    placement: Placement | None = None,
    security_groups: Sequence[str] = (),
    fargate_only: bool = False,
    profile: str | None = None,
    image: str | None = None,
    remote_build: bool = False,
) -> Deployment:
    """What the settings keep; all but the network follows from the names."""
    return Deployment(
        account=scope.account,
        region=scope.region,
        bucket=scope.bucket,
        cluster=CLUSTER,
        repository=repository,
        execution_role_arn=scope.role_arn(EXECUTION_ROLE),
        task_role_arn=scope.role_arn(TASK_ROLE),
        supervisor_role_arn=scope.role_arn(SUPERVISOR_ROLE),
        log_group=LOG_GROUP,
        subnets=placement.subnets if placement else (),
        security_groups=tuple(security_groups),
        instance_profile_arn="" if fargate_only else scope.instance_profile_arn(INSTANCE_PROFILE),
        assign_public_ip=placement.assign_public_ip if placement else True,
        profile=profile,
        image=image,
        build_project=BUILD_PROJECT if remote_build else "",
    )


@dataclass(slots=True)
class Blueprint:
    """The whole, for one account and region.

    Attributes:
        aws: The account and region.
        scope: Names and addresses.
        choices: What was chosen.
        stored: What an earlier set-up left in the settings.
        clock: What waits are measured by.
    """

    aws: Aws
    scope: Scope
    choices: Choices
    stored: Deployment | None
    clock: Clock = field(default_factory=SystemClock)
    _vpc: NewVpc | None = None
    _placement: Placement | None = None
    _groups: tuple[str, ...] = ()
    _group: SecurityGroup | None = None
    _deployment: Deployment | None = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    async def draw(cls, aws: Aws, choices: Choices, *, clock: Clock | None = None) -> Blueprint:
        """The blueprint for these credentials.

        Raises:
            CredentialsError: There are none, or they are not good.
        """
        identity = await aws.identity()
        stored = stored_deployment(aws.region, identity.account)
        bucket = choices.bucket or usual_bucket(stored, identity.account, aws.region)
        scope = Scope.of(identity, region=aws.region, bucket=bucket)
        return cls(aws, scope, choices, stored, clock or SystemClock())

    @property
    def fargate_only(self) -> bool:
        """Whether there is no EC2 capacity: as chosen, or as it was."""
        if self.choices.fargate_only is not None:
            return self.choices.fargate_only
        return (
            self.stored is not None
            and not self.stored.instance_profile_arn
            and not self.choices.instance_types
        )

    @property
    def remote_build(self) -> bool:
        """Whether images can be built by AWS: as chosen, or as it was."""
        if self.choices.remote_build is not None:
            return self.choices.remote_build
        return self.stored is not None and bool(self.stored.build_project)

    async def resources(self) -> list[Resource]:
        """All of them, in the order in which they are made.

        Raises:
            OptionError: Something that was chosen does not fit: types, subnets, security groups.
            NotSetUp: There is no network for workers.
        """
        aws, scope = self.aws, self.scope
        services = ("ecs",) if self.fargate_only else ("ecs", "autoscaling", "spot")
        boundary = self.choices.permissions_boundary
        types = () if self.fargate_only else await types_of(aws, self.choices.instance_types)
        network = await self._network()
        found: list[Resource] = [
            ServiceLinkedRoles(aws, services),
            Bucket(aws, scope),
            Repository(aws, scope),
            LogGroup(aws, scope, self.choices.log_days),
            *roles_of(
                aws, scope, boundary=boundary, fargate_only=self.fargate_only, remote_build=self.remote_build
            ),
        ]
        if self.remote_build:
            found.append(BuildProject(aws, scope, self.clock))
        if not self.fargate_only:
            found.append(InstanceProfile(aws, scope))
        found += [*network, Cluster(aws, scope, self.clock)]
        found += [
            Capacity(aws, self.deployment, (one,), spot, self.clock)
            for one in types
            for spot in (True, False)
        ]
        return [*found, SettingsFile(self)]

    async def deployment(self) -> Deployment | None:
        """What will stand in the settings; None while its network is not there yet."""
        async with self._looking:
            if self._deployment is None:
                self._deployment = await self._look()
            return self._deployment

    async def _look(self) -> Deployment | None:
        placement = await self._place()
        groups = self._groups
        if placement is not None and self._group is not None:
            group = await self._group.find()
            groups = (group["GroupId"],) if group else ()
        if placement is None or not groups:
            return None
        stored = self.stored
        return deployment_of_scope(
            self.scope,
            Repository(self.aws, self.scope).uri,
            placement=placement,
            security_groups=groups,
            fargate_only=self.fargate_only,
            profile=self.aws.profile or (stored.profile if stored else None),
            image=self.choices.image or (stored.image if stored else None),
            remote_build=self.remote_build,
        )

    async def _network(self) -> list[Resource]:
        """Given subnets, our own VPC if there is one or should be, those of the earlier set-up, the default VPC."""
        ours = NewVpc(self.aws, self.scope, self.clock)
        if self.choices.subnets:
            self._placement, what = await given_placement(self.aws, self.choices.subnets), "as given"
        elif self.choices.new_vpc or await ours.vpc_id() is not None:
            self._vpc = ours
            self._group = SecurityGroup(self.aws, self.scope, ours.vpc_id)
            return [ours, self._group]
        else:
            earlier = await self._earlier_placement()
            self._placement = earlier or await default_placement(self.aws)
            what = "as before" if earlier else "default VPC"
        placement = self._placement
        count = f"{len(placement.subnets)} subnets"
        address = "public addresses" if placement.assign_public_ip else "no public addresses"
        network = Used("network", placement.vpc_id, (what, count, address), placement.warnings)
        return [network, await self._security_group(placement)]

    async def _security_group(self, placement: Placement) -> Resource:
        async def vpc_id() -> str | None:
            return placement.vpc_id

        ours = SecurityGroup(self.aws, self.scope, vpc_id)
        given = self.choices.security_groups
        if not given and self.stored is not None:
            given = await self._earlier_groups(ours, self.stored, placement)
        if not given:
            self._group = ours
            return ours
        warnings = await check_security_groups(self.aws, given, placement.vpc_id)
        self._groups = given
        return Used("security groups", ", ".join(given), (), warnings)

    async def _earlier_placement(self) -> Placement | None:
        if self.stored is None or not self.stored.subnets:
            return None
        try:
            return await given_placement(self.aws, self.stored.subnets)
        except OptionError:  # they are gone
            return None

    async def _earlier_groups(
        self, ours: SecurityGroup, stored: Deployment, placement: Placement
    ) -> tuple[str, ...]:
        """Groups that the user gave earlier; not ours, and not those of another network."""
        found = await ours.find()
        if (found and found["GroupId"] in stored.security_groups) or not stored.security_groups:
            return ()
        try:
            await check_security_groups(self.aws, stored.security_groups, placement.vpc_id)
        except OptionError:
            return ()
        return stored.security_groups

    async def _place(self) -> Placement | None:
        if self._vpc is None:
            return self._placement
        return await self._vpc.placement()


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The user's settings of this region: how calls find all the rest.

    Attributes:
        blueprint: What they keep.
    """

    blueprint: Blueprint
    kind = "settings"
    way_out = ""

    @property
    def name(self) -> str:
        """The file."""
        return str(deployment_path(self.blueprint.scope.region))

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        stored = stored_deployment(self.blueprint.scope.region)
        if stored is None:
            return MISSING
        wanted = await self.blueprint.deployment()
        if stored == wanted:
            return OURS
        if wanted is None:
            return State.of(["the network is not there yet"])
        changed = [
            f"{name}: {getattr(stored, name)} → {getattr(wanted, name)}"
            for name in Deployment.__struct_fields__
            if getattr(stored, name) != getattr(wanted, name)
        ]
        return State.of(changed)

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        wanted = await self.blueprint.deployment()
        if wanted is None:
            raise CloudError(
                "the network that was just made is not to be seen yet", hint="starburst setup, once more"
            )
        if stored_deployment(self.blueprint.scope.region) != wanted:
            save_deployment(wanted)
