"""ECS: puts its operations before moto's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starburst.testing.aws import ecs_clusters, ecs_definitions, ecs_metadata, ecs_reads
from starburst.testing.aws.ecs_run import RunTask

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["install"]


def install(world: World) -> None:
    """Add them to the front, and what tasks ask on their host to the control server."""
    world.front.operations |= {
        "ecs:RunTask": RunTask(world),
        "ecs:ListTasks": partial(ecs_reads.list_tasks, world),
        "ecs:DescribeTasks": partial(ecs_reads.describe_tasks, world),
        "ecs:StopTask": partial(ecs_reads.stop_task, world),
        "ecs:RegisterTaskDefinition": partial(ecs_definitions.register, world),
        "ecs:ListTaskDefinitions": partial(ecs_definitions.list_definitions, world),
        "ecs:CreateCluster": partial(ecs_clusters.create_cluster, world),
        "ecs:DeleteCluster": partial(ecs_clusters.delete_cluster, world),
        "ecs:DescribeClusters": partial(ecs_clusters.describe_clusters, world),
        "ecs:ListClusters": partial(ecs_clusters.list_clusters, world),
        "ecs:PutClusterCapacityProviders": partial(ecs_clusters.put_providers, world),
        "ecs:DescribeCapacityProviders": partial(ecs_clusters.describe_providers, world),
    }
    ecs_metadata.install(world)
