"""The roles. They belong to the account, not to a region, so regions and buckets share them.

Each region, and for objects each bucket, has an inline policy of its own in the role, named after it: setting up a
second region takes nothing from the first, and the names tell what is set up. The last one to go takes the role.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starburst.aws import policies
from starburst.aws.clients import Aws
from starburst.aws.names import (
    BUILD_ROLE,
    EXECUTION_ROLE,
    INSTANCE_PROFILE,
    INSTANCE_ROLE,
    SUPERVISOR_ROLE,
    TASK_ROLE,
)
from starburst.aws.resource import MISSING, Scope, State, ask, is_ours, make_sure_ours, same_json
from starburst.errors import CloudError

__all__ = ["InstanceProfile", "Role", "ServiceLinkedRoles", "buckets_of", "roles_of"]

_GONE = ("NoSuchEntity",)
_POLICY = "starburst-"
_TRUST = "trusts somebody else"
_BOUNDARY = "has another permissions boundary"


def roles_of(
    aws: Aws,
    scope: Scope,
    *,
    boundary: str | None = None,
    fargate_only: bool = False,
    remote_build: bool = False,
) -> list[Role]:
    """Our roles, as they should be.

    Args:
        aws: Whose account.
        scope: Where we are set up.
        boundary: A policy that limits them, where the account demands one.
        fargate_only: Without the role of EC2 hosts.
        remote_build: With that of remote builds.
    """
    region, bucket = f"{_POLICY}{scope.region}", f"{_POLICY}{scope.bucket}"
    tasks, hosts = policies.trust_policy("ecs-tasks", scope), policies.trust_policy("ec2", scope)
    objects = policies.task_policy(scope)
    roles = [
        Role(aws, scope, EXECUTION_ROLE, tasks, {region: policies.execution_policy(scope)}, boundary),
        Role(aws, scope, TASK_ROLE, tasks, {bucket: objects}, boundary),
        Role(
            aws,
            scope,
            SUPERVISOR_ROLE,
            tasks,
            {bucket: objects, region: policies.supervisor_policy(scope)},
            boundary,
        ),
    ]
    if not fargate_only:
        roles.append(
            Role(aws, scope, INSTANCE_ROLE, hosts, {region: policies.instance_policy(scope)}, boundary)
        )
    if remote_build:
        documents = {bucket: policies.build_sources_policy(scope), region: policies.build_policy(scope)}
        trust = policies.trust_policy("codebuild", scope)
        roles.append(Role(aws, scope, BUILD_ROLE, trust, documents, boundary))
    return roles


async def buckets_of(aws: Aws) -> list[str]:
    """The buckets that the account is set up with, in any region: the role of workers has a policy for each."""
    names = await _policy_names(aws, TASK_ROLE)
    return [name.removeprefix(_POLICY) for name in names if name.startswith(_POLICY)]


@dataclass(frozen=True, slots=True)
class Role:
    """One of our roles.

    Attributes:
        aws: Whose account.
        scope: Where we are set up.
        name: Its name.
        trust: Who may take it on.
        documents: Its inline policies that are ours to keep, by name.
        boundary: The policy that limits it; None leaves what is there.
    """

    aws: Aws
    scope: Scope
    name: str
    trust: Mapping[str, Any]
    documents: Mapping[str, Mapping[str, Any]]
    boundary: str | None = None
    kind = "role"

    @property
    def way_out(self) -> str:
        """Its name is fixed."""
        return (
            "delete it, or hand it over (`starburst teardown` then removes it): aws iam tag-role "
            f"--role-name {self.name} --tags Key=starburst:managed,Value=true"
        )

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        answer = await ask(self.aws, _GONE, "iam", "get_role", RoleName=self.name)
        if answer is None:
            return MISSING
        role = answer["Role"]
        if not is_ours(role.get("Tags")):
            return State("foreign")
        differences = [] if same_json(role["AssumeRolePolicyDocument"], self.trust) else [_TRUST]
        if self.boundary not in (
            None,
            role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
        ):
            differences.append(_BOUNDARY)
        differences += [f"its policy {name} is not as it should be" for name in await self._wrong_documents()]
        return State.of(differences)

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "missing":
            limit = {"PermissionsBoundary": self.boundary} if self.boundary else {}
            await self._call(
                "create_role",
                AssumeRolePolicyDocument=json.dumps(self.trust),
                Description="Made by starburst setup",
                Tags=self.scope.tag_list(),
                **limit,
            )
        if _TRUST in state.details:
            await self._call("update_assume_role_policy", PolicyDocument=json.dumps(self.trust))
        if _BOUNDARY in state.details:
            await self._call("put_role_permissions_boundary", PermissionsBoundary=self.boundary)
        for name in await self._wrong_documents():
            text = json.dumps(self.documents[name], separators=(",", ":"))
            await self._call("put_role_policy", PolicyName=name, PolicyDocument=text)

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`; it stays while other regions or buckets need it."""
        if not (await self.state()).is_ours:
            return False
        names = await _policy_names(self.aws, self.name)
        for name in names:
            if name in self.documents:
                await self._forget(name)
        if await self.still_needed_by():
            return True
        for name in await _policy_names(self.aws, self.name):
            await self._forget(name)
        for each in await self.aws.pages(
            "iam", "list_attached_role_policies", "AttachedPolicies", RoleName=self.name
        ):
            await self._call("detach_role_policy", PolicyArn=each["PolicyArn"])
        await self._call("delete_role")
        return True

    async def still_needed_by(self) -> list[str]:
        """Other regions and buckets that are set up with this role."""
        names = await _policy_names(self.aws, self.name)
        return [
            name.removeprefix(_POLICY)
            for name in names
            if name.startswith(_POLICY) and name not in self.documents
        ]

    async def _wrong_documents(self) -> list[str]:
        wrong = []
        for name, document in self.documents.items():
            answer = await ask(self.aws, _GONE, "iam", "get_role_policy", RoleName=self.name, PolicyName=name)
            if answer is None or not same_json(answer["PolicyDocument"], document):
                wrong.append(name)
        return wrong

    async def _forget(self, policy: str) -> None:
        await self._call("delete_role_policy", PolicyName=policy)

    async def _call(self, operation: str, **parameters: Any) -> Any:
        return await self.aws.call("iam", operation, RoleName=self.name, **parameters)


