"""What ``starburst setup`` made in a region, as the user's settings keep it: names and addresses, never a key."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from starburst.config import config_path, write_settings
from starburst.errors import ConfigError, NotSetUp

__all__ = [
    "Deployment",
    "deployment_of",
    "deployment_path",
    "forget_deployment",
    "load_deployments",
    "save_deployment",
]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The account's resources in one region that sessions use.

    Attributes:
        account: The account's twelve digits.
        region: The region.
        bucket: The bucket that sessions are in, unless ``store=`` names another place.
        cluster: The ECS cluster.
        repository: URI of the image repository.
        execution_role_arn: What ECS uses to pull the image and write logs.
        task_role_arn: What workers may do: objects in the bucket.
        supervisor_role_arn: What a supervisor may do: the same, and tasks of the cluster.
        instance_profile_arn: For EC2 hosts; empty if set up for Fargate only.
        log_group: Where workers' output goes.
        subnets: Where workers run.
        security_groups: Of workers.
        assign_public_ip: Workers reach AWS by a public address of their own (no NAT or endpoints needed).
        profile: The AWS profile that it was set up with, or None.
        image: The worker image, where the user names one.
        build_project: The CodeBuild project for images, where remote builds were asked for; else empty.
    """

    account: str
    region: str
    bucket: str
    cluster: str
    repository: str
    execution_role_arn: str
    task_role_arn: str
    supervisor_role_arn: str
    log_group: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    instance_profile_arn: str = ""
    assign_public_ip: bool = True
    profile: str | None = None
    image: str | None = None
    build_project: str = ""

    @property
    def usual_profile(self) -> str | None:
        """The profile to use it with unless one is named; None for that of the environment."""
        return None if os.environ.get("AWS_PROFILE") else self.profile


def deployment_path(region: str) -> Path:
    """The file of one region."""
    return config_path().parent / "aws" / f"{region}.toml"


def save_deployment(deployment: Deployment) -> Path:
    """Write it to the user's settings, at once or not at all; returns the file.

    Raises:
        ConfigError: It cannot be written.
    """
    path = deployment_path(deployment.region)
    lines = ["# Written by `starburst setup`; `starburst teardown` removes it."]
    lines += [
        f"{name} = {msgspec.json.encode(value).decode()}"
        for name, value in msgspec.structs.asdict(deployment).items()
        if value is not None
    ]
    write_settings(path, "\n".join(lines) + "\n")
    return path


def load_deployments() -> list[Deployment]:
    """Those of all regions, sorted by region; empty before the first ``starburst setup``.

    Raises:
        ConfigError: A file cannot be read or holds something else.
    """
    folder = deployment_path("any").parent
    return [_read(path) for path in sorted(folder.glob("*.toml"))] if folder.is_dir() else []


def deployment_of(region: str | None = None) -> Deployment:
    """The one of a region; without a region, the only one there is.

    Raises:
        NotSetUp: There is none, or there are several and none is named.
        ConfigError: As :func:`load_deployments`.
    """
    known = load_deployments()
    found = [one for one in known if region in (None, one.region)]
    if len(found) == 1:
        return found[0]
    if found:
        regions = ", ".join(one.region for one in found)
        raise NotSetUp(
            f"starburst is set up in several regions ({regions}), and none is named",
            hint=f'region="{found[0].region}", or: starburst config set region {found[0].region}',
        )
    where = f" in {region}" if region else ""
    others = f"; it is in {', '.join(one.region for one in known)}" if known else ""
    raise NotSetUp(
        f"this account is not set up for starburst{where}{others}",
        hint=f"starburst setup --region {region}" if region else "starburst setup",
    )


def forget_deployment(region: str) -> None:
    """Remove it from the user's settings; fine if it is not there."""
    deployment_path(region).unlink(missing_ok=True)


def _read(path: Path) -> Deployment:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        return msgspec.convert(values, Deployment)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the settings file {path} cannot be read: {error}",
            hint="`starburst setup` writes it anew; nothing in the account is lost",
        ) from error
