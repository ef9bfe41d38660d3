"""Clusters and capacity providers, where moto is more lenient than ECS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starburst.testing.aws import ecs_common, strategy
from starburst.testing.aws.ecs_common import FARGATE_PROVIDERS, invalid
from starburst.testing.aws.front import Answer, Refusal

if TYPE_CHECKING:
    from starburst.testing.aws.front import Call
    from starburst.testing.aws.world import World

__all__ = [
    "create_cluster",
    "delete_cluster",
    "describe_clusters",
    "describe_providers",
    "list_clusters",
    "put_providers",
]


def create_cluster(world: World, call: Call) -> Answer | dict[str, Any]:
    """One that is there already is answered as it is."""
    name = call.parameters.get("clusterName") or "default"
    _check_providers(call, call.parameters.get("capacityProviders") or [])
    known = ecs_common.backend_of(world.options.account, call.region).clusters.get(name)
    if known is not None and known.status == "ACTIVE":
        return _describe(world, call, name)
    return world.front.ask_moto(call.environ)


def list_clusters(world: World, call: Call) -> dict[str, Any]:
    """ARNs of active clusters."""
    clusters = ecs_common.backend_of(world.options.account, call.region).clusters.values()
    return {"clusterArns": [each.arn for each in clusters if each.status == "ACTIVE"]}


def describe_clusters(world: World, call: Call) -> Answer:
    """With the numbers of tasks."""
    clusters = ecs_common.backend_of(world.options.account, call.region).clusters
    for name, cluster in clusters.items():
        tasks = [each for each in world.tasks.values() if each.cluster == name and each.region == call.region]
        cluster.running_tasks_count = sum(each.last_status in {"RUNNING", "STOPPING"} for each in tasks)
        cluster.pending_tasks_count = sum(each.last_status in {"PROVISIONING", "PENDING"} for each in tasks)
    return world.front.ask_moto(call.environ)


def delete_cluster(world: World, call: Call) -> Answer:
    """Only when nothing is in it."""
    cluster = ecs_common.cluster_of(world, call)
    backend = ecs_common.backend_of(world.options.account, call.region)
    if any(
        each.cluster == cluster.name and each.region == call.region and not each.stopped
        for each in world.tasks.values()
    ):
        raise Refusal(
            "ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active."
        )
    if any(
        each.cluster_name == cluster.name and each.status == "ACTIVE" for each in backend.services.values()
    ):
        raise Refusal(
            "ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active."
        )
    if backend.container_instances.get(cluster.name):
        raise Refusal(
            "ClusterContainsContainerInstancesException",
            "The Cluster cannot be deleted while Container Instances are active or draining.",
        )
    return world.front.ask_moto(call.environ)


def put_providers(world: World, call: Call) -> Answer:
    """Names must exist, and the default strategy must be one of them."""
    cluster = ecs_common.cluster_of(world, call)
    names = call.parameters.get("capacityProviders")
    default = call.parameters.get("defaultCapacityProviderStrategy")
    if names is None or default is None:
        raise invalid("capacityProviders and defaultCapacityProviderStrategy must be given.")
    _check_providers(call, names)
    if default:
        strategy.check(default, names, ecs_common.backend(call).capacity_providers)
    in_use = {
        each.capacity_provider
        for each in world.tasks.values()
        if each.cluster == cluster.name and each.region == call.region and not each.stopped
    }
    lost = sorted(in_use & set(cluster.capacity_providers or []) - set(names))
    if lost:
        raise Refusal(
            "ResourceInUseException",
            f"The specified capacity provider is in use and cannot be removed: {', '.join(lost)}.",
        )
    return world.front.ask_moto(call.environ)


def describe_providers(world: World, call: Call) -> Answer | dict[str, Any]:
    """Those of Fargate are there without having been made; without names, all."""
    account, region = world.options.account, call.region
    names: list[str] = call.parameters.get("capacityProviders") or []
    backend = ecs_common.backend_of(account, region)
    wanted = [each.rpartition("/")[2] for each in names] or [*FARGATE_PROVIDERS, *backend.capacity_providers]
    found: list[Any] = []
    failures = []
    for name in wanted:
        arn = f"arn:aws:ecs:{region}:{account}:capacity-provider/{name}"
        if name in FARGATE_PROVIDERS:
            found.append({"capacityProviderArn": arn, "name": name, "status": "ACTIVE", "tags": []})
        elif name in backend.capacity_providers:
            provider = backend.capacity_providers[name]
            found.append(
                {
                    "capacityProviderArn": arn,
                    "name": name,
                    "status": provider.status,
                    "autoScalingGroupProvider": provider.auto_scaling_group_provider,
                    "updateStatus": provider.update_status,
                    "tags": (provider.tags or []) if "TAGS" in (call.parameters.get("include") or []) else [],
                }
            )
        else:
            failures.append({"arn": arn, "reason": "MISSING"})
    return {"capacityProviders": found, "failures": failures}


def _check_providers(call: Call, names: list[str]) -> None:
    known = ecs_common.backend(call).capacity_providers
    for name in names:
        if name not in FARGATE_PROVIDERS and name.rpartition("/")[2] not in known:
            raise invalid(
                f"The specified capacity provider '{name}' was not found. Specify a valid name or ARN and try again."
            )


def _describe(world: World, call: Call, name: str) -> dict[str, Any]:
    cluster = ecs_common.backend_of(world.options.account, call.region).clusters[name]
    return {
        "cluster": {
            "clusterArn": cluster.arn,
            "clusterName": cluster.name,
            "status": cluster.status,
            "capacityProviders": cluster.capacity_providers,
            "defaultCapacityProviderStrategy": cluster.default_capacity_provider_strategy,
            "settings": cluster.settings,
            "tags": cluster.tags,
        }
    }
