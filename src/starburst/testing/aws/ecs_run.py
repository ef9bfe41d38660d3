"""RunTask: every check of the real one, then tasks that run."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starburst.testing.aws import ecs_common, strategy
from starburst.testing.aws.ecs_common import invalid
from starburst.testing.aws.front import Refusal
from starburst.testing.aws.limits import FARGATE_VCPUS
from starburst.testing.aws.tasks import Container, Task
from starburst.testing.aws.world import Failure

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call
    from starburst.testing.aws.strategy import Share
    from starburst.testing.aws.world import World

__all__ = ["RunTask"]

_MAX_COUNT = 10
_MAX_OVERRIDES = 8192
_MAX_TAGS = 50
_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{1,128}")
_LAUNCH_TYPES = ("EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES")
_NO_CAPACITY = (
    "Capacity is unavailable at this time. Please try again later or in a different availability zone"
)
# The apostrophe is typographic in AWS, too.
_NO_VCPUS = "You’ve reached the limit on the number of vCPUs you can run concurrently"  # noqa: RUF001
_CONFLICT = (
    "The RunTask request could not be processed due to conflicts. The provided clientToken is already in use with a "
    "different RunTask request. The resourceIds are the existing task ARNs which are already associated with the "
    "clientToken."
)


class RunTask:
    """The operation; it remembers what was started under which client token."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: dict[tuple[str, str, str], tuple[str, list[Task]]] = {}
        self._launches = 0

    def __call__(self, call: Call) -> dict[str, Any]:
        """Answer one RunTask."""
        given = call.parameters
        cluster = ecs_common.cluster_of(self._world, call)
        token = given.get("clientToken") or ""
        if len(token) > 64:
            raise invalid("clientToken must be at most 64 characters long.")
        asked = json.dumps(
            {key: value for key, value in given.items() if key != "clientToken"}, sort_keys=True
        )
        key = (call.region, cluster.name, token)
        if token and key in self._tokens:
            before, tasks = self._tokens[key]
            if before != asked:
                raise Refusal("ConflictException", _CONFLICT, resourceIds=[each.task_arn for each in tasks])
            return {"tasks": [each.describe() for each in tasks], "failures": []}
        tasks, failures = self._run(call, cluster)
        if token and tasks:
            self._tokens[key] = (asked, tasks)
        return {
            "tasks": [each.describe() for each in tasks],
            "failures": [
                {"arn": each.arn or None, "reason": each.reason, "detail": each.detail or None}
                for each in failures
            ],
        }

    def _run(self, call: Call, cluster: Any) -> tuple[list[Task], list[Failure]]:
        given = call.parameters
        definition = ecs_common.active_definition(self._world, call, given.get("taskDefinition", ""))
        count = int(given.get("count", 1))
        _check(given, definition, count)
        shares = self._shares(call, cluster, count)
        if any(each.fargate for each in shares) and "FARGATE" not in (
            definition.requires_compatibilities or []
        ):
            raise invalid("Task definition does not support launch_type FARGATE.")
        network = self._network(call, definition, shares)
        for share in shares:
            if share.fargate and not self._world.launch_rates.take(
                call.region, spot=share.spot, tasks=share.count
            ):
                self._world.throttled[call.name] += 1
                raise Refusal("ThrottlingException", "Rate exceeded")
        tasks: list[Task] = []
        failures: list[Failure] = []
        for share in shares:
            for _ in range(share.count):
                task = self._new(call, cluster, definition, share, network)
                failure = self._start(task)
                if failure is None:
                    tasks.append(task)
                else:
                    failures.append(failure)
        return tasks, failures

    def _shares(self, call: Call, cluster: Any, count: int) -> list[Share]:
        given = call.parameters
        launch_type, wanted = given.get("launchType"), given.get("capacityProviderStrategy")
        if launch_type and wanted:
            raise invalid("Specify either Launch Type or Capacity Provider Strategy, but not both.")
        if launch_type and launch_type not in _LAUNCH_TYPES:
            raise invalid(f"launch type should be one of [{','.join(_LAUNCH_TYPES)}]")
        wanted = wanted or cluster.default_capacity_provider_strategy
        if launch_type or not wanted:
            return [strategy.Share("", count, fargate=launch_type == "FARGATE", spot=False)]
        strategy.check(wanted, cluster.capacity_providers or [], ecs_common.backend(call).capacity_providers)
        return strategy.divide(wanted, count)

    def _network(self, call: Call, definition: Any, shares: list[Share]) -> dict[str, Any]:
        wanted = (call.parameters.get("networkConfiguration") or {}).get("awsvpcConfiguration")
        if definition.network_mode != "awsvpc":
            if wanted:
                raise invalid(
                    "Network Configuration is not valid for the given networkMode of this task definition."
                )
            return {}
        if not wanted or not wanted.get("subnets"):
            raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
        if wanted.get("assignPublicIp") == "ENABLED" and not all(each.fargate for each in shares):
            raise invalid("Assign public IP is not supported for this launch type.")
        return ecs_common.check_network(call, wanted)

    def _new(self, call: Call, cluster: Any, definition: Any, share: Share, network: dict[str, Any]) -> Task:
        given, overrides = call.parameters, call.parameters.get("overrides") or {}
        zones: list[tuple[str, str]] = network.get("zones") or [("", "")]
        subnet, zone = zones[self._launches % len(zones)]
        self._launches += 1
        task_id = uuid.uuid4().hex
        tags = {each["key"]: each.get("value", "") for each in _tags(given, definition)}
        if given.get("enableECSManagedTags"):
            tags["aws:ecs:clusterName"] = cluster.name
        return Task(
            id=task_id,
            region=call.region,
            account=self._world.options.account,
            cluster=cluster.name,
            definition=definition,
            definition_arn=definition.arn,
            containers=_containers(call, cluster.name, task_id, definition, overrides),
            launch_type="FARGATE" if share.fargate else "EC2",
            capacity_provider=share.provider,
            cpu=ecs_common.cpu_units(overrides.get("cpu") or definition.cpu)
            or sum(int(each.get("cpu") or 0) for each in definition.container_definitions),
            memory_mib=ecs_common.memory_mib(overrides.get("memory") or definition.memory)
            or sum(
                int(each.get("memory") or each.get("memoryReservation") or 0)
                for each in definition.container_definitions
            ),
            gpus=sum(ecs_common.gpus(each) for each in definition.container_definitions),
            overrides=overrides,
            started_by=given.get("startedBy") or "",
            group=given.get("group") or f"family:{definition.family}",
            tags=[{"key": key, "value": value} for key, value in tags.items()],
            platform_version="1.4.0" if share.fargate else "",
            subnet=subnet,
            zone=zone,
            task_role=overrides.get("taskRoleArn") or getattr(definition, "task_role_arn", "") or "",
            spot=share.spot,
            created_at=datetime.now(UTC),
            placement_constraints=given.get("placementConstraints") or [],
            placement_strategy=given.get("placementStrategy") or [],
            attachments=[ecs_common.attachment(subnet)] if network else [],
        )

    def _start(self, task: Task) -> Failure | None:
        if task.launch_type == "FARGATE":
            failure = self._refused_by_fargate(task)
            if failure is None:
                self._keep(task)
                self._world.lifecycle.begin(task)
            return failure
        if self._world.placer is None:
            raise invalid("No Container Instances were found in your cluster.")
        self._keep(task)
        verdict = self._world.placer.place(task)
        if isinstance(verdict, Failure):
            self._forget(task)
            return verdict
        if verdict == "placed":
            self._world.lifecycle.begin(task)
        return None

    def _refused_by_fargate(self, task: Task) -> Failure | None:
        world = self._world
        facts = {
            "provider": task.capacity_provider,
            "zone": task.zone,
            "subnet": task.subnet,
            "spot": task.spot,
        }
        facts |= {"cluster": task.cluster, "family": task.definition.family, "started_by": task.started_by}
        facts |= {"cpu": task.cpu, "architecture": task.architecture, "region": task.region}
        if world.scripts.take("ecs:RunTask", "capacity", **facts):
            return Failure(_NO_CAPACITY)
        used = sum(
            each.cpu
            for each in world.tasks.values()
            if each.launch_type == "FARGATE"
            and each.spot == task.spot
            and each.region == task.region
            and not each.stopped
        )
        quota = world.quotas["fargate", FARGATE_VCPUS[task.spot]]
        if used + task.cpu > quota * 1024 or world.scripts.take("ecs:RunTask", "vcpus", **facts):
            return Failure(_NO_VCPUS)
        return None

    def _keep(self, task: Task) -> None:
        self._world.tasks[task.id] = task
        # moto looks here for the tags of tasks
        moto = ecs_common.backend_of(task.account, task.region)
        moto.tasks.setdefault(task.cluster, {})[task.task_arn] = task

    def _forget(self, task: Task) -> None:
        del self._world.tasks[task.id]
        del ecs_common.backend_of(task.account, task.region).tasks[task.cluster][task.task_arn]


