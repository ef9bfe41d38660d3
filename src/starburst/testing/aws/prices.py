"""The Price List API and the Spot price history, from prices that were recorded: see ``data/prices.json``.

Documents have the shape of AWS's, also the rows that a careless query would take for an answer: Windows, other
tenancies, pre-installed software, and rows of $0. Spot prices are made up from the on-demand price: between 28 % and
44 % of it, each type and zone its own, always the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

from starburst.testing.aws.front import Call, Operation, Refusal
from starburst.testing.aws.hooks import replace
from starburst.testing.aws.world import World

__all__ = ["install", "on_demand_usd", "spot_usd"]

_ENDPOINTS = ("us-east-1", "eu-central-1", "ap-south-1")
_PAGE = 100
_SPOT_STEP = timedelta(hours=6)
_SPOT_KEPT = timedelta(days=90)
_LINUX = "Linux/UNIX"


@cache
def _data() -> dict[str, Any]:
    text = resources.files("starburst.testing.aws").joinpath("data/prices.json").read_text()
    return dict(json.loads(text))


@cache
def _instance_types() -> dict[str, dict[str, Any]]:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return INSTANCE_TYPES


@cache
def on_demand_usd(instance_type: str, region: str) -> float | None:
    """Price of an hour of a Linux instance; None if it is not among the recorded ones."""
    about = _data()["regions"].get(region)
    family = instance_type.partition(".")[0]
    known = _instance_types().get(instance_type)
    if about is None or known is None:
        return None
    if instance_type in _data()["ec2"]:
        usd = float(_data()["ec2"][instance_type])
    elif family in _data()["ec2_per_xlarge"] and "metal" not in instance_type:
        # Within these families the price follows the vCPUs, of which an xlarge has four.
        usd = _data()["ec2_per_xlarge"][family] * known["VCpuInfo"]["DefaultVCpus"] / 4
    else:
        return None
    return float(round(usd * about["factor"], 5))


def spot_usd(instance_type: str, zone: str, at: datetime) -> float | None:
    """Spot price of an hour at a moment; None if the type is not among the recorded ones."""
    usd = on_demand_usd(instance_type, zone[:-1])
    if usd is None:
        return None
    share = 0.28 + 0.12 * _fraction(instance_type, zone)
    step = int(at.timestamp() // _SPOT_STEP.total_seconds())
    return round(usd * (share + 0.04 * _fraction(instance_type, zone, step)), 6)


def _fraction(*about: object) -> float:
    digest = hashlib.sha256(repr(about).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


@dataclass(frozen=True, slots=True)
class _Product:
    service: str
    family: str
    attributes: dict[str, str]
    unit: str
    usd: float
    description: str

    def document(self) -> dict[str, Any]:
        """As GetProducts answers it, before it is made a string."""
        sku = hashlib.sha256(repr(sorted(self.attributes.items())).encode()).hexdigest()[:16].upper()
        offer = f"{sku}.JRTCKXETXF"
        rate = f"{offer}.6YS6EN2CT7"
        as_of = _data()["as_of"]
        dimension = {
            "unit": self.unit,
            "endRange": "Inf",
            "description": self.description,
            "appliesTo": [],
            "rateCode": rate,
            "beginRange": "0",
            "pricePerUnit": {"USD": f"{self.usd:.10f}"},
        }
        term = {
            "priceDimensions": {rate: dimension},
            "sku": sku,
            "effectiveDate": as_of,
            "offerTermCode": "JRTCKXETXF",
            "termAttributes": {},
        }
        return {
            "product": {"productFamily": self.family, "attributes": self.attributes, "sku": sku},
            "serviceCode": self.service,
            "terms": {"OnDemand": {offer: term}},
            "version": as_of.replace("-", "").replace(":", "").rstrip("Z"),
            "publicationDate": as_of,
        }


@cache
def _products(service: str) -> tuple[_Product, ...]:
    return tuple(_fargate()) if service == "AmazonECS" else tuple(_ec2())


def _fargate() -> Iterator[_Product]:
    for region, about in _data()["regions"].items():
        for row in _data()["fargate"]:
            usage = f"{about['prefix']}-{row['usage']}"
            usd = round(row["usd"] * about["factor"], 8)
            extra = {name: row[name] for name in row if name not in ("usage", "unit", "usd")}
            attributes = {
                "servicecode": "AmazonECS",
                "servicename": "Amazon EC2 Container Service",
                "location": about["location"],
                "locationType": "AWS Region",
                "regionCode": region,
                "usagetype": usage,
                "operation": "",
                **extra,
            }
            text = f"AWS Fargate - {row['usage']} - {about['location']}"
            yield _Product("AmazonECS", "Compute", attributes, row["unit"], usd, text)


# What else the list holds for the same type: attributes that differ, and the factor on the price.
_EC2_ROWS: tuple[tuple[dict[str, str], float], ...] = (
    ({}, 1.0),
    ({"capacitystatus": "UnusedCapacityReservation", "usagetype": "UnusedBox"}, 1.0),
    ({"capacitystatus": "AllocatedCapacityReservation", "usagetype": "Reservation"}, 0.0),
    ({"operatingSystem": "Windows", "operation": "RunInstances:0002"}, 1.92),
    ({"operatingSystem": "RHEL", "operation": "RunInstances:0010"}, 1.3),
    ({"preInstalledSw": "SQL Std", "operation": "RunInstances:0004"}, 3.8),
    ({"tenancy": "Dedicated", "usagetype": "DedicatedUsage"}, 1.06),
)


def _ec2() -> Iterator[_Product]:
    for region, about in _data()["regions"].items():
        for name, known in _instance_types().items():
            usd = on_demand_usd(name, region)
            if usd is None:
                continue
            for changes, factor in _EC2_ROWS:
                attributes = {**_ec2_attributes(name, known, region, about), **changes}
                attributes["usagetype"] = (
                    f"{about['ec2_prefix']}{changes.get('usagetype', 'BoxUsage')}:{name}"
                )
                system = attributes["operatingSystem"]
                text = f"${usd * factor:.5f} per On Demand {system} {name} Instance Hour"
                yield _Product("AmazonEC2", "Compute Instance", attributes, "Hrs", usd * factor, text)
        for kind, usd in _data()["ebs"].items():
            attributes = {
                "servicecode": "AmazonEC2",
                "location": about["location"],
                "regionCode": region,
                "volumeApiName": kind,
                "usagetype": f"{about['ec2_prefix']}EBS:VolumeUsage.{kind}",
            }
            text = f"${usd:.3f} per GB-month of General Purpose ({kind}) provisioned storage"
            yield _Product("AmazonEC2", "Storage", attributes, "GB-Mo", usd * about["factor"], text)


def _ec2_attributes(name: str, known: dict[str, Any], region: str, about: dict[str, Any]) -> dict[str, str]:
    gpus = known.get("GpuInfo", {}).get("Gpus", [])
    memory = known["MemoryInfo"]["SizeInMiB"] / 1024
    return {
        "servicecode": "AmazonEC2",
        "servicename": "Amazon Elastic Compute Cloud",
        "location": about["location"],
        "locationType": "AWS Region",
        "regionCode": region,
        "instanceType": name,
        "currentGeneration": "Yes",
        "vcpu": str(known["VCpuInfo"]["DefaultVCpus"]),
        "memory": f"{memory:g} GiB",
        **({"gpu": str(sum(each["Count"] for each in gpus))} if gpus else {}),
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "licenseModel": "No License required",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "operation": "RunInstances",
    }


def _fits(product: _Product, condition: dict[str, str]) -> bool:
    wanted, kind = condition["Value"], condition["Type"]
    field = condition["Field"]
    have = product.family if field == "productFamily" else product.attributes.get(field)
    if kind == "NONE_OF":
        return have not in wanted.split(",")
    if have is None:
        return False
    if kind == "CONTAINS":
        return wanted.lower() in have.lower()
    if kind == "ANY_OF":
        return have in wanted.split(",")
    return have.lower() == wanted.lower()


def _checked(operation: Callable[[Call], dict[str, Any]]) -> Operation:
    def answer(call: Call) -> dict[str, Any]:
        if call.region not in _ENDPOINTS:
            text = f"The Price List API has no endpoint in {call.region}, only in {', '.join(_ENDPOINTS)}."
            raise Refusal("UnrecognizedClientException", text)
        service = call.parameters.get("ServiceCode")
        if service not in {None, "AmazonECS", "AmazonEC2"}:
            raise Refusal("NotFoundException", f"{service} is not found.")
        return operation(call)

    return answer


def _get_products(call: Call) -> dict[str, Any]:
    conditions = call.parameters.get("Filters", [])
    found = [
        product
        for product in _products(call.parameters["ServiceCode"])
        if all(_fits(product, each) for each in conditions)
    ]
    page, token = _page(found, call)
    documents = [json.dumps(product.document()) for product in page]
    return {"FormatVersion": "aws_v1", "PriceList": documents, **token}


def _describe_services(call: Call) -> dict[str, Any]:
    wanted = call.parameters.get("ServiceCode")
    services = [
        {"ServiceCode": code, "AttributeNames": sorted({*_products(code)[0].attributes, "productFamily"})}
        for code in ("AmazonEC2", "AmazonECS")
        if wanted in (None, code)
    ]
    return {"FormatVersion": "aws_v1", "Services": services}


def _attribute_values(call: Call) -> dict[str, Any]:
    name = call.parameters["AttributeName"]
    products = _products(call.parameters["ServiceCode"])
    found = sorted({each.attributes[name] for each in products if name in each.attributes})
    page, token = _page(found, call)
    return {"AttributeValues": [{"Value": each} for each in page], **token}


def _page(found: list[Any], call: Call) -> tuple[list[Any], dict[str, str]]:
    start = int(call.parameters.get("NextToken") or 0)
    end = start + min(int(call.parameters.get("MaxResults") or _PAGE), _PAGE)
    return found[start:end], ({"NextToken": str(end)} if end < len(found) else {})


def _spot_history(response: Any) -> Any:
    """DescribeSpotPriceHistory: a price counts from its time stamp until the next one of its type and zone."""
    from moto.core.responses import ActionResult

    given = response._get_params()  # noqa: SLF001 - the way by which moto's own answers read what was asked
    filters = {each["Name"]: each["Values"] for each in given.get("Filters", [])}
    types = given.get("InstanceTypes") or filters.get("instance-type")
    zones = [given["AvailabilityZone"]] if given.get("AvailabilityZone") else filters.get("availability-zone")
    products = given.get("ProductDescriptions") or filters.get("product-description") or [_LINUX]
    now = datetime.now(UTC)
    end = min(_moment(given.get("EndTime")) or now, now)
    start = max(_moment(given.get("StartTime")) or now - _SPOT_KEPT, now - _SPOT_KEPT)
    rows = []
    if any(each.startswith(_LINUX) for each in products):
        backend = response.ec2_backend
        all_zones = sorted(each.name for each in backend.describe_availability_zones())
        for zone in zones or all_zones:
            for name in types or _recorded_types():
                rows += _spot_rows(name, zone, start, end)
    rows.sort(key=lambda row: row["Timestamp"], reverse=True)
    first = int(given.get("NextToken") or 0)
    last = first + int(given.get("MaxResults") or 1000)
    token = str(last) if last < len(rows) else ""
    return ActionResult({"SpotPriceHistory": rows[first:last], "NextToken": token})


def _spot_rows(name: str, zone: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    step = _SPOT_STEP.total_seconds()
    at = datetime.fromtimestamp(start.timestamp() // step * step, UTC)
    rows = []
    while at <= max(start, end):
        usd = spot_usd(name, zone, at)
        if usd is None:
            break
        rows.append(
            {
                "InstanceType": name,
                "ProductDescription": _LINUX,
                "SpotPrice": f"{usd:.6f}",
                "AvailabilityZone": zone,
                "Timestamp": at,
            }
        )
        at += _SPOT_STEP
    return rows


@cache
def _recorded_types() -> tuple[str, ...]:
    return tuple(name for name in _instance_types() if on_demand_usd(name, "us-east-1") is not None)


def _moment(given: Any) -> datetime | None:
    if given is None:
        return None
    at = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def install(world: World) -> None:
    """Answer for the Price List API and for Spot prices."""
    from moto.ec2.responses.spot_instances import SpotInstances

    world.front.operations |= {
        "pricing:GetProducts": _checked(_get_products),
        "pricing:DescribeServices": _checked(_describe_services),
        "pricing:GetAttributeValues": _checked(_attribute_values),
    }
    replace(SpotInstances, describe_spot_price_history=_spot_history)
