"""A base image with system packages, built by AWS CodeBuild: for people without a container engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from starburst.aws.clients import Aws
from starburst.aws.codebuild import Build, build_log, look_at_build, start_build, stop_build
from starburst.aws.deployment import Deployment
from starburst.aws.names import BUILDS_PREFIX
from starburst.clock import Clock, Deadline, SystemClock
from starburst.environment.base_images import Base
from starburst.environment.docker_context import write_zip
from starburst.environment.dockerfile import Recipe
from starburst.environment.engine_build import find_built
from starburst.environment.image_errors import build_failed
from starburst.environment.layers import writing
from starburst.environment.registry import Registry
from starburst.environment.steps import Step, Steps
from starburst.errors import CloudError, EnvironmentBuildError

__all__ = ["build_remotely"]

_TIMEOUT_S = 3600.0
_POLL_S = 2.0
_LAST_LINES_S = 10.0
_LINES_S = 0.5
_BUILDSPEC = {
    "version": 0.2,
    "phases": {
        "build": {
            "commands": [
                "aws ecr get-login-password | docker login --username AWS --password-stdin $STARBURST_REGISTRY",
                "docker build --file Dockerfile --tag $STARBURST_IMAGE context",
                "docker push $STARBURST_IMAGE",
            ]
        }
    },
}
"""JSON is YAML. The commands stop at the first that fails, so that nothing half done is pushed."""


async def build_remotely(
    recipe: Recipe,
    aws: Aws,
    deployment: Deployment,
    registry: Registry,
    repository: str,
    *,
    steps: Steps,
    anew: bool = False,
    clock: Clock | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Base:
    """Have the base image of a recipe in the registry: it is there, or AWS builds and pushes it.

    A build that is cancelled here, or takes too long, is stopped there.

    Args:
        recipe: What is built.
        aws: The account and region.
        deployment: What is set up there.
        registry: The deployment's, as it is reached from here.
        repository: The deployment's repository in it.
        steps: Is told how far it is; gets all that the build prints.
        anew: Build it though it is there.
        clock: What waits are measured by.
        timeout_s: How long the build may take, with the wait for a machine.

    Returns:
        The image, for the workers' packages to be put on.

    Raises:
        EnvironmentBuildError: A step fails, or it takes too long; the message has the last lines.
        NotSetUp: Remote builds are not set up.
        CloudError: AWS did not do it.
    """
    with steps("system") as step:
        tag = await asyncio.to_thread(recipe.tag)
        found = None if anew else await find_built(recipe, tag, registry, repository)
        if found is not None:
            step.cached("it is there")
            return found
        key = f"{BUILDS_PREFIX}{tag}/{uuid.uuid4().hex}.zip"
        try:
            step.say("sent to AWS")
            await _upload(recipe, aws, deployment.bucket, key)
            build_id = await start_build(
                aws,
                location=f"{deployment.bucket}/{key}",
                architecture=recipe.platform.architecture,
                variables={
                    "STARBURST_REGISTRY": deployment.repository.partition("/")[0],
                    "STARBURST_IMAGE": f"{deployment.repository}:{tag}",
                },
            )
            steps.note(f"CodeBuild {build_id}")
            watch = _Watch(
                recipe=recipe,
                aws=aws,
                build_id=build_id,
                steps=steps,
                step=step,
                clock=clock or SystemClock(),
            )
            await watch.run(timeout_s)
        finally:
            # With CodeBuild at an end nobody needs it; where it cannot be removed it does no harm.
            with contextlib.suppress(CloudError):
                await aws.call("s3", "delete_object", Bucket=deployment.bucket, Key=key)
        step.say("built by AWS")
    built = await find_built(recipe, tag, registry, repository)
    if built is None:
        raise EnvironmentBuildError(
            f"CodeBuild says that {deployment.repository}:{tag} was pushed, and it is not in {registry.host}",
            hint="is this the registry of the account that is set up? starburst setup --check",
        )
    return built


@dataclass(slots=True, kw_only=True)
class _Watch:
    """Follows one build to its end."""

    recipe: Recipe
    aws: Aws
    build_id: str
    steps: Steps
    step: Step
    clock: Clock
    lines: list[str] = field(default_factory=list)
    token: str = ""

    async def run(self, timeout_s: float) -> None:
        """Wait for the end; whatever goes wrong here ends the build there.

        Raises:
            EnvironmentBuildError: It failed, or did not end.
            CloudError: AWS did not answer.
        """
        deadline = Deadline(self.clock, timeout_s)
        try:
            build = await look_at_build(self.aws, self.build_id)
            while build.status == "IN_PROGRESS" and not deadline.passed:
                await self._read(build)
                self.step.say(f"AWS: {build.phase.lower().replace('_', ' ')}")
                self.steps.show(self.steps)
                await self.clock.sleep(min(_POLL_S, deadline.remaining_s()))
                build = await look_at_build(self.aws, self.build_id)
        except BaseException:
            await asyncio.shield(self._stop())
            raise
        if build.status == "IN_PROGRESS":
            await self._stop()
            raise self._failed(f"it did not end in {timeout_s:.0f} seconds, and was stopped")
        await self._read_all(build)
        if build.status != "SUCCEEDED":
            raise self._error(build)

    def _error(self, build: Build) -> EnvironmentBuildError:
        if build.status == "FAILED" and build.phase in ("BUILD", "POST_BUILD", "COMPLETED"):
            return build_failed(self.lines, self.recipe, "CodeBuild")
        why = {
            "FAULT": "CodeBuild itself had trouble",
            "TIMED_OUT": "it took longer than its project allows, and AWS ended it",
            "STOPPED": "somebody stopped it",
        }.get(build.status, "it failed")
        return self._failed(
            f"{why}, in the phase {build.phase}" + (f": {build.reason}" if build.reason else "")
        )

    def _failed(self, why: str) -> EnvironmentBuildError:
        last = "".join(f"\n  | {line}" for line in self.lines[-5:])
        return EnvironmentBuildError(
            f"the build {self.build_id} of the image of {self.recipe.source_name} has no result: {why}{last}",
            hint="try again; starburst setup --check tells whether project and role are as they should be",
        )

    async def _read(self, build: Build) -> bool:
        lines, self.token = await build_log(self.aws, build, self.token)
        self.lines += lines
        self.steps.note("\n".join(lines))
        return bool(lines)

    async def _read_all(self, build: Build) -> None:
        """CloudWatch shows lines some seconds after they were printed; the last ones tell why a build failed."""
        deadline = Deadline(self.clock, _LAST_LINES_S)
        while await self._read(build) or (self._lacks_lines(build) and not deadline.passed):
            await self.clock.sleep(_LINES_S)

    def _lacks_lines(self, build: Build) -> bool:
        if build.status != "FAILED" or build.phase != "BUILD":
            return False
        return not any("Phase complete: BUILD" in line for line in self.lines)

    async def _stop(self) -> None:
        with contextlib.suppress(CloudError):
            await stop_build(self.aws, self.build_id)
            self.steps.note(f"the build {self.build_id} was stopped")


async def _upload(recipe: Recipe, aws: Aws, bucket: str, key: str) -> None:
    extra = {"Dockerfile": recipe.text, "buildspec.yml": json.dumps(_BUILDSPEC, indent=1)}
    folder = Path(tempfile.gettempdir())
    with writing(folder), tempfile.TemporaryDirectory(prefix="starburst-build-") as name:
        file = Path(name) / "source.zip"
        await asyncio.to_thread(write_zip, recipe.folder, recipe.ignore, file, extra)
        with file.open("rb") as body:
            await aws.call("s3", "put_object", Bucket=bucket, Key=key, Body=body)
