"""Service Quotas: the table of quotas that matter for workers, their values in this account, requests to raise them.

A value changes only by the handle's ``set_quota``: as on AWS, a request to raise it stays PENDING until somebody
decides.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from starburst.testing.aws.front import Answer, Call, Operation, Refusal
from starburst.testing.aws.limits import FARGATE_VCPUS
from starburst.testing.aws.world import SimOptions, World

__all__ = ["QUOTAS", "Quota", "ec2_quota", "install"]


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota as AWS defines it.

    Attributes:
        service: Its service code.
        code: ``L-…``.
        name: As the console shows it.
        default: Of a new account.
    """

    service: str
    code: str
    name: str
    default: float


# AWS General Reference (ECS, Fargate) and EC2 user guide, 2026-11.
QUOTAS: tuple[Quota, ...] = (
    Quota("fargate", "L-3032A538", "Fargate On-Demand vCPU resource count", 6),
    Quota("fargate", "L-36FBB829", "Fargate Spot vCPU resource count", 6),
    Quota("fargate", "L-6BAD92DD", "Rate of Fargate On-Demand task launches (burst)", 100),
    Quota("fargate", "L-551A4E9D", "Rate of Fargate On-Demand task launches (sustained)", 20),
    Quota("fargate", "L-F6E37E82", "Rate of Fargate Spot task launches (burst)", 100),
    Quota("fargate", "L-FAA52651", "Rate of Fargate Spot task launches (sustained)", 20),
    Quota("ec2", "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5),
    Quota("ec2", "L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5),
    Quota("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances", 0),
    Quota("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests", 0),
    Quota("ec2", "L-417A185B", "Running On-Demand P instances", 0),
    Quota("ec2", "L-7212CCBC", "All P Spot Instance Requests", 0),
    Quota("ec2", "L-7295265B", "Running On-Demand X instances", 0),
    Quota("ec2", "L-E3A00192", "All X Spot Instance Requests", 0),
)

_SERVICES = {
    "fargate": "AWS Fargate",
    "ec2": "Amazon Elastic Compute Cloud (Amazon EC2)",
}
# Family letters → (on-demand, Spot). Families that AWS counts elsewhere (Inf, Trn, F …) have no vCPU quota here.
_EC2_KINDS = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
    "x": ("L-7295265B", "L-E3A00192"),
}
_KIND_OF_LETTERS = {"g": "g", "gr": "g", "vt": "g", "p": "p", "x": "x"}
_STANDARD = "acdhimrtz"
_PAGE = 100


@cache
def ec2_quota(instance_type: str, *, spot: bool) -> str | None:
    """The code of the vCPU quota that an instance of this type counts against; None if there is none."""
    letters = re.match(r"[a-z]+", instance_type)
    if letters is None:
        return None
    kind = _KIND_OF_LETTERS.get(letters[0])
    if kind is None:
        if letters[0][0] not in _STANDARD or letters[0] in ("inf", "trn", "hpc", "dl", "mac"):
            return None
        kind = "standard"
    return _EC2_KINDS[kind][spot]


def _value(quota: Quota, options: SimOptions) -> float:
    """What the account starts with."""
    if quota.service == "ec2":
        spot = any(quota.code == codes[1] for codes in _EC2_KINDS.values())
        return options.ec2_spot_vcpus if spot else options.ec2_vcpus
    own = {FARGATE_VCPUS[False]: options.fargate_vcpus, FARGATE_VCPUS[True]: options.fargate_spot_vcpus}
    return own.get(quota.code, quota.default)


def install(world: World) -> None:
    """Set the account's values and answer for Service Quotas."""
    for quota in QUOTAS:
        world.quotas[quota.service, quota.code] = _value(quota, world.options)
    for name, operation in _Service(world).operations().items():
        world.front.operations[f"servicequotas:{name}"] = _or_moto(world, operation)


def _or_moto(world: World, operation: Operation) -> Operation:
    """Quotas of VPCs are moto's."""

    def answer(call: Call) -> Answer | dict[str, Any]:
        if call.parameters.get("ServiceCode") == "vpc":
            return world.front.ask_moto(call.environ)
        return operation(call)

    return answer


class _Service:
    def __init__(self, world: World) -> None:
        self._world = world
        self._requests: list[dict[str, Any]] = []

    def operations(self) -> dict[str, Operation]:
        """By the name of the operation."""
        return {
            "GetServiceQuota": self._get,
            "GetAWSDefaultServiceQuota": self._get_default,
            "ListServiceQuotas": self._list,
            "ListAWSDefaultServiceQuotas": self._list_default,
            "ListServices": self._services,
            "RequestServiceQuotaIncrease": self._request,
            "ListRequestedServiceQuotaChangeHistory": self._history,
            "ListRequestedServiceQuotaChangeHistoryByQuota": self._history,
            "GetRequestedServiceQuotaChange": self._get_request,
        }

    def _get(self, call: Call) -> dict[str, Any]:
        return {"Quota": self._applied(self._find(call), call.region)}

    def _get_default(self, call: Call) -> dict[str, Any]:
        quota = self._find(call)
        return {"Quota": self._describe(quota, quota.default, call.region)}

    def _list(self, call: Call) -> dict[str, Any]:
        return _page(call, "Quotas", (self._applied(quota, call.region) for quota in self._of_service(call)))

    def _list_default(self, call: Call) -> dict[str, Any]:
        found = (self._describe(quota, quota.default, call.region) for quota in self._of_service(call))
        return _page(call, "Quotas", found)

    def _services(self, call: Call) -> dict[str, Any]:
        found = ({"ServiceCode": code, "ServiceName": name} for code, name in _SERVICES.items())
        return _page(call, "Services", found)

    def _request(self, call: Call) -> dict[str, Any]:
        quota = self._find(call)
        wanted = float(call.parameters["DesiredValue"])
        if wanted <= self._world.quotas[quota.service, quota.code]:
            raise Refusal(
                "IllegalArgumentException",
                "You must provide a quota value that is greater than the current quota value.",
            )
        if any(each["QuotaCode"] == quota.code and each["Status"] == "PENDING" for each in self._requests):
            raise Refusal(
                "ResourceAlreadyExistsException",
                "Only one open service quota increase request is allowed per quota.",
            )
        now = datetime.now(UTC)
        request = {
            "Id": uuid.uuid4().hex,
            "ServiceCode": quota.service,
            "ServiceName": _SERVICES[quota.service],
            "QuotaCode": quota.code,
            "QuotaName": quota.name,
            "QuotaArn": self._arn(quota, call.region),
            "DesiredValue": wanted,
            "Status": "PENDING",
            "Created": now,
            "LastUpdated": now,
            "GlobalQuota": False,
            "Unit": "None",
        }
        self._requests.append(request)
        return {"RequestedQuota": request}

    def _history(self, call: Call) -> dict[str, Any]:
        wanted = {
            name: call.parameters[name]
            for name in ("ServiceCode", "QuotaCode", "Status")
            if name in call.parameters
        }
        found = (each for each in self._requests if all(each[name] == wanted[name] for name in wanted))
        return _page(call, "RequestedQuotas", found)

    def _get_request(self, call: Call) -> dict[str, Any]:
        for request in self._requests:
            if request["Id"] == call.parameters.get("RequestId"):
                return {"RequestedQuota": request}
        raise Refusal("NoSuchResourceException", "The requested quota change does not exist.")

    def _of_service(self, call: Call) -> list[Quota]:
        service = call.parameters.get("ServiceCode")
        if service not in _SERVICES:
            raise Refusal(
                "NoSuchResourceException",
                "The request failed because the specified service does not exist.",
            )
        return [quota for quota in QUOTAS if quota.service == service]

    def _find(self, call: Call) -> Quota:
        for quota in self._of_service(call):
            if quota.code == call.parameters.get("QuotaCode"):
                return quota
        raise Refusal(
            "NoSuchResourceException", "The request failed because the specified quota does not exist."
        )

    def _applied(self, quota: Quota, region: str) -> dict[str, Any]:
        return self._describe(quota, self._world.quotas[quota.service, quota.code], region)

    def _describe(self, quota: Quota, value: float, region: str) -> dict[str, Any]:
        return {
            "ServiceCode": quota.service,
            "ServiceName": _SERVICES[quota.service],
            "QuotaArn": self._arn(quota, region),
            "QuotaCode": quota.code,
            "QuotaName": quota.name,
            "Value": float(value),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }

    def _arn(self, quota: Quota, region: str) -> str:
        account = self._world.options.account
        return f"arn:aws:servicequotas:{region}:{account}:{quota.service}/{quota.code}"


def _page(call: Call, name: str, found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    everything = list(found)
    start = int(call.parameters.get("NextToken") or 0)
    end = start + int(call.parameters.get("MaxResults") or _PAGE)
    answer: dict[str, Any] = {name: everything[start:end]}
    if end < len(everything):
        answer["NextToken"] = str(end)
    return answer
