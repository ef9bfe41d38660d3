"""From options to a place on AWS: everything is checked here, before anything is launched."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any, Literal

from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment, deployment_of, load_deployments
from starburst.aws.images import Image
from starburst.aws.instance_types import Architecture
from starburst.compute.base import PlaceEnvironment
from starburst.compute.ecs_image import workers_image
from starburst.compute.ecs_place import EcsPlace
from starburst.compute.fargate_sizes import fargate_size
from starburst.config import load_settings
from starburst.errors import CloudError, NotSetUp, OptionError, PermissionDenied
from starburst.options import Options, parse_memory_bytes

__all__ = [
    "Target",
    "architecture_of",
    "aws_for",
    "choose_deployment",
    "place_of",
    "prepare_fargate",
    "target_of",
]


@dataclass(frozen=True, slots=True)
class Target:
    """The account and region that a session goes to.

    Attributes:
        aws: How to call it.
        deployment: What ``starburst setup`` made there.
        owner: Whose credentials are used, as a tag may say it.
        zones: The zone of each subnet.
    """

    aws: Aws
    deployment: Deployment
    owner: str
    zones: tuple[str, ...]


def choose_deployment(region: str | None) -> Deployment:
    """The deployment of a region; without one, that of the environment's region if there is one, or the only one.

    Raises:
        NotSetUp: There is none.
    """
    if region is None:
        usual = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if usual in [one.region for one in load_deployments()]:
            region = usual
    return deployment_of(region)


def aws_for(region: str, profile: str | None = None) -> Aws:
    """Calls in a region with the profile that is meant for it: given, configured, or that of its set-up."""
    known = [one.usual_profile for one in load_deployments() if one.region == region]
    return Aws(region, profile or load_settings().profile or (known[0] if known else None))


async def target_of(options: Options) -> Target:
    """Find the account, and make sure that it is the one that was set up.

    Raises:
        CredentialsError: There are no good credentials.
        NotSetUp: The region is not set up, or the credentials are of another account.
    """
    deployment = choose_deployment(options.region)
    aws = aws_for(deployment.region, options.profile)
    identity = await aws.identity()
    if identity.account != deployment.account:
        raise NotSetUp(
            f"the credentials are of account {identity.account}, but starburst is set up in {deployment.region} "
            f"for account {deployment.account}",
            hint=f"set AWS_PROFILE to one of that account, or: starburst setup --region {deployment.region}",
        )
    await asyncio.gather(
        _check_cluster(aws, deployment), _check_groups(aws, deployment), _check_log_group(aws, deployment)
    )
    return Target(aws, deployment, identity.owner, await _zones(aws, deployment))


async def prepare_fargate(target: Target, options: Options) -> tuple[EcsPlace, PlaceEnvironment]:
    """The place of Fargate workers.

    Raises:
        OptionError: Fargate has no such size, or the image is for another architecture.
        NotSetUp: The image is not there.
    """
    if options.instance_types:
        raise OptionError(
            f"instance_type={options.instance_type!r} means nothing on Fargate", hint='launch_type="EC2"'
        )
    memory_bytes = parse_memory_bytes("8GB" if options.memory is None else options.memory)
    cpu_units, memory_mib = fargate_size(options.cpu or 4, memory_bytes)
    found = await workers_image(target.aws, target.deployment, options, options.architecture)
    place = place_of(
        target,
        options,
        found.image,
        launch_type="FARGATE",
        architecture=architecture_of(found.image, options.architecture),
        size=(cpu_units, memory_mib),
    )
    return place, found.environment


def place_of(
    target: Target,
    options: Options,
    image: Image,
    *,
    launch_type: Literal["FARGATE", "EC2"],
    architecture: Architecture,
    size: tuple[int, int],
    **more: Any,
) -> EcsPlace:
    """Put the place together.

    Args:
        target: The account and region.
        options: The session's options.
        image: The workers' image.
        launch_type: Where they run.
        architecture: Of what they run on.
        size: CPU units and MiB of a worker.
        **more: Other attributes of :class:`EcsPlace`.
    """
    deployment = target.deployment
    return EcsPlace(
        launch_type=launch_type,
        region=deployment.region,
        account=deployment.account,
        cluster=deployment.cluster,
        subnets=deployment.subnets,
        security_groups=deployment.security_groups,
        assign_public_ip=deployment.assign_public_ip,
        execution_role_arn=deployment.execution_role_arn,
        task_role_arn=deployment.task_role_arn,
        supervisor_role_arn=deployment.supervisor_role_arn,
        log_group=deployment.log_group,
        image=image.reference,
        cpu_units=size[0],
        memory_mib=size[1],
        architecture=architecture,
        spot=options.spot_mode,
        on_demand_base=options.on_demand_base,
        gpus=options.gpus,
        warm_pool_timeout_s=options.seconds("warm_pool_timeout"),
        zones=target.zones,
        owner=target.owner,
        **more,
    )


def architecture_of(image: Image, wanted: str | None) -> Architecture:
    """What to run an image on.

    Raises:
        OptionError: The image is not built for what is wanted.
    """
    known = image.architectures
    if wanted is None:
        return "ARM64" if known == {"ARM64"} else "X86_64"
    if known and wanted not in known:
        raise OptionError(
            f"the image {image.reference} is built for {', '.join(sorted(known))}, not for {wanted}",
            hint="build it for that architecture too, or choose another architecture= or instance_type=",
        )
    return "ARM64" if wanted == "ARM64" else "X86_64"


async def _check_cluster(aws: Aws, deployment: Deployment) -> None:
    answer = await aws.call("ecs", "describe_clusters", clusters=[deployment.cluster])
    if not any(cluster.get("status") == "ACTIVE" for cluster in answer["clusters"]):
        raise _missing(deployment, f"the ECS cluster {deployment.cluster}")


async def _check_groups(aws: Aws, deployment: Deployment) -> None:
    try:
        await aws.call("ec2", "describe_security_groups", GroupIds=list(deployment.security_groups))
    except CloudError as error:
        if error.code not in ("InvalidGroup.NotFound", "InvalidGroupId.Malformed"):
            raise
        groups = ", ".join(deployment.security_groups)
        raise _missing(deployment, f"a security group of {groups}") from error


async def _check_log_group(aws: Aws, deployment: Deployment) -> None:
    """Without it no container starts, and that would be known only after it was tried."""
    try:
        found = await aws.pages(
            "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=deployment.log_group
        )
    except PermissionDenied:
        return  # then it shows when a worker starts
    if deployment.log_group not in [str(group["logGroupName"]) for group in found]:
        raise _missing(deployment, f"the log group {deployment.log_group}")


def _missing(deployment: Deployment, what: str) -> NotSetUp:
    return NotSetUp(
        f"{what} is not there in {deployment.region}",
        hint=f"starburst setup --region {deployment.region}",
    )


async def _zones(aws: Aws, deployment: Deployment) -> tuple[str, ...]:
    """The zone of each subnet."""
    try:
        found = await aws.pages("ec2", "describe_subnets", "Subnets", SubnetIds=list(deployment.subnets))
    except CloudError as error:
        if error.code != "InvalidSubnetID.NotFound":
            raise
        raise NotSetUp(
            f"a subnet in which workers are to run is not there any more: {error.message}",
            hint=f"starburst setup --region {deployment.region}",
        ) from error
    zones = {str(subnet["SubnetId"]): str(subnet["AvailabilityZone"]) for subnet in found}
    return tuple(zones.get(subnet, subnet) for subnet in deployment.subnets)
