"""Request rates of ECS and Fargate at the values that AWS publishes, quotas, and scripted failures of any request.

Rates: Amazon ECS API reference, "Request throttling"; launch rates and vCPUs: Service Quotas of Fargate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starburst.testing.aws.front import Answer, Call

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["FARGATE_VCPUS", "LaunchRates", "install"]

FARGATE_VCPUS = {False: "L-3032A538", True: "L-36FBB829"}
"""Quota codes of vCPUs in use, by whether it is Spot."""

_LAUNCHES = {False: ("L-6BAD92DD", "L-551A4E9D"), True: ("L-F6E37E82", "L-FAA52651")}
_LARGE_REGIONS = {"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "ap-northeast-1"}

# Burst and refill per second, of one account and region.
_RATES: tuple[tuple[frozenset[str], float, float], ...] = tuple(
    (frozenset(names.split()), burst, refill)
    for names, burst, refill in (
        ("RunTask StopTask StartTask ExecuteCommand", 100, 40),
        ("DescribeTasks ListTasks DescribeContainerInstances ListContainerInstances", 100, 20),
        ("RegisterTaskDefinition DeregisterTaskDefinition DeleteTaskDefinitions", 20, 1),
        ("DescribeTaskDefinition ListTaskDefinitions ListTaskDefinitionFamilies", 50, 20),
        (
            "CreateCluster DeleteCluster UpdateCluster UpdateClusterSettings PutClusterCapacityProviders",
            20,
            1,
        ),
        ("DescribeClusters ListClusters DescribeCapacityProviders", 50, 20),
        ("CreateCapacityProvider UpdateCapacityProvider DeleteCapacityProvider", 10, 1),
        ("CreateService UpdateService DeleteService", 50, 5),
        ("DescribeServices ListServices", 100, 20),
        ("TagResource UntagResource ListTagsForResource", 20, 10),
    )
)


@dataclass(slots=True)
class _Bucket:
    burst: float
    refill_per_s: float
    level: float
    at: float

    def take(self, tokens: float, factor: float) -> bool:
        now = time.monotonic()
        burst = self.burst * factor
        self.level = min(burst, self.level + (now - self.at) * self.refill_per_s * factor)
        self.at = now
        if self.level < tokens:
            return False
        self.level -= tokens
        return True


class _Buckets:
    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._buckets: dict[tuple[str, object], _Bucket] = {}

    def take(self, region: str, what: object, burst: float, refill_per_s: float, tokens: float = 1) -> bool:
        if not self._factor:
            return True
        bucket = self._buckets.get((region, what))
        if bucket is None:
            bucket = _Bucket(burst, refill_per_s, burst * self._factor, time.monotonic())
            self._buckets[region, what] = bucket
        bucket.burst, bucket.refill_per_s = burst, refill_per_s
        return bucket.take(tokens, self._factor)


class LaunchRates:
    """How many tasks Fargate starts per second: a quota of its own beside the rate of RunTask calls."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._buckets = _Buckets(world.options.rates)

    def take(self, region: str, *, spot: bool, tasks: int) -> bool:
        """Whether so many tasks may be started now; all or none."""
        burst, refill = (self._world.quotas["fargate", code] for code in _LAUNCHES[spot])
        if region not in _LARGE_REGIONS:
            burst, refill = burst / 4, refill / 4
        return self._buckets.take(region, spot, burst, refill, tasks)


def install(world: World) -> None:
    """Add the filters for scripted failures and for rates."""
    world.launch_rates = LaunchRates(world)
    buckets = _Buckets(world.options.rates)

    def rates(call: Call) -> Answer | None:
        if call.service != "ecs":
            return None
        for operations, burst, refill in _RATES:
            if call.operation in operations and not buckets.take(call.region, operations, burst, refill):
                return _throttle(world, call)
        return None

    world.front.filters += [lambda call: _scripted(world, call), rates]


def _scripted(world: World, call: Call) -> Answer | None:
    facts = {name: value for name, value in call.parameters.items() if isinstance(value, str)}
    facts |= {"access_key": call.access_key, "region": call.region}
    if world.scripts.take(call.action, "throttle", **facts):
        return _throttle(world, call)
    if world.scripts.take(call.action, "denied", **facts):
        return call.denied(f"arn:aws:iam::{world.options.account}:user/{call.access_key}")
    if world.scripts.take(call.action, "server-error", **facts):
        return call.error(_SERVER_ERRORS.get(call.service, "InternalFailure"), "Internal error", status=500)
    if world.scripts.take(call.action, "lost-request", **facts):
        call.lose_reply = True
        return Answer(500, [], b"")
    call.lose_reply = world.scripts.take(call.action, "lost-reply", **facts) is not None
    return None


_SERVER_ERRORS = {"ecs": "ServerException", "ec2": "InternalError", "iam": "ServiceFailure"}


def _throttle(world: World, call: Call) -> Answer:
    world.throttled[call.name] += 1
    if call.service == "ec2":
        return call.error("RequestLimitExceeded", "Request limit exceeded.", status=503)
    code = "Throttling" if call.service in {"iam", "autoscaling", "sts"} else "ThrottlingException"
    return call.error(code, "Rate exceeded")
