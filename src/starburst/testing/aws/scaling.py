"""Managed scaling of capacity providers: what ECS sets the desired capacity of their groups to.

Source: "Automatically manage Amazon ECS capacity with cluster auto scaling", Amazon ECS Developer Guide. M is the
number of hosts that tasks need, N the number of hosts there are; ECS holds M / N at ``targetCapacity`` percent. AWS
looks once a minute and scales in when N was too large for 15 minutes; here that takes ``scale_in_s``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.groups import instance_types_of
from starburst.testing.aws.hosts import shape_of
from starburst.testing.aws.placement import hosts_needed

if TYPE_CHECKING:
    from starburst.testing.aws.hosts import Host
    from starburst.testing.aws.tasks import Task

__all__ = ["ManagedScaling", "Settings", "scaled_out"]

_FROM_ZERO = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one capacity provider.

    Attributes:
        enabled: Whether ECS scales the group at all.
        target: Percent of the hosts that tasks should use.
        least_step: Hosts to start at once, at least.
        largest_step: Hosts to start at once, at most.
        protects: Managed termination protection: hosts with tasks are not scaled in.
        drains: Managed draining: a host that must go waits for its tasks.
    """

    enabled: bool
    target: int
    least_step: int
    largest_step: int
    protects: bool
    drains: bool

    @classmethod
    def of(cls, provider: Any) -> Settings:
        """Of moto's capacity provider."""
        about = provider.auto_scaling_group_provider
        scaling = about["managedScaling"]
        return cls(
            enabled=scaling["status"] == "ENABLED",
            target=int(scaling["targetCapacity"]),
            least_step=int(scaling["minimumScalingStepSize"]),
            largest_step=int(scaling["maximumScalingStepSize"]),
            protects=about["managedTerminationProtection"] == "ENABLED",
            drains=about.get("managedDraining", "ENABLED") == "ENABLED",
        )


def scaled_out(*, needed: int, there: int, settings: Settings) -> int:
    """The desired capacity for ``needed`` hosts where ``there`` are; never less than ``there``."""
    wanted = math.ceil(needed * 100 / settings.target)
    if wanted <= there:
        return there
    if there == 0:
        return max(_FROM_ZERO, settings.least_step)
    step = min(max(wanted - there, settings.least_step), settings.largest_step)
    return there + step


class ManagedScaling:
    """Decides for all providers; called under the world's lock.

    Args:
        scale_in_s: How long there must be too many hosts before some end.
    """

    def __init__(self, scale_in_s: float) -> None:
        self._scale_in_s = scale_in_s
        self._low_since: dict[tuple[str, str], float] = {}

    def desired(
        self, group: Any, settings: Settings, *, live: Sequence[Host], waiting: Sequence[Task]
    ) -> int | None:
        """What the group's desired capacity should become; None if it is right.

        Args:
            group: moto's group.
            settings: Of its provider.
            live: Its instances.
            waiting: Tasks that wait for a host of it.
        """
        shapes = [shape for name in instance_types_of(group) if (shape := shape_of(name)) is not None]
        needed = sum(bool(host.tasks) for host in live) + hosts_needed(waiting, shapes)
        there = len(live)
        least, most = group.min_size or 0, group.max_size or 0
        now, key = time.monotonic(), (group.region, group.name)
        wanted = scaled_out(needed=needed, there=there, settings=settings)
        if wanted > there:
            self._low_since.pop(key, None)
            return _changed(group, min(max(wanted, least), most))
        enough = min(max(math.ceil(needed * 100 / settings.target), least), most)
        if enough >= there or waiting:
            self._low_since.pop(key, None)
            return None
        since = self._low_since.setdefault(key, now)
        if now - since < self._scale_in_s:
            return None
        del self._low_since[key]
        return _changed(group, enough)


def _changed(group: Any, wanted: int) -> int | None:
    return None if wanted == group.desired_capacity else wanted
