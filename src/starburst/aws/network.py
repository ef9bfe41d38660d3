"""Where workers run: subnets of one VPC, and whether they need public addresses to reach AWS from there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.errors import CloudError, NotSetUp, OptionError

__all__ = ["Placement", "check_security_groups", "default_placement", "given_placement"]

_HTTPS = 443
_SUBNETS_OF_A_TASK = 16
_GROUPS_OF_A_TASK = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where workers run.

    Attributes:
        vpc_id: The VPC.
        subnets: Its subnets for workers; of several zones, so that one without capacity does not stop them.
        assign_public_ip: Workers need an address of their own to reach AWS.
        warnings: What may go wrong there.
    """

    vpc_id: str
    subnets: tuple[str, ...]
    assign_public_ip: bool
    warnings: tuple[str, ...] = ()


async def default_placement(aws: Aws) -> Placement:
    """The default VPC's public subnets.

    Raises:
        NotSetUp: There is no default VPC, or none of its subnets is public.
    """
    found = await aws.pages(
        "ec2", "describe_vpcs", "Vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}]
    )
    if not found:
        raise NotSetUp(
            f"the account has no default VPC in {aws.region}",
            hint="starburst setup --new-vpc, or --subnets subnet-…,subnet-…, or: aws ec2 create-default-vpc",
        )
    vpc_id = found[0]["VpcId"]
    subnets = await aws.pages(
        "ec2", "describe_subnets", "Subnets", Filters=[{"Name": "vpc-id", "Values": [vpc_id]}]
    )
    public = [each for each in subnets if each.get("MapPublicIpOnLaunch")]
    if not public:
        raise NotSetUp(
            f"the default VPC {vpc_id} in {aws.region} has no public subnet",
            hint="starburst setup --new-vpc, or --subnets subnet-…,subnet-…",
        )
    return await _placement(aws, vpc_id, public)


async def given_placement(aws: Aws, subnets: Sequence[str]) -> Placement:
    """Subnets that the user names.

    Raises:
        OptionError: One does not exist here, or they are not of one VPC.
    """
    found = await _find(aws, "describe_subnets", "Subnets", {"SubnetIds": subnets})
    vpcs = sorted({each["VpcId"] for each in found})
    if len(vpcs) > 1:
        places = ", ".join(f"{each['SubnetId']} in {each['VpcId']}" for each in found)
        raise OptionError(
            f"the subnets are of different VPCs: {places}",
            hint=f"name subnets of one VPC: aws ec2 describe-subnets --filters Name=vpc-id,Values={vpcs[0]}",
        )
    if len(found) > _SUBNETS_OF_A_TASK:
        raise OptionError(f"{len(found)} subnets are more than the {_SUBNETS_OF_A_TASK} that ECS takes")
    return await _placement(aws, vpcs[0], found)


async def check_security_groups(aws: Aws, groups: Sequence[str], vpc_id: str) -> tuple[str, ...]:
    """Refuse security groups with which no worker would start.

    Returns:
        Warnings.

    Raises:
        OptionError: One does not exist, is of another VPC, or together they let nothing out.
    """
    found = await _find(aws, "describe_security_groups", "SecurityGroups", {"GroupIds": groups})
    if len(found) > _GROUPS_OF_A_TASK:
        raise OptionError(
            f"{len(found)} security groups are more than the {_GROUPS_OF_A_TASK} that ECS takes"
        )
    for group in found:
        if group["VpcId"] != vpc_id:
            raise OptionError(
                f"the security group {group['GroupId']} is of {group['VpcId']}, the subnets are of {vpc_id}",
                hint=f"name one of {vpc_id}, with --subnets of the same VPC; or leave --security-groups out, and "
                "one is made",
            )
    rules = [rule for group in found for rule in group.get("IpPermissionsEgress", ()) if _lets_https(rule)]
    names = ", ".join(group["GroupId"] for group in found)
    if not any(_targets(rule) for rule in rules):
        raise OptionError(
            f"the security group {names} blocks egress: no rule lets HTTPS (TCP 443) out, so workers would reach "
            "neither the bucket nor the image",
            hint=f"aws ec2 authorize-security-group-egress --group-id {found[0]['GroupId']} --protocol tcp "
            "--port 443 --cidr 0.0.0.0/0; or leave --security-groups out, and one is made",
        )
    if not any("0.0.0.0/0" in _targets(rule) for rule in rules):
        targets = ", ".join(sorted({target for rule in rules for target in _targets(rule)}))
        warning = f"the security group {names} lets HTTPS out to {targets} only: S3, ECR and CloudWatch Logs "
        return (f"{warning} have to be among them",)
    return ()


