"""Where and as what the workers of one session run on ECS: what the session's manifest keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from starburst.aws.instance_types import Architecture
from starburst.errors import ProviderError

__all__ = ["EcsPlace", "place_from", "started_by"]


class EcsPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Names, addresses and sizes; never a key.

    Attributes:
        launch_type: ``FARGATE`` or ``EC2``.
        region: The region.
        account: The account's twelve digits.
        cluster: The ECS cluster.
        subnets: Where workers run.
        security_groups: Of workers.
        assign_public_ip: Whether they get public addresses.
        execution_role_arn: What ECS uses to start them.
        task_role_arn: What they may do.
        supervisor_role_arn: What their supervisor may do.
        log_group: Where their output goes.
        image: Their container image.
        cpu_units: CPU of a worker; a vCPU has 1,024.
        memory_mib: Memory of a worker.
        architecture: ``X86_64`` or ``ARM64``.
        spot: Whether Spot capacity is used.
        on_demand_base: So many workers are on-demand in any case.
        gpus: GPUs of a worker.
        spot_provider: Capacity provider for Spot; empty if none is used.
        on_demand_provider: Capacity provider for on-demand; empty if none is used.
        instance_types: Of EC2 hosts, in the order of preference.
        per_host: Workers that the smallest host holds.
        definition: ARN of the workers' task definition; a supervisor may use it and register none.
        warm_pool_timeout_s: How long EC2 hosts stay after their last task.
        zones: The zone of each subnet, in the same order.
        owner: Whose session it is, for tags.
    """

    launch_type: Literal["FARGATE", "EC2"]
    region: str
    account: str
    cluster: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    assign_public_ip: bool
    execution_role_arn: str
    task_role_arn: str
    supervisor_role_arn: str
    log_group: str
    image: str
    cpu_units: int
    memory_mib: int
    architecture: Architecture
    spot: Literal["no", "prefer", "only"]
    on_demand_base: int = 0
    gpus: int = 0
    spot_provider: str = "FARGATE_SPOT"
    on_demand_provider: str = "FARGATE"
    instance_types: tuple[str, ...] = ()
    per_host: int = 1
    definition: str = ""
    warm_pool_timeout_s: float = 0.0
    zones: tuple[str, ...] = ()
    owner: str = ""

    @property
    def capacity(self) -> tuple[str, ...]:
        """Capacity providers in the order in which they are tried."""
        if self.spot == "no":
            return (self.on_demand_provider,)
        return (self.spot_provider,) if self.spot == "only" else (self.spot_provider, self.on_demand_provider)


def place_from(deployment: Mapping[str, Any]) -> EcsPlace:
    """The place that a manifest keeps.

    Raises:
        ProviderError: It keeps none, or one that this version cannot read.
    """
    try:
        return msgspec.convert(dict(deployment), EcsPlace)
    except msgspec.ValidationError as error:
        raise ProviderError(
            f"the session's manifest does not say where on AWS its workers run: {error}",
            hint="pip install --upgrade starburst-cloud, if it was made by a newer version",
        ) from error


def started_by(session_id: str) -> str:
    """The session's mark on its tasks, by which ECS lists them; at most 128 of its characters."""
    return re.sub(r"[^A-Za-z0-9/_-]", "-", session_id)[:128]
