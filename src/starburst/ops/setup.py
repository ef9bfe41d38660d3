"""Setting up: a plan of what would be made, kept and changed; then the same, step by step.

Each step looks again before it acts, so a set-up that was interrupted goes on where it stopped, and one that is done
twice changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from starburst.aws import people, policies
from starburst.aws.deployment import Deployment
from starburst.aws.resource import Resource, State, ensured
from starburst.aws.roles import roles_of
from starburst.client.engine import engine
from starburst.clock import Clock
from starburst.errors import NotSetUp, StarburstError
from starburst.ops.blueprint import Blueprint, Used
from starburst.ops.choices import Choices, names_of, open_aws

__all__ = ["Setup", "SetupPlan", "Step", "documents_of", "setup"]

Action = Literal["make", "change", "keep", "use", "foreign"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a set-up.

    Attributes:
        action: What is done: ``make``, ``change``, ``keep`` (it is as it should be), ``use`` (it is the user's),
            ``foreign`` (something of that name is somebody else's: nothing is done).
        kind: What it is.
        name: Its name in the account.
        details: What differs, or what it is like.
    """

    action: Action
    kind: str
    name: str
    details: tuple[str, ...] = ()


class SetupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a set-up does, or did.

    Attributes:
        account: The account's twelve digits.
        region: The region.
        identity: Whose credentials are used.
        steps: In their order.
        warnings: What may go wrong later.
        deployment: What was set up; None in a plan.
    """

    account: str
    region: str
    identity: str
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    deployment: Deployment | None = None

    @property
    def to_do(self) -> list[Step]:
        """The steps that change something."""
        return [step for step in self.steps if step.action in ("make", "change")]

    @property
    def foreign(self) -> list[Step]:
        """The names that are taken."""
        return [step for step in self.steps if step.action == "foreign"]

    def __str__(self) -> str:
        lines = [f"account {self.account}, region {self.region}, as {self.identity}"]
        width = max((len(step.kind) for step in self.steps), default=0)
        for step in self.steps:
            more = f"  ({'; '.join(step.details)})" if step.details else ""
            action = step.action.upper() if step.action == "foreign" else step.action
            lines.append(f"  {action:7}  {step.kind:{width}}  {step.name}{more}")
        lines += [f"  ! {warning}" for warning in self.warnings]
        if not self.to_do and not self.foreign:
            lines.append("everything is as it should be")
        else:
            lines.append("at rest it costs nothing, but for what the bucket, the images and the logs hold")
        return "\n".join(lines)


OnStep = Callable[[Step], None]


@dataclass(slots=True)
class Setup:
    """One set-up.

    Attributes:
        blueprint: What should be.
    """

    blueprint: Blueprint
    _resources: list[Resource]

    @classmethod
    async def open(
        cls, choices: Choices, *, region: str | None, profile: str | None, clock: Clock | None = None
    ) -> Setup:
        """Look at the account; changes nothing.

        Raises:
            OptionError: Something that was chosen is wrong.
            CredentialsError: There are no good credentials.
            NotSetUp: There is no network for workers.
            CloudError: AWS did not answer.
        """
        return await cls.of(await Blueprint.draw(open_aws(region, profile), choices, clock=clock))

    @classmethod
    async def of(cls, blueprint: Blueprint) -> Setup:
        """The set-up of a blueprint; raises what :meth:`open` does."""
        return cls(blueprint, await blueprint.resources())

    def close(self) -> None:
        """Close connections."""
        self.blueprint.aws.close()

    async def plan(self) -> SetupPlan:
        """What is to be done.

        Raises:
            CloudError: AWS did not answer.
        """
        blueprint = self.blueprint
        states = await asyncio.gather(*(resource.state() for resource in self._resources))
        pairs = list(zip(self._resources, states, strict=True))
        warnings = [warning for state in states for warning in state.warnings]
        return SetupPlan(
            account=blueprint.scope.account,
            region=blueprint.scope.region,
            identity=(await blueprint.aws.identity()).arn,
            steps=tuple(_step(resource, state) for resource, state in pairs),
            warnings=(*warnings, *self._advice()),
        )

    async def apply(self, plan: SetupPlan, on_step: OnStep | None = None) -> SetupPlan:
        """Do it; steps that are done already do nothing.

        Args:
            plan: What :meth:`plan` said.
            on_step: Told of each step that is done.

        Returns:
            The plan, with what was set up.

        Raises:
            NotSetUp: A name is taken; nothing was changed.
            CloudError: AWS did not do a step; those before it are done.
        """
        self.check_names(plan)
        for resource, step in zip(self._resources, plan.steps, strict=True):
            if step.action not in ("make", "change"):
                continue
            try:
                await ensured(resource, clock=self.blueprint.clock)
            except StarburstError as error:
                again = "what was made stays: the same command again goes on from there"
                error.hint = f"{error.hint}; {again}" if error.hint else again
                raise
            if on_step is not None:
                on_step(step)
        return msgspec.structs.replace(plan, deployment=await self.blueprint.deployment())

    def check_names(self, plan: SetupPlan) -> None:
        """Refuse to go on if a name is taken.

        Raises:
            NotSetUp: One is; the message names it, the hint tells the way out.
        """
        for resource, step in zip(self._resources, plan.steps, strict=True):
            if step.action == "foreign":
                why = "; ".join(step.details)
                raise NotSetUp(
                    f"the {step.kind} {step.name} is there, but starburst did not make it ({why}); nothing was changed",
                    hint=resource.way_out,
                )

    def _advice(self) -> Iterable[str]:
        stored, scope = self.blueprint.stored, self.blueprint.scope
        if stored is not None and stored.bucket != scope.bucket:
            yield (
                f"the bucket {stored.bucket} of the earlier set-up stays, with its sessions; workers go on in it, "
                "and `starburst teardown` removes both"
            )
        if stored is not None and stored.instance_profile_arn and self.blueprint.fargate_only:
            yield "the EC2 capacity of the earlier set-up stays, at zero hosts; `starburst teardown` removes it"


def setup(
    bucket: str | None = None,
    *,
    region: str | None = None,
    profile: str | None = None,
    fargate_only: bool | None = None,
    instance_types: str | Iterable[str] | None = None,
    subnets: str | Iterable[str] | None = None,
    security_groups: str | Iterable[str] | None = None,
    new_vpc: bool = False,
    image: str | None = None,
    permissions_boundary: str | None = None,
    log_days: int | None = None,
    remote_build: bool | None = None,
    dry_run: bool = False,
) -> SetupPlan:
    """Prepare an AWS account for cloud workers: print the plan, then make what is missing.

    It may be called again at any time, also after it was interrupted; what is there stays. What is not given stays as
    it was set up, and has its default in a new set-up. Nothing that it makes costs anything while no worker runs,
    but for what the bucket, the image repository and the log group hold.

        starburst.setup(region="eu-central-1")

    Args:
        bucket: The bucket for sessions; ``starburst-<account>-<region>`` unless given.
        region: The region; that of the settings, the environment or the profile unless given.
        profile: The AWS profile.
        fargate_only: No EC2 capacity.
        instance_types: EC2 types that get capacity now, as a list or ``"a,b"``; ``c7g.xlarge`` unless given.
        subnets: Where workers run; the public subnets of the default VPC unless given.
        security_groups: Of workers; one without any inbound rule is made unless given.
        new_vpc: Make a VPC for workers.
        image: The workers' container image.
        permissions_boundary: ARN of a policy that limits the roles.
        log_days: How long workers' output is kept; 7 days unless given.
        remote_build: Let AWS CodeBuild build images with system packages, for people without a container engine.
        dry_run: Print the plan, and do nothing.

    Returns:
        The plan that was carried out; :attr:`SetupPlan.deployment` is what is set up now.

    Raises:
        OptionError: An argument is wrong.
        CredentialsError: There are no good credentials.
        NotSetUp: A name is taken by something that is not ours, or there is no network for workers.
        CloudError: AWS did not do a step; those before it are done.
    """
    choices = Choices(
        bucket=bucket,
        fargate_only=fargate_only,
        instance_types=names_of(instance_types),
        subnets=names_of(subnets),
        security_groups=names_of(security_groups),
        new_vpc=new_vpc,
        image=image,
        permissions_boundary=permissions_boundary,
        log_days=log_days,
        remote_build=remote_build,
    )
    work = engine.run(Setup.open(choices, region=region, profile=profile))
    try:
        plan = engine.run(work.plan())
        sys.stdout.write(f"{plan}\n")
        return plan if dry_run else engine.run(work.apply(plan))
    finally:
        work.close()


def documents_of(blueprint: Blueprint) -> dict[str, Any]:
    """The permission documents: of people, of the bucket, and of the roles that set-up makes."""
    scope = blueprint.scope
    remote = blueprint.remote_build
    roles = roles_of(blueprint.aws, scope, fargate_only=blueprint.fargate_only, remote_build=remote)
    builds = {
        "setup-builds": people.setup_builds_policy(scope),
        "job-builds": people.job_builds_policy(scope),
    }
    return {
        "setup": people.setup_policy(scope),
        "jobs": people.job_policy(scope),
        **(builds if remote else {}),
        "bucket": policies.document(policies.bucket_statement(scope)),
        "roles": {role.name: {"trust": role.trust, "policies": dict(role.documents)} for role in roles},
    }


def _step(resource: Resource, state: State) -> Step:
    actions: dict[str, Action] = {
        "missing": "make",
        "differs": "change",
        "ours": "keep",
        "foreign": "foreign",
    }
    action = actions[state.condition]
    details = state.why_foreign if action == "foreign" else state.details
    return Step(
        action="use" if isinstance(resource, Used) else action,
        kind=resource.kind,
        name=resource.name,
        details=details,
    )
