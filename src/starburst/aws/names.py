"""What we call our resources (DESIGN.md, "Names in AWS"), and the tags by which they are found again."""

from __future__ import annotations

__all__ = [
    "BUILDS_PREFIX",
    "BUILD_PROJECT",
    "BUILD_ROLE",
    "BUILD_STREAM",
    "CLUSTER",
    "CONTAINER",
    "EXECUTION_ROLE",
    "INSTANCE_PROFILE",
    "INSTANCE_ROLE",
    "LOG_GROUP",
    "LOG_RETENTION_DAYS",
    "MANAGED_TAG",
    "OURS_FILTER",
    "OWNER_TAG",
    "REPOSITORY",
    "SECURITY_GROUP",
    "SESSION_TAG",
    "STREAM_PREFIX",
    "SUPERVISOR_FAMILY",
    "SUPERVISOR_ROLE",
    "TASK_ROLE",
    "VPC_NAME",
    "WORKER_FAMILY",
    "bucket_name",
    "capacity_provider_name",
]

CLUSTER = "starburst-cluster"
REPOSITORY = "starburst-worker"
LOG_GROUP = "/aws/ecs/starburst-worker"
LOG_RETENTION_DAYS = 7
STREAM_PREFIX = "starburst"
CONTAINER = "worker"
WORKER_FAMILY = "starburst-worker"
SUPERVISOR_FAMILY = "starburst-supervisor"

BUILD_PROJECT = "starburst-build"
BUILD_STREAM = "build"
BUILDS_PREFIX = "builds/"
"""Where in the bucket the sources of remote builds are, while they run."""

BUILD_ROLE = "starburstCodeBuildRole"
EXECUTION_ROLE = "starburstECSExecutionRole"
TASK_ROLE = "starburstECSTaskRole"
SUPERVISOR_ROLE = "starburstSupervisorRole"
INSTANCE_ROLE = "starburstECSInstanceRole"
INSTANCE_PROFILE = "starburstECSInstanceProfile"
SECURITY_GROUP = "starburst-worker"
VPC_NAME = "starburst"

MANAGED_TAG = "starburst:managed"
"""On everything that we make; its value is always ``true``."""
OURS_FILTER = {"Name": f"tag:{MANAGED_TAG}", "Values": ["true"]}
"""By which EC2 and Auto Scaling list what carries it."""
SESSION_TAG = "starburst:session"
OWNER_TAG = "starburst:owner"


def bucket_name(account: str, region: str) -> str:
    """The bucket, unless the user names one."""
    return f"starburst-{account}-{region}"


def capacity_provider_name(instance_types: tuple[str, ...], *, spot: bool) -> str:
    """The capacity provider of one set of instance types.

    A set of several is named by its first type and a hash of all, in the order given, which is their preference.
    """
    import hashlib

    name = f"starburst-{instance_types[0].replace('.', '-')}"
    if len(instance_types) > 1:
        name += f"-{hashlib.sha256(' '.join(instance_types).encode()).hexdigest()[:8]}"
    return f"{name}-spot" if spot else name