def _check(given: dict[str, Any], definition: Any, count: int) -> None:
    if not 1 <= count <= _MAX_COUNT:
        raise invalid(f"Count must be between 1 and {_MAX_COUNT}.")
    overrides = given.get("overrides") or {}
    if len(json.dumps(overrides, separators=(",", ":"))) > _MAX_OVERRIDES:
        raise invalid(f"Container Overrides length must be at most {_MAX_OVERRIDES}")
    names = {each["name"] for each in definition.container_definitions}
    for each in overrides.get("containerOverrides") or []:
        if each.get("name") not in names:
            raise invalid(
                f"Override for container named {each.get('name')} is not a container in the TaskDefinition."
            )
    started_by = given.get("startedBy")
    if started_by and not _STARTED_BY.fullmatch(started_by):
        raise invalid(
            "startedBy can only contain letters, numbers, hyphens, underscores and slashes, at most 128."
        )
    if len(given.get("tags") or []) > _MAX_TAGS:
        raise invalid(f"Tags can not be more than {_MAX_TAGS}.")
    if given.get("propagateTags") == "SERVICE":
        raise invalid("Cannot propagate tags from SERVICE when running a task.")


def _tags(given: dict[str, Any], definition: Any) -> list[dict[str, str]]:
    propagated = definition.tags if given.get("propagateTags") == "TASK_DEFINITION" else []
    return [*propagated, *(given.get("tags") or [])]


def _containers(
    call: Call, cluster: str, task_id: str, definition: Any, overrides: dict[str, Any]
) -> list[Container]:
    changes = {each["name"]: each for each in overrides.get("containerOverrides") or []}
    account = ecs_common.backend(call).account_id
    containers = []
    for each in definition.container_definitions:
        change = changes.get(each["name"], {})
        values = {value["name"]: value.get("value", "") for value in each.get("environment") or []}
        values |= {value["name"]: value.get("value", "") for value in change.get("environment") or []}
        merged = {**each, **change}
        merged["environment"] = [{"name": name, "value": value} for name, value in values.items()]
        arn = f"arn:aws:ecs:{call.region}:{account}:container/{cluster}/{task_id}/{uuid.uuid4()}"
        runtime_id = f"{task_id}-{uuid.uuid4().int % 10**10:010d}"
        containers.append(Container(merged, arn, runtime_id))
    return containers
