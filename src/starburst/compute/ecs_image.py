"""The image that workers on ECS run: one that is named, or one that is built of the program's own packages."""

from __future__ import annotations

import base64
import logging
import sys
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment
from starburst.aws.images import Image, find_image
from starburst.aws.instance_types import Architecture
from starburst.compute.base import PlaceEnvironment
from starburst.environment.base_images import Base
from starburst.environment.dockerfile import Recipe
from starburst.environment.finding import script_folder
from starburst.environment.platforms import Platform
from starburst.environment.registry import Registry
from starburst.environment.remote_build import build_remotely
from starburst.environment.settings import project_lock, project_settings
from starburst.environment.steps import Steps, logged
from starburst.environment.worker_image import Home, worker_image
from starburst.options import Options

__all__ = ["WorkersImage", "image_home", "workers_image"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkersImage:
    """What workers run.

    Attributes:
        image: The image.
        environment: What is known of its packages.
    """

    image: Image
    environment: PlaceEnvironment = field(default_factory=PlaceEnvironment)


async def workers_image(
    aws: Aws, deployment: Deployment, options: Options, architecture: str | None
) -> WorkersImage:
    """Have the image that is asked for, or one with the packages of this program.

    Args:
        aws: The account and region.
        deployment: What is set up there.
        options: May name an image, or where the packages are listed.
        architecture: What it runs on; None for that of a named image, or x86-64.

    Raises:
        NotSetUp: A named image is not there.
        EnvironmentBuildError: The packages cannot be had for the workers' platform, or the image not be pushed.
        CloudError: AWS did not do it.
    """
    named = options.image or deployment.image
    if named:
        return WorkersImage(await find_image(aws, named))
    folder = script_folder(sys.modules.get("__main__"))
    settings = project_settings(folder)
    platform = Platform(f"{sys.version_info.major}.{sys.version_info.minor}", _architecture(architecture))
    with logged(log) as steps:
        lock = await project_lock(folder, settings, platform, steps, choice=options.environment)
        built = await worker_image(lock, settings, await image_home(aws, deployment, steps), steps)
    return WorkersImage(
        Image(built.reference, frozenset({platform.architecture})),
        PlaceEnvironment.of(lock),
    )


def _architecture(wanted: str | None) -> Architecture:
    return "ARM64" if wanted == "ARM64" else "X86_64"


async def image_home(aws: Aws, deployment: Deployment, steps: Steps) -> Home:
    """The set-up's repository, with a token of ECR's, which is good for twelve hours.

    Source: Amazon ECR API Reference, GetAuthorizationToken.
    """
    answer = await aws.call("ecr", "get_authorization_token")
    [login] = answer["authorizationData"]
    user, _, password = base64.b64decode(login["authorizationToken"]).decode().partition(":")
    endpoint = urlsplit(login["proxyEndpoint"])
    registry = Registry(
        endpoint.netloc, username=user, password=password, insecure_http=endpoint.scheme == "http"
    )
    repository = deployment.repository.partition("/")[2]

    async def remotely(recipe: Recipe, anew: bool) -> Base:
        return await build_remotely(recipe, aws, deployment, registry, repository, steps=steps, anew=anew)

    return Home(registry, repository, deployment.repository, remotely)
