"""The workers' environment of a project: what is in it, whether it is built, and building it before it is needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment, deployment_of
from starburst.compute.ecs_image import image_home
from starburst.config import load_settings
from starburst.environment.code import CodeTree, collect
from starburst.environment.code_roots import find_roots
from starburst.environment.lock import Lock
from starburst.environment.platforms import Architecture, Platform
from starburst.environment.preflight import Missing, missing, needed_by_modules, needed_by_script
from starburst.environment.settings import ProjectSettings, project_lock, project_settings
from starburst.environment.steps import Steps
from starburst.environment.worker_image import look_up, worker_image
from starburst.errors import NotSetUp, OptionError
from starburst.ops.choices import open_aws

__all__ = [
    "EnvironmentView",
    "PackageView",
    "Project",
    "build_environment",
    "check_environment",
    "open_deployment",
    "view_of",
]


class PackageView(msgspec.Struct, frozen=True):
    """One package.

    Attributes:
        name: As indexes spell it.
        version: Exact; empty where only building it would tell.
        source: Where it comes from; empty for an index.
    """

    name: str
    version: str
    source: str = ""


class EnvironmentView(msgspec.Struct, frozen=True, kw_only=True):
    """What workers get.

    Attributes:
        folder: The project's.
        source: Where the list comes from: ``uv.lock``, ``installed``, …
        python: Minor version.
        architecture: ``X86_64`` or ``ARM64``.
        lock: The list's hash.
        packages: What is in the image.
        editables: Folders whose code travels with each submission instead.
        tag: The image's tag; None if nobody has looked, or what the packages are put on is not built yet.
        digest: The image's digest; None if it is not in the registry.
        reference: What tasks name; None likewise.
        named: The image that is set (``image``, ``starburst setup --image``): workers run it, not this one.
        built: Whether it was built just now.
    """

    folder: str
    source: str
    python: str
    architecture: str
    lock: str
    packages: tuple[PackageView, ...]
    editables: tuple[str, ...] = ()
    tag: str | None = None
    digest: str | None = None
    reference: str | None = None
    named: str | None = None
    built: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """A script's folder, and how its environment is meant.

    Attributes:
        folder: The folder.
        settings: ``[tool.starburst]`` of the project around it.
        platform: What workers run on.
        choice: The option ``environment``.
    """

    folder: Path
    settings: ProjectSettings
    platform: Platform
    choice: str | None

    @classmethod
    def of(
        cls, folder: Path | None = None, *, architecture: str | None = None, environment: str | None = None
    ) -> Project:
        """Read the settings; what is not given is as set.

        Args:
            folder: Of the script; None for the current one.
            architecture: ``X86_64`` or ``ARM64``.
            environment: A lock file, or ``installed``.

        Raises:
            OptionError: There is no such folder or architecture.
            ConfigError: The settings are wrong.
        """
        place = (folder or Path.cwd()).resolve()
        place = place.parent if place.is_file() else place
        if not place.is_dir():
            raise OptionError(
                f"there is no folder {place}", hint="name the folder of the script, or the script"
            )
        stored = load_settings()
        settings = project_settings(place)
        platform = Platform(
            f"{sys.version_info.major}.{sys.version_info.minor}",
            _architecture(architecture or stored.architecture),
        )
        return cls(place, settings, platform, environment or stored.environment)

    async def lock(self, steps: Steps, *, refresh: bool = False) -> Lock:
        """Its list of packages.

        Raises:
            OptionError: There is no such file, or several that could be meant.
            EnvironmentBuildError: It cannot be read or resolved.
        """
        return await project_lock(
            self.folder, self.settings, self.platform, steps, choice=self.choice, refresh=refresh
        )


async def open_deployment(region: str | None, profile: str | None = None) -> tuple[Aws, Deployment]:
    """The account that is set up in a region.

    Raises:
        NotSetUp: None is, or the credentials are of another one.
        CredentialsError: There are no good credentials.
    """
    aws = open_aws(region, profile)
    deployment = deployment_of(aws.region)
    identity = await aws.identity()
    if identity.account != deployment.account:
        raise NotSetUp(
            f"the credentials are of account {identity.account}, but starburst is set up in {aws.region} for "
            f"account {deployment.account}",
            hint=f"set AWS_PROFILE to one of that account, or: starburst setup --region {aws.region}",
        )
    return aws, deployment


async def build_environment(
    project: Project, aws: Aws, deployment: Deployment, steps: Steps, *, anew: bool = False
) -> EnvironmentView:
    """Do what the first ``map`` would do: have the image in the registry.

    Args:
        project: Whose.
        aws: The account.
        deployment: What is set up there.
        steps: Gets the steps.
        anew: Resolve and build it though it is there; the tag then stands for the new image, and sessions that are
            open keep the old one, which they name by its digest.

    Raises:
        EnvironmentBuildError: It cannot be built or pushed.
        CloudError: AWS did not do it.
    """
    lock = await project.lock(steps, refresh=anew)
    home = await image_home(aws, deployment, steps)
    built = await worker_image(lock, project.settings, home, steps, rebuild=anew)
    digest = built.reference.partition("@")[2]
    return _view(
        project,
        lock,
        deployment,
        tag=built.tag,
        digest=digest,
        reference=built.reference,
        built=built.pushed is not None,
    )


async def view_of(
    project: Project, steps: Steps, *, aws: Aws | None = None, deployment: Deployment | None = None
) -> EnvironmentView:
    """What workers would get; builds nothing. Without an account only the list is known.

    Raises:
        EnvironmentBuildError: The list cannot be made, or the registry does not answer.
        CloudError: AWS did not answer.
    """
    lock = await project.lock(steps)
    if aws is None or deployment is None:
        return _view(project, lock, deployment)
    home = await image_home(aws, deployment, steps)
    with steps("look up"):
        tag, digest = await look_up(lock, project.settings, home)
    reference = f"{home.uri}@{digest}" if digest else None
    return _view(project, lock, deployment, tag=tag, digest=digest, reference=reference)


async def check_environment(project: Project, scripts: Sequence[Path], steps: Steps) -> list[Missing]:
    """Modules that tasks would need and workers not have, with the fix; starts nothing and asks no cloud.

    Args:
        project: Whose environment.
        scripts: Scripts whose functions are looked at; none: all scripts in the folder, or else its packages.
        steps: Gets the step ``lock``.

    Raises:
        EnvironmentBuildError: A script cannot be read, or the list not be made.
    """
    lock = await project.lock(steps)
    # The first entry is the folder of the command, not the user's.
    path = [str(project.folder), *sys.path[1:]]
    tree = collect(find_roots(path=path, modules={}, editable=lock.editables))
    found = list(scripts) or sorted(project.folder.glob("*.py"))
    if found:
        needed = {name for script in found for name in needed_by_script(script, tree)}
    else:
        needed = needed_by_modules(_modules(tree), tree)
    return missing(needed, lock.versions, tree, how_to_add=lock.how_to_add)


def _modules(tree: CodeTree) -> set[str]:
    """All modules of the code."""
    names = (file.name.partition("/")[2] for file in tree.files if file.name.endswith(".py"))
    return {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names}


def _view(
    project: Project,
    lock: Lock,
    deployment: Deployment | None,
    *,
    tag: str | None = None,
    digest: str | None = None,
    reference: str | None = None,
    built: bool = False,
) -> EnvironmentView:
    return EnvironmentView(
        folder=str(project.settings.folder),
        source=lock.source_name,
        python=lock.platform.python,
        architecture=lock.platform.architecture,
        lock=lock.sha256,
        packages=tuple(PackageView(each.name, each.version, each.source) for each in lock.requirements),
        editables=tuple(str(each) for each in lock.editables),
        tag=tag,
        digest=digest,
        reference=reference,
        named=load_settings().image or (deployment.image if deployment else None),
        built=built,
    )


def _architecture(wanted: str | None) -> Architecture:
    if wanted in (None, "X86_64"):
        return "X86_64"
    if wanted == "ARM64":
        return "ARM64"
    raise OptionError(f"architecture={wanted!r} is not known", hint="X86_64 or ARM64")
