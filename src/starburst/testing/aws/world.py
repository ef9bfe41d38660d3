"""What the parts of the simulated AWS share: its options, its state, and what it tells about tasks and hosts.

Nothing here imports moto: the handle in the user's process reads this file, too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from starburst.testing.aws.control import Control
    from starburst.testing.aws.front import Front
    from starburst.testing.aws.lifecycle import Lifecycle
    from starburst.testing.aws.limits import LaunchRates
    from starburst.testing.aws.runtimes import Runtime
    from starburst.testing.aws.scripts import Scripts
    from starburst.testing.aws.tasks import Task
    from starburst.testing.aws.timers import Timers

__all__ = ["ACCESS_KEY", "SECRET_KEY", "Failure", "HostInfo", "Placer", "SimOptions", "TaskInfo", "World"]

ACCESS_KEY = "testing"
SECRET_KEY = "testing12345"  # noqa: S105 - of a server on loopback that lives as long as a test

RuntimeName = Literal["process", "podman", "light"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """How the account behaves. Times are short, for tests; what AWS takes stands beside them.

    Attributes:
        folder: Where objects, tasks and logs of the simulator go; a temporary folder that is removed if empty.
        region: Where clients are sent that name no region; others work as well.
        account: The account's number.
        runtime: Tasks as processes of this machine ("process"; the image is not looked at), in containers
            ("podman"), or, if they are workers of starburst, many in one process ("light").
        podman: The podman command and its global options.
        registry: ``host:port`` of the registry that stands for ECR: images named
            ``<account>.dkr.ecr.<region>.amazonaws.com/…`` are pulled from there.
        pull_s: From PROVISIONING to RUNNING (AWS: 20 to 60 s).
        interruption_s: From the notice of an interruption to the end of a Spot task or host (AWS: 120 s).
        max_stop_timeout_s: The longest ``stopTimeout`` that is honoured (AWS: 120 s).
        host_join_s: From the start of an instance until it is in its cluster (AWS: 40 to 90 s).
        scale_in_s: How long a host is empty before managed scaling ends it (AWS: 15 min).
        enforce_iam: Check what roles do against their policies.
        rates: Factor on AWS's published request rates, 0 for no throttling at all.
        fargate_vcpus: Quota of on-demand vCPUs on Fargate (AWS: 6 in a new account).
        fargate_spot_vcpus: Quota of Spot vCPUs on Fargate (AWS: 6 in a new account).
        ec2_vcpus: Quota of on-demand vCPUs on EC2, of each kind (AWS: 5 in a new account, 0 of types with GPUs).
        ec2_spot_vcpus: Quota of Spot vCPUs on EC2, of each kind (AWS: as above).
    """

    folder: str = ""
    region: str = "us-east-1"
    account: str = "123456789012"
    runtime: RuntimeName = "process"
    podman: str = "podman --runtime runc"
    registry: str = ""
    pull_s: float = 0.0
    interruption_s: float = 2.0
    max_stop_timeout_s: float = 120.0
    host_join_s: float = 0.2
    scale_in_s: float = 2.0
    enforce_iam: bool = True
    rates: float = 1.0
    fargate_vcpus: float = 4000.0
    fargate_spot_vcpus: float = 4000.0
    ec2_vcpus: float = 4000.0
    ec2_spot_vcpus: float = 4000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """One ECS task, as the simulator knows it.

    Attributes:
        task_id: 32 hexadecimal digits.
        task_arn: Its name in AWS.
        cluster: The name of its cluster.
        definition: ``family:revision``.
        last_status: PROVISIONING, PENDING, RUNNING … STOPPED.
        desired_status: RUNNING or STOPPED.
        stop_code: Such as SpotInterruption; empty while it runs.
        stopped_reason: In AWS's words; empty while it runs.
        exit_code: Of its first container; None if that never ran or still does.
        capacity_provider: Empty if it was started by launch type.
        launch_type: FARGATE or EC2.
        zone: Its availability zone.
        started_by: What RunTask said.
        tags: Its tags.
        pid: The process on this machine; None before and after.
        host: The EC2 instance that it runs on; empty on Fargate.
        cpu: vCPU units, 1024 for one.
        memory_mib: Its memory.
        created_at: Seconds since 1970.
        started_at: Seconds since 1970; None before.
        stopped_at: Seconds since 1970; None before.
    """

    task_id: str
    task_arn: str
    cluster: str
    definition: str
    last_status: str
    desired_status: str
    stop_code: str
    stopped_reason: str
    exit_code: int | None
    capacity_provider: str
    launch_type: str
    zone: str
    started_by: str
    tags: dict[str, str]
    pid: int | None
    host: str
    cpu: int
    memory_mib: int
    created_at: float
    started_at: float | None
    stopped_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """One EC2 instance that belongs to an ECS cluster.

    Attributes:
        instance_id: ``i-…``.
        instance_type: Such as c7g.xlarge.
        architecture: x86_64 or arm64.
        zone: Its availability zone.
        state: pending (has not joined), running, draining or terminated.
        cluster: The name of its cluster; empty before it joined.
        capacity_provider: Empty if it belongs to none.
        spot: Whether Spot can take it back.
        cpu: vCPU units that tasks may use.
        memory_mib: Memory that tasks may use.
        gpus: GPUs that tasks may use.
        free_cpu: What is left of ``cpu``.
        free_memory_mib: What is left of ``memory_mib``.
        tasks: Ids of the tasks on it.
    """

    instance_id: str
    instance_type: str
    architecture: str
    zone: str
    state: str
    cluster: str
    capacity_provider: str
    spot: bool
    cpu: int
    memory_mib: int
    gpus: int
    free_cpu: int
    free_memory_mib: int
    tasks: list[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry of ``failures`` in the answer of RunTask."""

    reason: str
    detail: str = ""
    arn: str = ""


