"""RegisterTaskDefinition with the checks that moto lacks, and ListTaskDefinitions in pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starburst.testing.aws import ecs_common
from starburst.testing.aws.front import Answer, Refusal

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call
    from starburst.testing.aws.world import World

__all__ = ["list_definitions", "register", "sizes"]

_MAX_BYTES = 64 * 1024
_MAX_CONTAINERS = 10
_MAX_TAGS = 50
_PAGE = 100
_FORBIDDEN_ON_FARGATE = (
    "privileged",
    "links",
    "extraHosts",
    "dnsServers",
    "dnsSearchDomains",
    "disableNetworking",
    "dockerSecurityOptions",
)
_FORBIDDEN_LINUX = ("devices", "sharedMemorySize", "tmpfs", "maxSwap", "swappiness")


def sizes(cpu: int) -> frozenset[int]:
    """The memory sizes, in MiB, that Fargate has for so many CPU units; none if there is no such CPU size."""
    return _SIZES.get(cpu, frozenset())


_SIZES: dict[int, frozenset[int]] = {
    256: frozenset({512, 1024, 2048}),
    512: frozenset(range(1024, 4096 + 1, 1024)),
    1024: frozenset(range(2048, 8192 + 1, 1024)),
    2048: frozenset(range(4096, 16384 + 1, 1024)),
    4096: frozenset(range(8192, 30720 + 1, 1024)),
    8192: frozenset(range(16384, 61440 + 1, 4096)),
    16384: frozenset(range(32768, 122880 + 1, 8192)),
    32768: frozenset({61440, 122880, 249856}),
}


def register(world: World, call: Call) -> Answer:
    """Check, let moto register it, and note when."""
    given = call.parameters
    containers: list[dict[str, Any]] = given.get("containerDefinitions") or []
    if not containers:
        raise _client("Container list cannot be empty.")
    if len(call.body) > _MAX_BYTES:
        raise _client(f"Actual length: '{len(call.body)}'. Max allowed length is '{_MAX_BYTES}' bytes.")
    if len(containers) > _MAX_CONTAINERS:
        raise _client(f"Too many containers: at most {_MAX_CONTAINERS} are allowed.")
    if len(given.get("tags") or []) > _MAX_TAGS:
        raise ecs_common.invalid(f"Tags can not be more than {_MAX_TAGS}.")
    if "FARGATE" in (given.get("requiresCompatibilities") or []):
        _check_fargate(given, containers)
    answer = world.front.ask_moto(call.environ)
    if answer.status == 200:
        arn = json.loads(answer.body)["taskDefinition"]["taskDefinitionArn"]
        definition = ecs_common.active_definition(world, call, arn)
        definition.registered_at = datetime.now(UTC)
    return answer


def list_definitions(world: World, call: Call) -> dict[str, Any]:
    """ARNs, sorted by family and revision, in pages."""
    given = call.parameters
    size = int(given.get("maxResults") or _PAGE)
    status = given.get("status") or "ACTIVE"
    prefix = given.get("familyPrefix")
    families = ecs_common.backend_of(world.options.account, call.region).task_definitions
    found = [
        each.arn
        for family, revisions in sorted(families.items())
        for _, each in sorted(revisions.items(), reverse=given.get("sort") == "DESC")
        if each.status == status and prefix in {None, "", family}
    ]
    start = int(given.get("nextToken") or 0)
    more = str(start + size) if start + size < len(found) else None
    return {"taskDefinitionArns": found[start : start + size], "nextToken": more}


def _check_fargate(given: dict[str, Any], containers: list[dict[str, Any]]) -> None:
    if given.get("networkMode") != "awsvpc":
        raise _client("Fargate only supports network mode ‘awsvpc’.")  # noqa: RUF001 - as AWS writes it
    for name in ("cpu", "memory"):
        if not given.get(name):
            raise _client(f"Fargate requires that '{name}' be defined at the task level.")
    cpu, memory_mib = ecs_common.cpu_units(given["cpu"]), ecs_common.memory_mib(given["memory"])
    if not sizes(cpu):
        raise _client("Invalid 'cpu' setting for task")
    if memory_mib not in sizes(cpu):
        raise _client(
            f"No Fargate configuration exists for given values: {cpu} CPU, {memory_mib} memory. "
            "See the Amazon ECS documentation for the valid values."
        )
    if given.get("ipcMode") or given.get("placementConstraints"):
        raise _client("Tasks using the Fargate launch type do not support ipcMode or placementConstraints.")
    storage = (given.get("ephemeralStorage") or {}).get("sizeInGiB")
    if storage is not None and not 21 <= storage <= 200:
        raise _client("'sizeInGiB' must be between 21 and 200.")
    for container in containers:
        _check_container(container)
        driver = (container.get("logConfiguration") or {}).get("logDriver")
        if driver == "awslogs" and not given.get("executionRoleArn"):
            raise _client(
                "Fargate requires task definition to have execution role ARN to support log driver awslogs."
            )
        if ".dkr.ecr." in str(container.get("image")) and not given.get("executionRoleArn"):
            raise _client(
                "Fargate requires task definition to have execution role ARN to support ECR images."
            )


def _check_container(container: dict[str, Any]) -> None:
    name = container.get("name")
    for field in _FORBIDDEN_ON_FARGATE:
        if container.get(field):
            raise _client(f"Tasks using the Fargate launch type do not support {field} (container '{name}').")
    linux = container.get("linuxParameters") or {}
    for field in _FORBIDDEN_LINUX:
        if linux.get(field):
            raise _client(f"Tasks using the Fargate launch type do not support {field} (container '{name}').")
    added = (linux.get("capabilities") or {}).get("add") or []
    if set(added) - {"SYS_PTRACE"}:
        raise _client("Tasks using the Fargate launch type may only add the capability SYS_PTRACE.")
    if ecs_common.gpus(container):
        raise _client("Tasks using the Fargate launch type do not support GPU resource requirements.")
    if (container.get("stopTimeout") or 0) > 120:
        raise _client("Invalid setting for container: stopTimeout must be at most 120 seconds on Fargate.")
    options = (container.get("logConfiguration") or {}).get("options") or {}
    if "awslogs-group" in options and "awslogs-stream-prefix" not in options:
        raise _client(
            "Log driver awslogs requires options: awslogs-region, awslogs-group, awslogs-stream-prefix"
        )


def _client(message: str) -> Refusal:
    return Refusal("ClientException", message)