@dataclass(frozen=True, slots=True)
class InstanceProfile:
    """What carries the role of EC2 hosts to them.

    Attributes:
        aws: Whose account.
        scope: Where we are set up.
    """

    aws: Aws
    scope: Scope
    kind = "instance profile"

    @property
    def name(self) -> str:
        """The profile's name."""
        return INSTANCE_PROFILE

    @property
    def way_out(self) -> str:
        """Its name is fixed."""
        return (
            "delete it, or hand it over (`starburst teardown` then removes it): aws iam tag-instance-profile "
            f"--instance-profile-name {INSTANCE_PROFILE} --tags Key=starburst:managed,Value=true"
        )

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        found = await self._get()
        if found is None:
            return MISSING
        if not is_ours(found.get("Tags")):
            return State("foreign")
        return State.of([] if INSTANCE_ROLE in _roles_in(found) else [f"does not carry {INSTANCE_ROLE}"])

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`; the role has to be there."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "missing":
            await self._call("create_instance_profile", Tags=self.scope.tag_list())
        if state.condition != "ours":
            await self._drop_roles(but=INSTANCE_ROLE)  # it carries one at the most
            await self._add_role()

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`."""
        if not (await self.state()).is_ours:
            return False
        await self._drop_roles()
        await self._call("delete_instance_profile")
        return True

    async def _get(self) -> dict[str, Any] | None:
        answer = await ask(
            self.aws, _GONE, "iam", "get_instance_profile", InstanceProfileName=INSTANCE_PROFILE
        )
        return None if answer is None else dict(answer["InstanceProfile"])

    async def _drop_roles(self, *, but: str = "") -> None:
        for role in _roles_in(await self._get() or {}):
            if role != but:
                await self._call("remove_role_from_instance_profile", RoleName=role)

    async def _add_role(self) -> None:
        try:
            await self._call("add_role_to_instance_profile", RoleName=INSTANCE_ROLE)
        except CloudError as error:
            # It carries one already: perhaps another set-up has just put ours there.
            if error.code != "LimitExceeded" or not (await self.state()).condition == "ours":
                raise

    async def _call(self, operation: str, **parameters: Any) -> Any:
        return await self.aws.call("iam", operation, InstanceProfileName=INSTANCE_PROFILE, **parameters)


@dataclass(frozen=True, slots=True)
class ServiceLinkedRoles:
    """The roles by which AWS's own services act in the account; an account has each once, whoever asked for it.

    They stay: they cost nothing, and what else is in the account may need them.

    Attributes:
        aws: Whose account.
        services: Which ones: ``ecs``, ``autoscaling``, ``spot``.
    """

    aws: Aws
    services: Sequence[str]
    kind = "service-linked roles"

    @property
    def name(self) -> str:
        """Which services they are for."""
        return ", ".join(self.services)

    @property
    def way_out(self) -> str:
        """They are AWS's own: nobody else can make one."""
        return ""

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        lacking = await self._lacking()
        if len(lacking) == len(self.services):
            return MISSING
        return State.of([f"none for {service}" for service in lacking])

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        for service in await self._lacking():
            await ask(
                self.aws,
                ("InvalidInput", "EntityAlreadyExists"),  # somebody else's first use made it just now
                "iam",
                "create_service_linked_role",
                AWSServiceName=f"{service}.amazonaws.com",
            )

    async def _lacking(self) -> list[str]:
        return [
            service
            for service in self.services
            if not await self.aws.pages(
                "iam", "list_roles", "Roles", PathPrefix=f"/aws-service-role/{service}.amazonaws.com/"
            )
        ]


async def _policy_names(aws: Aws, role: str) -> list[str]:
    try:
        return await aws.pages("iam", "list_role_policies", "PolicyNames", RoleName=role)
    except CloudError as error:
        if error.code in _GONE:
            return []
        raise


def _roles_in(profile: Mapping[str, Any]) -> list[str]:
    return [role["RoleName"] for role in profile.get("Roles", ())]
