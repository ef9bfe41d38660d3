"""What a request to the control plane needs permission for: actions, resources and condition keys.

After Amazon's Service Authorization Reference, for the operations that starburst and its users' tools call; what
is not listed has no resource, so that only a statement for ``*`` allows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from starburst.testing.aws import permissions_ecs
from starburst.testing.aws.iam import Access
from starburst.testing.aws.permissions_common import Need, Place, members

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call
    from starburst.testing.aws.identities import Identity

__all__ = ["accesses"]


def accesses(call: Call, identity: Identity, partition: str) -> list[Access]:
    """Everything that has to be allowed, in the order in which AWS complains.

    Args:
        call: The request.
        identity: Who sent it.
        partition: ``aws``, or another for ARNs.
    """
    place = Place(partition, call.region, call.account)
    common = {
        "aws:RequestedRegion": call.region,
        "aws:SecureTransport": "true",
        "aws:SourceIp": "127.0.0.1",
        "aws:PrincipalArn": identity.arn,
        "aws:PrincipalAccount": identity.account,
    }
    needs = _SERVICES.get(call.service, _nothing)(call, place)
    return [
        Access(need.action or call.action, need.resource, {**common, **need.context}) for need in needs
    ] or [Access(call.action, "*", common)]


def _nothing(_call: Call, _place: Place) -> Iterator[Need]:
    yield from ()


def _iam(call: Call, place: Place) -> Iterator[Need]:
    given = call.parameters
    context = {}
    for key, name in (
        ("iam:PolicyARN", "PolicyArn"),
        ("iam:AWSServiceName", "AWSServiceName"),
        ("iam:PermissionsBoundary", "PermissionsBoundary"),
    ):
        if name in given:
            context[key] = str(given[name])
    if call.operation == "CreateServiceLinkedRole":
        yield Need(place.iam(f"role/aws-service-role/{given.get('AWSServiceName')}/*"), context=context)
    elif "InstanceProfileName" in given:
        yield Need(place.iam(f"instance-profile/{given['InstanceProfileName']}"))
        if call.operation == "AddRoleToInstanceProfile":
            yield place.pass_role(given["RoleName"], "ec2.amazonaws.com")
    elif "RoleName" in given:
        role = place.iam(f"role{given.get('Path', '/')}{given['RoleName']}")
        yield Need(role, context=context)
        if call.operation == "CreateRole" and "Tags.member.1.Key" in given:
            yield Need(role, "iam:TagRole")
    elif "UserName" in given:
        yield Need(place.iam(f"user/{given['UserName']}"), context=context)
    elif "PolicyArn" in given:
        yield Need(str(given["PolicyArn"]))
    elif "PolicyName" in given:
        yield Need(place.iam(f"policy/{given['PolicyName']}"))


def _sts(call: Call, _place: Place) -> Iterator[Need]:
    if "RoleArn" in call.parameters:
        yield Need(str(call.parameters["RoleArn"]))


def _ec2(call: Call, place: Place) -> Iterator[Need]:
    if call.operation.startswith("Describe"):
        return
    from moto.ec2.models import ec2_backends

    tags = ec2_backends[call.account][call.region].tags
    given = call.parameters
    for name, kind in _EC2_IDS.items():
        for value in [given[name]] if name in given else members(given, name):
            of_it = {f"aws:ResourceTag/{key}": text for key, text in tags.get(value, {}).items()}
            yield Need(place.arn("ec2", f"{kind}/{value}"), context=of_it)
    made = re.fullmatch(r"(?:Create|Run|Request)(.+)", call.operation)
    if made and made[1] != "Tags":
        kind = _kebab(made[1]).removesuffix("s")
        yield Need(place.arn("ec2", f"{kind}/*"))
        if any(name.startswith("TagSpecification") for name in given):
            yield Need(place.arn("ec2", f"{kind}/*"), "ec2:CreateTags", {"ec2:CreateAction": call.operation})


# Parameters of EC2 that name what an operation acts on.
_EC2_IDS = {
    "VpcId": "vpc",
    "SubnetId": "subnet",
    "GroupId": "security-group",
    "RouteTableId": "route-table",
    "InternetGatewayId": "internet-gateway",
    "LaunchTemplateId": "launch-template",
    "VpcEndpointId": "vpc-endpoint",
    "InstanceId": "instance",
}


def _autoscaling(call: Call, place: Place) -> Iterator[Need]:
    if call.operation.startswith("Describe"):
        return
    from moto.autoscaling.models import autoscaling_backends

    given = call.parameters
    names = [given[name] for name in ("AutoScalingGroupName", "Tags.member.1.ResourceId") if name in given]
    for name in names[:1]:
        group = autoscaling_backends[call.account][call.region].autoscaling_groups.get(name)
        tags = {f"aws:ResourceTag/{tag['Key']}": tag["Value"] for tag in (group.tags if group else [])}
        yield Need(place.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{name}"), context=tags)
        if call.operation == "CreateAutoScalingGroup" and any("LaunchTemplate" in each for each in given):
            # Who makes a group from a template must be allowed what the template does.
            yield Need(place.arn("ec2", "instance/*"), "ec2:RunInstances")


def _logs(call: Call, place: Place) -> Iterator[Need]:
    given = call.parameters
    named = given.get("resourceArn") or given.get("logGroupIdentifier")
    if named:
        yield Need(str(named))
        return
    several = given.get("logGroupNames") or given.get("logGroupIdentifiers") or []
    for group in [given["logGroupName"]] if "logGroupName" in given else several:
        name = str(group).partition(":log-group:")[2] or str(group)
        # What AWS names in its refusals; the stream is empty for operations on the group.
        stream = given.get("logStreamName", "")
        yield Need(place.arn("logs", f"log-group:{name}:log-stream:{stream}"))


def _ecr(call: Call, place: Place) -> Iterator[Need]:
    given = call.parameters
    if "resourceArn" in given:
        yield Need(str(given["resourceArn"]))
    elif call.operation != "GetAuthorizationToken":
        for name in given.get("repositoryNames") or [given.get("repositoryName", "*")]:
            yield Need(place.arn("ecr", f"repository/{name}"))


def _codebuild(call: Call, place: Place) -> Iterator[Need]:
    given = call.parameters
    names = (
        given.get("names")
        or given.get("ids")
        or [given[each] for each in ("name", "projectName", "id") if each in given]
    )
    for name in names:
        yield Need(place.arn("codebuild", f"project/{str(name).partition(':')[0]}"))
    if "serviceRole" in given:
        yield place.pass_role(given["serviceRole"], "codebuild.amazonaws.com")


def _ssm(call: Call, place: Place) -> Iterator[Need]:
    given = call.parameters
    for name in given.get("Names") or [given.get("Name") or given.get("Path", "*")]:
        path = str(name).lstrip("/")
        owner = "" if path.startswith("aws/") else place.account
        yield Need(f"arn:{place.partition}:ssm:{place.region}:{owner}:parameter/{path}")


def _scheduler(call: Call, place: Place) -> Iterator[Need]:
    given = call.parameters
    _, kind, name, *_ = (*str(call.environ.get("PATH_INFO", "")).split("/"), "", "")
    if kind == "schedule-groups":
        if name:
            yield Need(place.arn("scheduler", f"schedule-group/{name}"))
    elif kind == "schedules" and name:
        group = given.get("GroupName") or given.get("groupName") or "default"
        yield Need(place.arn("scheduler", f"schedule/{group}/{name}"))
        role = (given.get("Target") or {}).get("RoleArn")
        if role:
            yield place.pass_role(role, "scheduler.amazonaws.com")


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


_SERVICES: dict[str, Callable[[Call, Place], Iterator[Need]]] = {
    "autoscaling": _autoscaling,
    "codebuild": _codebuild,
    "ec2": _ec2,
    "ecr": _ecr,
    "ecs": permissions_ecs.needs,
    "iam": _iam,
    "logs": _logs,
    "scheduler": _scheduler,
    "ssm": _ssm,
    "sts": _sts,
}
