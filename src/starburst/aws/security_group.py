"""The security group of workers: nothing may come in, everything may go out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import OURS_FILTER, SECURITY_GROUP
from starburst.aws.resource import MISSING, Scope, State, is_ours, make_sure_ours
from starburst.clock import Clock, Deadline
from starburst.errors import CloudError, NotSetUp

__all__ = ["SecurityGroup", "our_security_groups", "remove_when_free"]

_ANYWHERE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
_FREE_WITHIN_S = 180.0
_FREE_EVERY_S = 3.0
_OPEN = "lets connections in"
_SHUT = "lets nothing out"


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Our security group in one VPC.

    Attributes:
        aws: Whose account.
        scope: Its region.
        vpc: Tells the VPC; None while it is not made yet.
    """

    aws: Aws
    scope: Scope
    vpc: Callable[[], Awaitable[str | None]]
    kind = "security group"

    @property
    def name(self) -> str:
        """The group's name."""
        return SECURITY_GROUP

    @property
    def way_out(self) -> str:
        """A group of the user's."""
        return "name the security groups of workers yourself: starburst setup --security-groups sg-…"

    async def find(self) -> dict[str, Any] | None:
        """The group of that name, whoever made it."""
        vpc_id = await self.vpc()
        if vpc_id is None:
            return None
        filters = [
            {"Name": "group-name", "Values": [SECURITY_GROUP]},
            {"Name": "vpc-id", "Values": [vpc_id]},
        ]
        found = await self.aws.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=filters)
        return found[0] if found else None

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        found = await self.find()
        if found is None:
            return MISSING
        if not is_ours(found.get("Tags")):
            return State("foreign")
        differences = [_OPEN] if found.get("IpPermissions") else []
        if not any(_is_anywhere(rule) for rule in found.get("IpPermissionsEgress", ())):
            differences.append(_SHUT)
        return State.of(differences)

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "missing":
            await self.aws.call(
                "ec2",
                "create_security_group",
                GroupName=SECURITY_GROUP,
                Description="Workers of starburst: nothing comes in",
                VpcId=await self.vpc(),
                TagSpecifications=[{"ResourceType": "security-group", "Tags": self.scope.tag_list()}],
            )
        found = await self.find()
        if found is None or state.condition == "ours":
            return
        group = {"GroupId": found["GroupId"]}
        if _OPEN in state.details:
            await self.aws.call(
                "ec2", "revoke_security_group_ingress", **group, IpPermissions=found["IpPermissions"]
            )
        if _SHUT in state.details:
            await self.aws.call("ec2", "authorize_security_group_egress", **group, IpPermissions=[_ANYWHERE])


async def our_security_groups(aws: Aws) -> list[dict[str, Any]]:
    """The groups of workers that set-up made in any VPC of the region."""
    filters = [
        {"Name": "group-name", "Values": [SECURITY_GROUP]},
        OURS_FILTER,
    ]
    return await aws.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=filters)


async def remove_when_free(aws: Aws, operation: str, clock: Clock, /, **what: str) -> bool:
    """Delete a piece of a network as soon as nothing uses it any more: addresses of tasks linger for a minute.

    Returns:
        Whether it was there.

    Raises:
        NotSetUp: Something still uses it.
    """
    deadline = Deadline(clock, _FREE_WITHIN_S)
    while True:
        try:
            await aws.call("ec2", operation, region=None, **what)
        except CloudError as error:
            if error.code.endswith(("NotFound", "NotAttached")):
                return False
            if error.code not in ("DependencyViolation", "ResourceInUse"):
                raise
            if deadline.passed:
                name = next(iter(what.values()))
                raise NotSetUp(
                    f"{name} is still used by something that starburst did not make: {error.message}",
                    hint="aws ec2 describe-network-interfaces shows by what; then: starburst teardown",
                    code=error.code,
                    operation=error.operation,
                ) from error
            await clock.sleep(_FREE_EVERY_S)
        else:
            return True


def _is_anywhere(rule: dict[str, Any]) -> bool:
    return rule["IpProtocol"] == "-1" and any(
        each["CidrIp"] == "0.0.0.0/0" for each in rule.get("IpRanges", ())
    )
