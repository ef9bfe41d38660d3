"""Environment variables: what moto reads when it is imported, what clients need, what tasks get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from starburst.testing.aws.world import ACCESS_KEY, SECRET_KEY, SimOptions, World

if TYPE_CHECKING:
    from starburst.testing.aws.tasks import Container, Task

__all__ = ["TOKEN_FILE", "for_clients", "for_container", "prepare"]

TOKEN_FILE = "container-token"  # noqa: S105 - a name


def prepare(options: SimOptions) -> None:
    """Set up the simulator's own process; before moto is imported."""
    for name in [each for each in os.environ if each.startswith(("AWS_", "MOTO_"))]:
        del os.environ[name]
    os.environ["MOTO_ACCOUNT_ID"] = options.account
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"


def for_clients(options: SimOptions, *, endpoint: str, s3_endpoint: str) -> dict[str, str]:
    """What a process needs in order to use the simulated account, and nothing of the user's own settings."""
    nowhere = str(Path(options.folder) / "no-such-file")
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": options.region,
        "AWS_DEFAULT_REGION": options.region,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        # What `starburst setup` writes down about this account must not meet the user's own settings.
        "STARBURST_CONFIG_DIR": str(Path(options.folder) / "settings"),
    }


def for_container(world: World, task: Task, container: Container) -> dict[str, str]:
    """The variables of a container: its definition's, then what ECS and the simulated account add."""
    control = world.control.endpoint
    values = {each["name"]: each.get("value", "") for each in container.definition.get("environment") or []}
    values |= {
        "AWS_ENDPOINT_URL": world.endpoint,
        "AWS_ENDPOINT_URL_S3": world.s3_endpoint,
        "AWS_REGION": task.region,
        "AWS_DEFAULT_REGION": task.region,
        "AWS_EXECUTION_ENV": f"AWS_ECS_{task.launch_type}",
        "ECS_CONTAINER_METADATA_URI_V4": f"{control}/v4/{container.runtime_id}",
        "ECS_AGENT_URI": f"{control}/agent/{container.runtime_id}",
    }
    if task.launch_type == "FARGATE":
        values["AWS_EC2_METADATA_DISABLED"] = "true"
    if task.task_role:
        # In AWS it is a path on 169.254.170.2; SDKs accept loopback as well, but only as a whole address.
        values["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{control}/creds/{task.id}"
        if world.options.runtime != "podman":  # obstore takes a whole address only together with a token
            values["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(world.folder / TOKEN_FILE)
    return values | task.environment
