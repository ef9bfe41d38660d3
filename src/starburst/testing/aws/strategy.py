"""Capacity provider strategies: which are allowed, and how the tasks of one call are divided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starburst.testing.aws.ecs_common import FARGATE_PROVIDERS, invalid

__all__ = ["Share", "check", "divide"]

_MAX_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class Share:
    """Tasks of one call that go the same way.

    Attributes:
        provider: The capacity provider; empty for a launch type.
        count: How many.
        fargate: Whether they run on Fargate.
        spot: Whether Fargate may take them back.
    """

    provider: str
    count: int
    fargate: bool
    spot: bool


def check(strategy: list[dict[str, Any]], of_cluster: Iterable[str], known: Iterable[str]) -> None:
    """Refuse what ECS refuses."""
    names = [each["capacityProvider"] for each in strategy]
    if len(names) > _MAX_ENTRIES:
        raise invalid(
            f"The specified capacity provider strategy cannot contain more than {_MAX_ENTRIES} entries."
        )
    for name in names:
        if name not in FARGATE_PROVIDERS and name not in known:
            raise invalid(f"The specified capacity provider '{name}' was not found.")
        if name not in of_cluster:
            raise invalid(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated "
                "with the cluster. Associate the capacity provider with the cluster and try again."
            )
    if len({name in FARGATE_PROVIDERS for name in names}) > 1:
        raise invalid(
            "The specified capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling "
            "groups and Fargate."
        )
    if sum(bool(each.get("base")) for each in strategy) > 1:
        raise invalid("Only one capacity provider in a strategy can have a base greater than 0.")
    if all(not each.get("weight") for each in strategy):
        raise invalid("At least one capacity provider in a strategy must have a weight greater than 0.")


def divide(strategy: list[dict[str, Any]], count: int) -> list[Share]:
    """Bases first, then each task to the provider that is furthest behind its weight."""
    counts = {each["capacityProvider"]: 0 for each in strategy}
    left = count
    for each in strategy:
        taken = min(left, int(each.get("base") or 0))
        counts[each["capacityProvider"]] += taken
        left -= taken
    weights = {each["capacityProvider"]: int(each.get("weight") or 0) for each in strategy}
    weighted = [name for name in weights if weights[name]]
    given = dict.fromkeys(weighted, 0)
    for _ in range(left):
        name = min(weighted, key=lambda each: (given[each] + 1) / weights[each])
        given[name] += 1
        counts[name] += 1
    return [
        Share(name, number, fargate=name in FARGATE_PROVIDERS, spot=name == "FARGATE_SPOT")
        for name, number in counts.items()
        if number
    ]
