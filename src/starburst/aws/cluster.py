"""The ECS cluster. Its list of capacity providers is shared: EC2 capacity adds its own, and they stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starburst.aws.capacity_provider import attach_provider
from starburst.aws.clients import Aws
from starburst.aws.names import CLUSTER
from starburst.aws.resource import MISSING, Scope, State, is_ours, make_sure_ours
from starburst.aws.waiting import call_when_idle
from starburst.clock import Clock, Deadline
from starburst.errors import CloudError, CloudUnavailable, NotSetUp

__all__ = ["Cluster"]

_FARGATE = ("FARGATE", "FARGATE_SPOT")
_BUSY_S = 120.0
_BUSY_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Our cluster.

    Attributes:
        aws: Whose account.
        scope: Its region.
        clock: What waits are measured by: AWS changes a cluster's providers one change at a time.
    """

    aws: Aws
    scope: Scope
    clock: Clock
    kind = "cluster"

    @property
    def name(self) -> str:
        """The cluster's name."""
        return CLUSTER

    @property
    def way_out(self) -> str:
        """Its name is fixed."""
        return (
            "delete it, or hand it over (`starburst teardown` then removes it): aws ecs tag-resource "
            f"--resource-arn {self.scope.arn('ecs', f'cluster/{CLUSTER}')} --tags key=starburst:managed,value=true"
        )

    async def describe(self) -> dict[str, Any] | None:
        """The cluster as AWS tells it, or None; one that was deleted is still told for a while."""
        answer = await self.aws.call("ecs", "describe_clusters", clusters=[CLUSTER], include=["TAGS"])
        found = [each for each in answer.get("clusters", ()) if each.get("status") != "INACTIVE"]
        return dict(found[0]) if found else None

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        found = await self.describe()
        if found is None:
            return MISSING
        if not is_ours(found.get("tags")):
            return State("foreign")
        lacking = [name for name in _FARGATE if name not in found.get("capacityProviders", ())]
        return State.of([f"has no {name}" for name in lacking])

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "missing":
            await call_when_idle(
                self.aws,
                "ecs",
                "create_cluster",
                clock=self.clock,
                clusterName=CLUSTER,
                capacityProviders=list(_FARGATE),
                settings=[{"name": "containerInsights", "value": "disabled"}],  # it is billed
                tags=self.scope.tag_list(lower=True),
            )
            # AWS says of one that is there, whoever made it just now, that it was made.
            make_sure_ours(self, await self.state())
        elif state.condition == "differs":
            await attach_provider(self.aws, CLUSTER, *_FARGATE, clock=self.clock)

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`; its tasks and its capacity have to be gone.

        Raises:
            NotSetUp: Something of somebody else's is still in it.
        """
        if not (await self.state()).is_ours:
            return False
        deadline = Deadline(self.clock, _BUSY_S)
        while True:
            try:
                await self.aws.call("ecs", "delete_cluster", cluster=CLUSTER)
            except CloudError as error:
                busy = isinstance(error, CloudUnavailable) or error.code.startswith("ClusterContains")
                if not busy:
                    raise
                if deadline.passed:
                    raise NotSetUp(
                        f"the cluster {CLUSTER} cannot be deleted: {error.message}",
                        hint=f"aws ecs list-tasks --cluster {CLUSTER}; aws ecs list-services --cluster {CLUSTER}",
                        code=error.code,
                        operation=error.operation,
                    ) from error
                await self.clock.sleep(_BUSY_EVERY_S)
            else:
                return True
