"""A VPC of our own, for accounts without a default one: public subnets in several zones, S3 without a detour.

Its pieces are found again by their tags. All of it costs nothing while no worker runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import OURS_FILTER, VPC_NAME
from starburst.aws.network import Placement, given_placement
from starburst.aws.resource import MISSING, Scope, State, ask
from starburst.aws.security_group import remove_when_free
from starburst.clock import Clock
from starburst.errors import CloudError, CloudUnavailable

_ROUNDS, _AGAIN_S = 20, 1.0
__all__ = ["NewVpc"]

_CIDR = "10.83.0.0/16"
_SUBNET_CIDRS = ("10.83.0.0/18", "10.83.64.0/18", "10.83.128.0/18")
"""16,000 addresses each: a worker takes one."""

Piece = dict[str, Any]


@dataclass(slots=True)
class _Pieces:
    """What there is of it."""

    vpc: Piece
    subnets: list[Piece]
    gateway: Piece | None
    table: Piece | None
    endpoint: Piece | None
    zones: list[str]


@dataclass(frozen=True, slots=True)
class NewVpc:
    """Our VPC.

    Attributes:
        aws: Whose account.
        scope: Its region.
        clock: What waits are measured by.
    """

    aws: Aws
    scope: Scope
    clock: Clock
    kind = "VPC"

    @property
    def name(self) -> str:
        """Its name tag."""
        return VPC_NAME

    @property
    def way_out(self) -> str:
        """It is found by our tag, so it cannot be somebody else's."""
        return ""

    async def vpc_id(self) -> str | None:
        """Its id, or None."""
        found = await self._list("describe_vpcs", "Vpcs")
        return str(found[0]["VpcId"]) if found else None

    async def placement(self) -> Placement | None:
        """Its subnets; None until it is complete."""
        pieces = await self._pieces()
        if pieces is None or _lacking(pieces):
            return None
        return await given_placement(self.aws, [each["SubnetId"] for each in pieces.subnets])

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        pieces = await self._pieces()
        return MISSING if pieces is None else State.of(_lacking(pieces))

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        pieces = await self._pieces()
        if pieces is None:
            await self._make("create_vpc", "vpc", CidrBlock=_CIDR)
            pieces = await self._pieces()
        if pieces is None:
            raise CloudError(
                "the VPC that was just made is not to be seen yet", hint="starburst setup, once more"
            )
        vpc = {"VpcId": pieces.vpc["VpcId"]}
        if not pieces.vpc.get("EnableDnsHostnames"):
            await self._call("modify_vpc_attribute", **vpc, EnableDnsHostnames={"Value": True})
        await self._ensure_subnets(pieces, vpc)
        await self._ensure_routes(pieces, vpc)

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`; waits for addresses that tasks leave behind."""
        for attempt in range(_ROUNDS):
            if (pieces := await self._pieces()) is None:
                return attempt > 0
            if attempt:  # a listing may be behind
                await self.clock.sleep(_AGAIN_S)
            await self._remove(pieces)
        raise CloudUnavailable(
            f"the VPC {self.name} is still to be seen after it was deleted",
            hint="starburst teardown again, in a minute",
        )

    async def _remove(self, pieces: _Pieces) -> None:
        if pieces.endpoint:
            await self._call("delete_vpc_endpoints", VpcEndpointIds=[pieces.endpoint["VpcEndpointId"]])
        for subnet in pieces.subnets:
            await remove_when_free(self.aws, "delete_subnet", self.clock, SubnetId=subnet["SubnetId"])
        if pieces.table:
            for each in pieces.table.get("Associations", ()):
                association = each["RouteTableAssociationId"]
                codes = ("InvalidAssociationID.NotFound",)
                await ask(self.aws, codes, "ec2", "disassociate_route_table", AssociationId=association)
            table = pieces.table["RouteTableId"]
            await remove_when_free(self.aws, "delete_route_table", self.clock, RouteTableId=table)
        if pieces.gateway:
            gateway = pieces.gateway["InternetGatewayId"]
            for each in pieces.gateway.get("Attachments", ()):
                await remove_when_free(
                    self.aws,
                    "detach_internet_gateway",
                    self.clock,
                    InternetGatewayId=gateway,
                    VpcId=each["VpcId"],
                )
            await remove_when_free(self.aws, "delete_internet_gateway", self.clock, InternetGatewayId=gateway)
        await remove_when_free(self.aws, "delete_vpc", self.clock, VpcId=pieces.vpc["VpcId"])

    async def _ensure_subnets(self, pieces: _Pieces, vpc: Piece) -> None:
        taken = {each["CidrBlock"] for each in pieces.subnets}
        free = [cidr for cidr in _SUBNET_CIDRS if cidr not in taken]
        for zone, cidr in zip(_zones_without(pieces), free, strict=False):
            made = await self._make(
                "create_subnet", "subnet", f"-{zone}", **vpc, CidrBlock=cidr, AvailabilityZone=zone
            )
            pieces.subnets.append(made["Subnet"])
        for subnet in pieces.subnets:
            if not subnet.get("MapPublicIpOnLaunch"):
                await self._call(
                    "modify_subnet_attribute",
                    SubnetId=subnet["SubnetId"],
                    MapPublicIpOnLaunch={"Value": True},
                )

    async def _ensure_routes(self, pieces: _Pieces, vpc: Piece) -> None:
        gateway = pieces.gateway
        if gateway is None:
            made = await self._make("create_internet_gateway", "internet-gateway")
            gateway = made["InternetGateway"]
        gateway_id = {"InternetGatewayId": gateway["InternetGatewayId"]}
        if not gateway.get("Attachments"):
            await self._call("attach_internet_gateway", **gateway_id, **vpc)
        table = pieces.table
        if table is None:
            table = (await self._make("create_route_table", "route-table", **vpc))["RouteTable"]
        table_id = {"RouteTableId": table["RouteTableId"]}
        if not _leads_out(table):
            await self._call(
                "create_route",
                **table_id,
                DestinationCidrBlock="0.0.0.0/0",
                GatewayId=gateway_id["InternetGatewayId"],
            )
        joined = {each.get("SubnetId") for each in table.get("Associations", ())}
        for subnet in pieces.subnets:
            if subnet["SubnetId"] not in joined:
                await self._call("associate_route_table", **table_id, SubnetId=subnet["SubnetId"])
        if pieces.endpoint is None:
            await self._make(
                "create_vpc_endpoint",
                "vpc-endpoint",
                **vpc,
                VpcEndpointType="Gateway",
                ServiceName=f"com.amazonaws.{self.scope.region}.s3",
                RouteTableIds=[table_id["RouteTableId"]],
            )

    async def _pieces(self) -> _Pieces | None:
        vpcs = await self._list("describe_vpcs", "Vpcs")
        gateways = await self._list("describe_internet_gateways", "InternetGateways")
        if not vpcs:
            return None
        vpc = vpcs[0]
        own = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
        subnets = await self._list("describe_subnets", "Subnets", own)
        tables = await self._list("describe_route_tables", "RouteTables", own)
        endpoints = await self._list("describe_vpc_endpoints", "VpcEndpoints", own)
        alive = [each for each in endpoints if each.get("State", "").lower() not in ("deleting", "deleted")]
        names = await self._call("describe_vpc_attribute", VpcId=vpc["VpcId"], Attribute="enableDnsHostnames")
        zones = await self._call(
            "describe_availability_zones",
            Filters=[
                {"Name": "state", "Values": ["available"]},
                {"Name": "zone-type", "Values": ["availability-zone"]},
            ],
        )
        ours = [
            each
            for each in gateways
            if all(other["VpcId"] == vpc["VpcId"] for other in each.get("Attachments", ()))
        ]
        return _Pieces(
            vpc={**vpc, "EnableDnsHostnames": names["EnableDnsHostnames"]["Value"]},
            subnets=sorted(subnets, key=lambda each: str(each["AvailabilityZone"])),
            gateway=ours[0] if ours else None,
            table=tables[0] if tables else None,
            endpoint=alive[0] if alive else None,
            zones=sorted(each["ZoneName"] for each in zones["AvailabilityZones"]),
        )

    async def _list(self, operation: str, key: str, filters: list[Piece] | None = None) -> list[Piece]:
        mine = [OURS_FILTER, *(filters or ())]
        return await self.aws.pages("ec2", operation, key, Filters=mine)

    async def _make(self, operation: str, kind: str, suffix: str = "", **parameters: Any) -> Any:
        tags = self.scope.tag_list(Name=f"{VPC_NAME}{suffix}")
        return await self._call(
            operation, **parameters, TagSpecifications=[{"ResourceType": kind, "Tags": tags}]
        )

    async def _call(self, operation: str, **parameters: Any) -> Any:
        return await self.aws.call("ec2", operation, **parameters)


def _zones_without(pieces: _Pieces) -> list[str]:
    """Zones that should have a subnet and have none; as many as there are address ranges."""
    have = {each["AvailabilityZone"] for each in pieces.subnets}
    wanted = min(len(_SUBNET_CIDRS), len(pieces.zones)) - len(have)
    return [zone for zone in pieces.zones if zone not in have][: max(0, wanted)]


def _leads_out(table: Piece) -> bool:
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole"
        for route in table.get("Routes", ())
    )


def _lacking(pieces: _Pieces) -> list[str]:
    lacking = [f"no subnet in {zone}" for zone in _zones_without(pieces)]
    lacking += [
        f"{each['SubnetId']} gives no public addresses"
        for each in pieces.subnets
        if not each.get("MapPublicIpOnLaunch")
    ]
    if not pieces.vpc["EnableDnsHostnames"]:
        lacking.append("no names for addresses")
    if not pieces.gateway or not pieces.gateway.get("Attachments"):
        lacking.append("no internet gateway")
    if not pieces.table or not _leads_out(pieces.table):
        lacking.append("no route out")
    joined = {each.get("SubnetId") for each in (pieces.table or {}).get("Associations", ())}
    lacking += [
        f"{each['SubnetId']} has not our routes" for each in pieces.subnets if each["SubnetId"] not in joined
    ]
    if not pieces.endpoint:
        lacking.append("no endpoint for S3")
    return lacking
