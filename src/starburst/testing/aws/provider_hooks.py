"""moto's capacity providers and container instances, corrected where clients would meet its gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starburst.testing.aws.ecs_common import FARGATE_PROVIDERS
from starburst.testing.aws.hooks import replace

if TYPE_CHECKING:
    from starburst.testing.aws.fleet import Fleet

__all__ = ["install"]

_MANAGED_TAG = "AmazonECSManaged"
_RESERVED = ("aws", "ecs", "fargate")


def install(fleet: Fleet) -> None:
    """Put ours in the place of moto's."""
    _install_providers(fleet)
    _install_instances(fleet)


def _install_providers(fleet: Fleet) -> None:
    from moto.ecs.models import EC2ContainerServiceBackend

    original_create = EC2ContainerServiceBackend.create_capacity_provider
    original_delete = EC2ContainerServiceBackend.delete_capacity_provider
    original_update = EC2ContainerServiceBackend.update_capacity_provider

    def create(backend: Any, name: str, details: dict[str, Any], tags: Any) -> Any:
        if name in backend.capacity_providers or name in FARGATE_PROVIDERS:
            raise _refused(
                "The specified capacity provider already exists. To change the configuration of an existing "
                "capacity provider, update the capacity provider."
            )
        if name.lower().startswith(_RESERVED):
            raise _refused(
                "The capacity provider name is invalid: it must not begin with 'aws', 'ecs' or 'fargate'."
            )
        details.setdefault("managedDraining", "ENABLED")
        group = _group(fleet, details["autoScalingGroupArn"])
        _check_protection(details, group)
        provider = original_create(backend, name, details, tags)
        _tag(provider, group)
        return provider

    def update(backend: Any, name: str, details: dict[str, Any]) -> Any:
        _find(backend, name)
        provider = original_update(backend, name, details)
        settings = provider.auto_scaling_group_provider
        if "managedDraining" in details:
            settings["managedDraining"] = details["managedDraining"]
        _tag(provider, _group(fleet, settings["autoScalingGroupArn"]))
        return provider

    def delete(backend: Any, name: str) -> Any:
        provider = _find(backend, name)
        for cluster in backend.clusters.values():
            if provider.name in (cluster.capacity_providers or []) and cluster.status == "ACTIVE":
                raise _refused(
                    "The capacity provider cannot be deleted because it is associated with cluster: "
                    f"{cluster.name}. Remove the capacity provider from the cluster and try again."
                )
        return original_delete(backend, name)

    replace(
        EC2ContainerServiceBackend,
        create_capacity_provider=create,
        update_capacity_provider=update,
        delete_capacity_provider=delete,
    )


def _install_instances(fleet: Fleet) -> None:
    from moto.ecs.models import EC2ContainerServiceBackend

    original = EC2ContainerServiceBackend.describe_container_instances

    def describe(backend: Any, cluster_str: str, ids: list[str]) -> Any:
        cluster = backend._get_cluster(cluster_str)  # noqa: SLF001 - moto has no public way
        backend.container_instances.setdefault(cluster.name, {})
        for host in fleet.groups.hosts.values():
            if host.record is not None and (host.region, host.cluster) == (backend.region_name, cluster.name):
                host.update_record()
        return original(backend, cluster_str, ids)

    replace(EC2ContainerServiceBackend, describe_container_instances=describe)


def _refused(message: str) -> Exception:
    from moto.ecs.exceptions import EcsClientException

    return EcsClientException(message)


def _find(backend: Any, name: str) -> Any:
    provider = backend._get_provider(name)  # noqa: SLF001 - moto has no public way
    if provider is None:
        raise _refused(
            "The specified capacity provider does not exist. Specify a valid name or ARN and try again."
        )
    return provider


def _group(fleet: Fleet, name_or_arn: str) -> Any:
    for group in fleet.all_groups():
        if name_or_arn in (group.arn, group.name):
            return group
    raise _refused(
        "The specified Auto Scaling group ARN is not valid. Specify a valid Auto Scaling group ARN and try again."
    )


def _check_protection(details: dict[str, Any], group: Any) -> None:
    if details.get("managedTerminationProtection") != "ENABLED":
        return
    if details.get("managedScaling", {}).get("status") != "ENABLED":
        raise _refused(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed "
            "termination protection for a capacity provider, managed scaling must be enabled."
        )
    if not group.new_instances_protected_from_scale_in:
        raise _refused(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed "
            "termination protection for a capacity provider, the Auto Scaling group must have instance "
            "protection from scale in enabled."
        )


def _tag(provider: Any, group: Any) -> None:
    """What ECS writes onto a group that it scales."""
    scaled = provider.auto_scaling_group_provider["managedScaling"]["status"] == "ENABLED"
    if scaled and not any(each["Key"] == _MANAGED_TAG for each in group.tags):
        tag = {"Key": _MANAGED_TAG, "Value": "", "PropagateAtLaunch": True}
        group.tags = [*group.tags, tag]
