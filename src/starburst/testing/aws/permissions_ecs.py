"""What requests to ECS need permission for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.permissions_common import Need, Place

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call

__all__ = ["needs"]

_TASKS = "ecs-tasks.amazonaws.com"
_OF_CLUSTER = {"DeleteCluster", "ListContainerInstances", "PutClusterCapacityProviders", "UpdateCluster"} | {
    "ListAttributes",
    "ListServices",
    "RegisterContainerInstance",
    "UpdateClusterSettings",
}
_OF_SERVICE = {"CreateService", "UpdateService", "DeleteService"}
_OF_PROVIDER = {"CreateCapacityProvider", "UpdateCapacityProvider", "DeleteCapacityProvider"}
_OF_ARN = {"TagResource", "UntagResource", "ListTagsForResource"}


def needs(call: Call, place: Place) -> Iterator[Need]:
    """Actions, resources and condition keys; nothing for operations without a resource."""
    found = _NEEDS.get(call.operation)
    given = call.parameters
    if found is not None:
        yield from found(given, place)
    elif call.operation in _OF_CLUSTER:
        yield Need(_cluster(given, place))
    elif call.operation in _OF_SERVICE:
        name = str(given.get("serviceName") or given.get("service", "")).rpartition("/")[2]
        yield Need(place.arn("ecs", f"service/{_cluster_name(given)}/{name}"), context=_in(given, place))
    elif call.operation in _OF_PROVIDER:
        name = str(given.get("name") or given.get("capacityProvider", "")).rpartition("/")[2]
        yield from _tagged(place.arn("ecs", f"capacity-provider/{name}"), call.operation, given)
    elif call.operation in _OF_ARN:
        yield Need(str(given.get("resourceArn", "*")))


def _run_task(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    definition = _definition(given, place)
    context: dict[str, str | list[str]] = dict(_in(given, place))
    providers = [str(each.get("capacityProvider")) for each in given.get("capacityProviderStrategy") or []]
    if providers:
        context["ecs:capacity-provider"] = [
            place.arn("ecs", f"capacity-provider/{name}") for name in providers
        ]
    context["ecs:enable-execute-command"] = str(bool(given.get("enableExecuteCommand"))).lower()
    family = str(given.get("taskDefinition", "")).rpartition("/")[2]
    arn = definition.arn if definition else place.arn("ecs", f"task-definition/{family}")
    yield Need(arn, context={**context, **_tags(given)})
    overrides = given.get("overrides") or {}
    for member, attribute in (("taskRoleArn", "task_role_arn"), ("executionRoleArn", "execution_role_arn")):
        role = overrides.get(member) or getattr(definition, attribute, None)
        if role:
            yield place.pass_role(role, _TASKS)
    if given.get("tags"):
        tasks = place.arn("ecs", f"task/{_cluster_name(given)}/*")
        yield Need(tasks, "ecs:TagResource", {"ecs:CreateAction": "RunTask", **_tags(given)})


def _register(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    arn = place.arn("ecs", f"task-definition/{given.get('family')}:*")
    context: dict[str, str | list[str]] = dict(_tags(given))
    for key, member in (("ecs:task-cpu", "cpu"), ("ecs:task-memory", "memory")):
        if given.get(member):
            context[key] = str(given[member])
    if given.get("requiresCompatibilities"):
        context["ecs:compute-compatibility"] = [str(each) for each in given["requiresCompatibilities"]]
    privileged = any(each.get("privileged") for each in given.get("containerDefinitions") or [])
    context["ecs:privileged"] = str(privileged).lower()
    yield Need(arn, context=context)
    for member in ("taskRoleArn", "executionRoleArn"):
        if given.get(member):
            yield place.pass_role(str(given[member]), _TASKS)
    if given.get("tags"):
        created = {"ecs:CreateAction": "RegisterTaskDefinition", **_tags(given)}
        yield Need(arn, "ecs:TagResource", created)


def _tasks(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    for task in given.get("tasks") or [given.get("task", "*")]:
        name = str(task).rpartition("/")[2]
        yield Need(place.arn("ecs", f"task/{_cluster_name(given)}/{name}"), context=_in(given, place))


def _list_tasks(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    instance = str(given.get("containerInstance") or "*").rpartition("/")[2]
    arn = place.arn("ecs", f"container-instance/{_cluster_name(given)}/{instance}")
    yield Need(arn, context=_in(given, place))


def _instances(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    for instance in given.get("containerInstances") or [given.get("containerInstance", "*")]:
        name = str(instance).rpartition("/")[2]
        arn = place.arn("ecs", f"container-instance/{_cluster_name(given)}/{name}")
        yield Need(arn, context=_in(given, place))


def _create_cluster(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    arn = place.arn("ecs", f"cluster/{given.get('clusterName') or 'default'}")
    yield from _tagged(arn, "CreateCluster", given)


def _describe_clusters(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    for cluster in given.get("clusters") or ["default"]:
        yield Need(place.arn("ecs", f"cluster/{str(cluster).rpartition('/')[2]}"))


def _describe_providers(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    for provider in given.get("capacityProviders") or ["*"]:
        yield Need(place.arn("ecs", f"capacity-provider/{str(provider).rpartition('/')[2]}"))


def _describe_services(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    for service in given.get("services") or ["*"]:
        name = str(service).rpartition("/")[2]
        yield Need(place.arn("ecs", f"service/{_cluster_name(given)}/{name}"), context=_in(given, place))


def _delete_definitions(given: Mapping[str, Any], place: Place) -> Iterator[Need]:
    for definition in given.get("taskDefinitions") or []:
        yield Need(place.arn("ecs", f"task-definition/{str(definition).rpartition('/')[2]}"))


_NEEDS = {
    "CreateCluster": _create_cluster,
    "DeleteTaskDefinitions": _delete_definitions,
    "DeregisterContainerInstance": _instances,
    "DescribeCapacityProviders": _describe_providers,
    "DescribeClusters": _describe_clusters,
    "DescribeContainerInstances": _instances,
    "DescribeServices": _describe_services,
    "DescribeTasks": _tasks,
    "ExecuteCommand": _tasks,
    "ListTasks": _list_tasks,
    "RegisterTaskDefinition": _register,
    "RunTask": _run_task,
    "StopTask": _tasks,
    "UpdateContainerInstancesState": _instances,
}


def _tagged(arn: str, operation: str, given: Mapping[str, Any]) -> Iterator[Need]:
    """The operation, and the right to tag what it makes if it shall have tags."""
    yield Need(arn, context=_tags(given))
    if given.get("tags"):
        yield Need(arn, "ecs:TagResource", {"ecs:CreateAction": operation, **_tags(given)})


def _cluster_name(given: Mapping[str, Any]) -> str:
    return str(given.get("cluster") or "default").rpartition("/")[2]


def _cluster(given: Mapping[str, Any], place: Place) -> str:
    return place.arn("ecs", f"cluster/{_cluster_name(given)}")


def _in(given: Mapping[str, Any], place: Place) -> dict[str, str]:
    return {"ecs:cluster": _cluster(given, place)}


def _tags(given: Mapping[str, Any]) -> dict[str, str | list[str]]:
    tags = given.get("tags") or []
    context: dict[str, str | list[str]] = {
        f"aws:RequestTag/{tag['key']}": tag.get("value", "") for tag in tags
    }
    return {**context, "aws:TagKeys": [tag["key"] for tag in tags]} if tags else {}


def _definition(given: Mapping[str, Any], place: Place) -> Any:
    from moto.ecs.models import ecs_backends

    family, _, revision = str(given.get("taskDefinition", "")).rpartition("/")[2].partition(":")
    revisions = ecs_backends[place.account][place.region].task_definitions.get(family, {})
    if revision:
        return revisions.get(int(revision)) if revision.isdecimal() else None
    active = [number for number, each in revisions.items() if each.status == "ACTIVE"]
    return revisions[max(active)] if active else None