class Placer(Protocol):
    """Finds hosts for tasks of the launch type EC2 and of capacity providers with an Auto Scaling group."""

    def place(self, task: Task) -> Failure | Literal["placed", "waiting"]:
        """Take room on a host for a new task, under the world's lock.

        Sets ``task.container_instance_arn``, ``task.host`` and ``task.zone`` when placed. A task that waits
        is PROVISIONING until the placer calls ``world.lifecycle.begin(task)``.
        """
        ...

    def release(self, task: Task) -> None:
        """A task has ended (or gave up waiting): its room is free."""
        ...


@dataclass(slots=True)
class World:
    """All state of one simulated account; every access is under ``lock``.

    Requests to moto run under the lock, so that moto's models change only by one request, or one callback of
    ours, at a time.

    Attributes:
        options: How the account behaves.
        folder: Where everything of this run goes.
        lock: Held by whoever reads or changes state; reentrant.
        timers: Runs callbacks later, on one thread.
        front: The HTTP face of the control plane: its filters see each request before moto.
        control: The HTTP server for what is beside AWS's API: metadata, credentials, verbs.
        scripts: Failures to show.
        launch_rates: How many tasks Fargate starts per second.
        runtime: Starts and ends containers.
        lifecycle: Moves tasks through their states.
        placer: Finds hosts; None while there is no EC2.
        tasks: Every task, by id, those that ended too.
        quotas: (service code, quota code) → value.
        calls: Requests by ``service.Operation``.
        throttled: Requests that were answered ThrottlingException, by ``service.Operation``.
        endpoint: Address of the control plane.
        s3_endpoint: Address of S3.
        seaweed_endpoint: Address of the object store behind it.
        credentials_for: The keys that a task gets for its role: access key, secret, token.
        at_exit: Called, last first, when the simulator ends.
    """

    options: SimOptions
    folder: Path
    lock: threading.RLock = field(default_factory=threading.RLock)
    timers: Timers = field(init=False)
    front: Front = field(init=False)
    control: Control = field(init=False)
    scripts: Scripts = field(init=False)
    launch_rates: LaunchRates = field(init=False)
    runtime: Runtime = field(init=False)
    lifecycle: Lifecycle = field(init=False)
    placer: Placer | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    quotas: dict[tuple[str, str], float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    endpoint: str = ""
    s3_endpoint: str = ""
    seaweed_endpoint: str = ""
    credentials_for: Callable[[str], tuple[str, str, str]] = lambda _role: (ACCESS_KEY, SECRET_KEY, "token")
    at_exit: list[Callable[[], None]] = field(default_factory=list)
