"""Everything that is in the account, to compare before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from moto.backends import get_backend

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["inventory"]


def inventory(world: World) -> dict[str, list[str]]:
    """Names by kind, sorted; those in regions with the region. The caller holds the world's lock.

    What every account has from the start is left out: default VPCs with what is in them, AWS's own policies.
    """
    account = world.options.account
    found: dict[str, list[str]] = {
        "tasks": [each.task_arn for each in world.tasks.values() if not each.stopped],
        "roles": [each.name for each in _global("iam", account).roles.values()],
        "instance profiles": [each.name for each in _global("iam", account).instance_profiles.values()],
        "policies": [
            each.arn
            for each in _global("iam", account).managed_policies.values()
            if f":{account}:" in each.arn
        ],
        "users": [each.name for each in _global("iam", account).users.values()],
        "buckets": list(_global("s3", account).buckets),
    }
    for kind, service, names in _REGIONAL:
        found[kind] = [
            f"{region}/{name}" for region, backend in _regions(service, account) for name in names(backend)
        ]
    return {kind: sorted(names) for kind, names in found.items()}


def _global(service: str, account: str) -> Any:
    backends: Any = get_backend(service)  # type: ignore[call-overload]
    return backends[account]["aws"]


def _regions(service: str, account: str) -> Iterator[tuple[str, Any]]:
    """Only regions that were used: asking moto for another one makes it."""
    backends: Any = get_backend(service)  # type: ignore[call-overload]
    yield from list(backends[account].items())


def _clusters(backend: Any) -> Iterable[str]:
    return [name for name, each in backend.clusters.items() if each.status == "ACTIVE"]


def _definitions(backend: Any) -> Iterable[str]:
    return [
        f"{family}:{number}"
        for family, revisions in backend.task_definitions.items()
        for number, each in revisions.items()
        if each.status == "ACTIVE"
    ]


def _vpcs(backend: Any) -> Iterable[str]:
    return [vpc_id for vpc_id, each in backend.vpcs.items() if each.is_default not in {True, "true"}]


def _security_groups(backend: Any) -> Iterable[str]:
    return [
        each.group_name
        for groups in backend.groups.values()
        for each in groups.values()
        if each.group_name != "default"
    ]


def _instances(backend: Any) -> Iterable[str]:
    return [
        each.id
        for reservation in backend.reservations.values()
        for each in reservation.instances
        if each.state not in {"terminated", "shutting-down"}
    ]


def _schedules(backend: Any) -> Iterable[str]:
    return [f"{group}/{name}" for group, each in backend.schedule_groups.items() for name in each.schedules]


_REGIONAL: tuple[tuple[str, str, Any], ...] = (
    ("clusters", "ecs", _clusters),
    ("task definitions", "ecs", _definitions),
    ("services", "ecs", lambda backend: [each.arn for each in backend.services.values()]),
    ("capacity providers", "ecs", lambda backend: backend.capacity_providers),
    ("repositories", "ecr", lambda backend: backend.repositories),
    ("log groups", "logs", lambda backend: backend.groups),
    ("security groups", "ec2", _security_groups),
    ("launch templates", "ec2", lambda backend: [each.name for each in backend.launch_templates.values()]),
    ("vpc endpoints", "ec2", lambda backend: backend.vpc_end_points),
    ("vpcs", "ec2", _vpcs),
    ("instances", "ec2", _instances),
    ("build projects", "codebuild", lambda backend: backend.codebuild_projects),
    ("auto scaling groups", "autoscaling", lambda backend: backend.autoscaling_groups),
    ("schedules", "scheduler", _schedules),
    (
        "schedule groups",
        "scheduler",
        lambda backend: [each for each in backend.schedule_groups if each != "default"],
    ),
)
