"""Which host gets a task: room, constraints, strategies. Pure: hosts and a task in, a host or AWS's reason out."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starburst.testing.aws.hosts import Host, Shape
    from starburst.testing.aws.tasks import Task

__all__ = ["choose", "hosts_needed", "refusal"]

_TERM = re.compile(r"^\s*attribute:\s*([\w.\-/]+)\s*(==|!=|=~|!in\b|in\b|exists\b)\s*(.*?)\s*$")


def refusal(host: Host, task: Task) -> str:
    """Why the host cannot take the task, as ``failures[].reason`` says it; empty if it can."""
    if not host.active:
        return "AGENT"
    if not _same_architecture(task, host.shape) or not _satisfies(host, task):
        return "ATTRIBUTE"
    lacking = {
        "RESOURCE:CPU": task.cpu > host.free_cpu,
        "RESOURCE:MEMORY": task.memory_mib > host.free_memory_mib,
        "RESOURCE:GPU": task.gpus > host.free_gpus,
        "RESOURCE:ENI": bool(task.attachments) and host.free_interfaces < 1,
    }
    return next((reason for reason, lacks in lacking.items() if lacks), "")


def choose(hosts: Sequence[Host], task: Task) -> Host | None:
    """The host for the task among those that can take it; None if there is none."""
    fitting = [host for host in hosts if not refusal(host, task)]
    for strategy in task.placement_strategy:
        fitting = _narrow(fitting, strategy, task)
    return random.choice(fitting) if fitting else None  # noqa: S311 - AWS's default is random, too


def hosts_needed(tasks: Sequence[Task], shapes: Sequence[Shape]) -> int:
    """How many new hosts a group needs for the tasks; those that fit on none of its types do not count.

    Tasks are packed first-fit, the largest first, onto the group's first type that has room for them: AWS's own
    estimate is a lower bound, too.
    """
    bins: list[tuple[Shape, list[int]]] = []
    for task in sorted(tasks, key=lambda each: (each.cpu, each.memory_mib), reverse=True):
        need = [task.cpu, task.memory_mib, task.gpus, int(bool(task.attachments))]
        for shape, free in bins:
            if _same_architecture(task, shape) and all(n <= f for n, f in zip(need, free, strict=True)):
                free[:] = [f - n for n, f in zip(need, free, strict=True)]
                break
        else:
            opened = _first_fit(need, [shape for shape in shapes if _same_architecture(task, shape)])
            if opened is not None:
                bins.append(opened)
    return len(bins)


def _first_fit(need: list[int], shapes: Sequence[Shape]) -> tuple[Shape, list[int]] | None:
    for shape in shapes:
        room = [shape.cpu, shape.memory_mib, shape.gpus, shape.interfaces - 1]
        left = [r - n for n, r in zip(need, room, strict=True)]
        if min(left) >= 0:
            return shape, left
    return None


def _same_architecture(task: Task, shape: Shape) -> bool:
    """ECS compares only what the task definition says; without, the image must be right by itself."""
    platform = task.definition.runtime_platform or {}
    return not platform.get("cpuArchitecture") or task.architecture == shape.architecture


def _narrow(hosts: list[Host], strategy: dict[str, str], task: Task) -> list[Host]:
    """Keep those hosts that are best by one strategy."""
    if not hosts or strategy["type"] == "random":
        return hosts
    name = strategy.get("field", "instanceId")
    if strategy["type"] == "binpack":
        free = {host.id: (host.free_cpu if name == "cpu" else host.free_memory_mib) for host in hosts}
        least = min(free.values())
        return [host for host in hosts if free[host.id] == least]
    crowd: Counter[Any] = Counter()
    for host in hosts:
        crowd[_attribute(host, name)] += sum(each.group == task.group for each in host.tasks.values())
    fewest = min(crowd.values())
    return [host for host in hosts if crowd[_attribute(host, name)] == fewest]


def _attribute(host: Host, name: str) -> str | None:
    if name in ("instanceId", "host"):
        return host.id
    value = host.record.attributes.get(name.removeprefix("attribute:"))
    return None if value is None else str(value)


def _satisfies(host: Host, task: Task) -> bool:
    for constraint in task.placement_constraints:
        if constraint["type"] == "distinctInstance":
            if any(each.group == task.group for each in host.tasks.values()):
                return False
        elif not _matches(host, constraint.get("expression", "")):
            return False
    return True


def _matches(host: Host, expression: str) -> bool:
    """Cluster query language: terms with ``and``, ``or`` (``&&``, ``||``); no parentheses."""
    for alternative in re.split(r"\s+or\s+|\|\|", expression):
        if all(_term(host, term) for term in re.split(r"\s+and\s+|&&", alternative)):
            return True
    return False


def _term(host: Host, term: str) -> bool:
    from moto.ecs.exceptions import InvalidParameterException

    parsed = _TERM.match(term)
    if parsed is None:
        raise InvalidParameterException(f"Invalid memberOf expression: {term}")
    name, operator, value = parsed.groups()
    have = _attribute(host, name)
    if operator == "exists":
        return have is not None
    listed = [each.strip() for each in value.strip("[]").split(",")]
    if operator in ("in", "!in"):
        return (have in listed) == (operator == "in")
    if operator == "=~":
        return have is not None and re.fullmatch(value, have) is not None
    return (have == value) == (operator == "==")