async def _placement(aws: Aws, vpc_id: str, subnets: Sequence[dict[str, Any]]) -> Placement:
    subnets = sorted(subnets, key=lambda each: (each["AvailabilityZone"], each["SubnetId"]))
    ids = tuple(each["SubnetId"] for each in subnets)[:_SUBNETS_OF_A_TASK]
    ways = await _ways_out(aws, vpc_id, ids)
    public = "public" in ways.values() or any(each.get("MapPublicIpOnLaunch") for each in subnets)
    warnings = []
    lost = [subnet for subnet in ids if ways[subnet] == "none"]
    if lost and not await _has_endpoints(aws, vpc_id):
        warnings.append(
            f"no route leads out of {_some(lost)}: workers there reach AWS only through VPC endpoints for S3, ECR "
            f"(api and dkr) and CloudWatch Logs, which {vpc_id} does not have"
        )
    zones = {each["AvailabilityZone"] for each in subnets}
    if len(zones) == 1:
        warnings.append(f"all subnets are in {zones.pop()}: without capacity there, no worker starts")
    if sum(each.get("AvailableIpAddressCount", 0) for each in subnets) < 2 * len(ids):
        warnings.append(f"the subnets {_some(ids)} have hardly any free addresses")
    return Placement(vpc_id=vpc_id, subnets=ids, assign_public_ip=public, warnings=tuple(warnings))


async def _ways_out(aws: Aws, vpc_id: str, subnets: Iterable[str]) -> dict[str, str]:
    """By subnet: ``public`` (an internet gateway), ``private`` (NAT or another router), ``none``."""
    tables = await aws.pages(
        "ec2", "describe_route_tables", "RouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc_id]}]
    )
    by_subnet: dict[str, str] = {}
    main = "none"
    for table in tables:
        way = "none"
        for route in table.get("Routes", ()):
            if route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole":
                way = "public" if str(route.get("GatewayId", "")).startswith("igw-") else "private"
        for each in table.get("Associations", ()):
            if each.get("Main"):
                main = way
            elif each.get("SubnetId"):
                by_subnet[each["SubnetId"]] = way
    return {subnet: by_subnet.get(subnet, main) for subnet in subnets}


async def _has_endpoints(aws: Aws, vpc_id: str) -> bool:
    endpoints = await aws.pages(
        "ec2", "describe_vpc_endpoints", "VpcEndpoints", Filters=[{"Name": "vpc-id", "Values": [vpc_id]}]
    )
    names = {each["ServiceName"].split(f".{aws.region}.", 1)[-1] for each in endpoints}
    return {"s3", "ecr.api", "ecr.dkr", "logs"} <= names


async def _find(aws: Aws, operation: str, key: str, ids: dict[str, Sequence[str]]) -> list[dict[str, Any]]:
    """What the ids of one parameter name.

    Raises:
        OptionError: One does not exist here, or is no id at all.
    """
    wanted: dict[str, Any] = {name: list(dict.fromkeys(each)) for name, each in ids.items()}
    try:
        return await aws.pages("ec2", operation, key, **wanted)
    except CloudError as error:
        if not error.code.startswith("Invalid"):
            raise
        raise OptionError(
            f"{', '.join(*wanted.values())}: not all of them exist in {aws.region}: {error.message}",
            hint=f"aws ec2 {operation.replace('_', '-')} --region {aws.region}",
        ) from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _lets_https(rule: dict[str, Any]) -> bool:
    ports = range(rule.get("FromPort", 0), rule.get("ToPort", 65535) + 1)
    return rule["IpProtocol"] == "-1" or (rule["IpProtocol"] in ("tcp", "6") and _HTTPS in ports)


def _targets(rule: dict[str, Any]) -> list[str]:
    ranges = [each["CidrIp"] for each in rule.get("IpRanges", ())]
    groups = [each["GroupId"] for each in rule.get("UserIdGroupPairs", ()) if "GroupId" in each]
    lists = [each["PrefixListId"] for each in rule.get("PrefixListIds", ())]
    useful = [each for each in ranges if not ipaddress.ip_network(each, strict=False).is_loopback]
    return [*useful, *groups, *lists]
