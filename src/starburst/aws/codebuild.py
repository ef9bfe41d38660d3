"""Remote builds: a project of CodeBuild that is made only on request, and its builds.

The project says nothing of what is built: each build brings its source with a buildspec, its architecture and its
variables. One project therefore does for both architectures and for every version of starburst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import BUILD_PROJECT, BUILD_ROLE, BUILD_STREAM, BUILDS_PREFIX, LOG_GROUP
from starburst.aws.resource import MISSING, Scope, State, is_ours, make_sure_ours
from starburst.aws.waiting import wait_until
from starburst.clock import Clock
from starburst.errors import CloudError, CloudUnavailable, NotSetUp

__all__ = ["Build", "BuildProject", "build_log", "look_at_build", "start_build", "stop_build"]

_TIMEOUT_MINUTES = 60
_QUEUED_MINUTES = 30
_ROLE_SEEN_WITHIN_S = 60.0
_ENVIRONMENTS = {
    "X86_64": {
        "type": "LINUX_CONTAINER",
        "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
        "computeType": "BUILD_GENERAL1_SMALL",
        "privilegedMode": True,  # Docker runs in it
    },
    "ARM64": {
        "type": "ARM_CONTAINER",
        "image": "aws/codebuild/amazonlinux-aarch64-standard:3.0",
        "computeType": "BUILD_GENERAL1_SMALL",
        "privilegedMode": True,
    },
}


@dataclass(frozen=True, slots=True)
class BuildProject:
    """Our project.

    Attributes:
        aws: Whose account.
        scope: Its region, and the bucket that sources come from.
        clock: What waits are measured by.
    """

    aws: Aws
    scope: Scope
    clock: Clock
    kind = "build project"

    @property
    def name(self) -> str:
        """The project's name."""
        return BUILD_PROJECT

    @property
    def way_out(self) -> str:
        """Its name is fixed."""
        return (
            "rename it, or hand it over (`starburst teardown` then removes it): aws codebuild update-project "
            f"--name {BUILD_PROJECT} --tags key=starburst:managed,value=true"
        )

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        answer = await self.aws.call("codebuild", "batch_get_projects", names=[BUILD_PROJECT])
        if not answer["projects"]:
            return MISSING
        found = answer["projects"][0]
        if not is_ours(found.get("tags")):
            return State("foreign")
        wanted = self._wanted()
        return State.of(
            [f"its {name} differs" for name in wanted if not _agrees(found.get(name), wanted[name])]
        )

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`; the role has to be there."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "ours":
            return
        missing = state.condition == "missing"
        parameters = {"name": BUILD_PROJECT, **self._wanted(), "tags": self.scope.tag_list(lower=True)}
        refused: CloudError | None = None

        async def done() -> bool:
            nonlocal refused
            try:
                await self.aws.call(
                    "codebuild", "create_project" if missing else "update_project", **parameters
                )
            except CloudError as error:
                # A role that was just made is not known everywhere at once.
                if error.code != "InvalidInputException" or "AssumeRole" not in error.message:
                    raise
                refused = error
                return False
            return True

        try:
            await wait_until(
                done,
                clock=self.clock,
                timeout_s=_ROLE_SEEN_WITHIN_S,
                what=f"the role {BUILD_ROLE} to be known",
            )
        except CloudUnavailable as error:
            raise (refused or error) from error

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Resource.remove`; with the records of its builds."""
        if not (await self.state()).is_ours:
            return False
        await self.aws.call("codebuild", "delete_project", name=BUILD_PROJECT)
        return True

    def _wanted(self) -> dict[str, Any]:
        return {
            "description": "Builds images of workers with system packages; made by starburst setup",
            "source": {"type": "S3", "location": f"{self.scope.bucket}/{BUILDS_PREFIX}source.zip"},
            "artifacts": {"type": "NO_ARTIFACTS"},
            "environment": _ENVIRONMENTS["X86_64"],
            "serviceRole": self.scope.role_arn(BUILD_ROLE),
            "timeoutInMinutes": _TIMEOUT_MINUTES,
            "queuedTimeoutInMinutes": _QUEUED_MINUTES,
            "logsConfig": {
                "cloudWatchLogs": {"status": "ENABLED", "groupName": LOG_GROUP, "streamName": BUILD_STREAM}
            },
        }


@dataclass(frozen=True, slots=True)
class Build:
    """How a build is.

    Attributes:
        status: ``IN_PROGRESS``, ``SUCCEEDED``, ``FAILED``, ``FAULT``, ``TIMED_OUT`` or ``STOPPED``.
        phase: What it does, or where it ended, such as ``PROVISIONING``.
        reason: What AWS says about a phase that failed.
        log_group: Where its output is; empty before there is any.
        log_stream: The stream there.
    """

    status: str
    phase: str = ""
    reason: str = ""
    log_group: str = ""
    log_stream: str = ""


async def start_build(aws: Aws, *, location: str, architecture: str, variables: Mapping[str, str]) -> str:
    """Start a build; returns its id.

    Args:
        aws: The account and region.
        location: ``bucket/key`` of the zip with source and buildspec.
        architecture: ``X86_64`` or ``ARM64``; it runs on a processor of that kind, nothing is emulated.
        variables: For the buildspec.

    Raises:
        NotSetUp: There is no project.
        CloudError: AWS did not do it.
    """
    environment = _ENVIRONMENTS[architecture]
    try:
        answer = await aws.call(
            "codebuild",
            "start_build",
            projectName=BUILD_PROJECT,
            sourceTypeOverride="S3",
            sourceLocationOverride=location,
            environmentTypeOverride=environment["type"],
            imageOverride=environment["image"],
            computeTypeOverride=environment["computeType"],
            environmentVariablesOverride=[
                {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
            ],
        )
    except CloudError as error:
        if error.code == "ResourceNotFoundException":
            raise NotSetUp(
                f"there is no CodeBuild project {BUILD_PROJECT} in {aws.region} that could build the image",
                hint=f"starburst setup --remote-build --region {aws.region}",
                code=error.code,
                operation=error.operation,
            ) from error
        if error.code == "AccountLimitExceededException":
            error.hint = "new accounts may run no builds: AWS console → Service Quotas → CodeBuild"
        raise
    return str(answer["build"]["id"])


async def look_at_build(aws: Aws, build_id: str) -> Build:
    """How a build is.

    Raises:
        CloudError: AWS did not answer, or knows no such build.
    """
    answer = await aws.call("codebuild", "batch_get_builds", ids=[build_id])
    if not answer["builds"]:
        raise CloudError(f"AWS has no build {build_id}", operation="codebuild:BatchGetBuilds")
    found = answer["builds"][0]
    bad = [phase for phase in found.get("phases", ()) if phase.get("phaseStatus") not in (None, "SUCCEEDED")]
    said = [context.get("message", "") for phase in bad for context in phase.get("contexts") or ()]
    logs = found.get("logs") or {}
    return Build(
        status=found["buildStatus"],
        phase=bad[0]["phaseType"] if bad else found.get("currentPhase", ""),
        reason="; ".join(dict.fromkeys(text for text in said if text)),
        log_group=logs.get("groupName") or "",
        log_stream=logs.get("streamName") or "",
    )


async def build_log(aws: Aws, build: Build, token: str) -> tuple[list[str], str]:
    """Lines of a build that came since; returns them and the token for the next call. The first token is empty.

    Raises:
        CloudError: AWS did not answer.
    """
    if not build.log_stream:
        return [], token
    lines: list[str] = []
    while True:
        try:
            answer = await aws.call(
                "logs",
                "get_log_events",
                logGroupName=build.log_group,
                logStreamName=build.log_stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
        except CloudError as error:
            if error.code != "ResourceNotFoundException":  # there is no line yet
                raise
            return lines, token
        lines += [line for event in answer["events"] for line in event["message"].splitlines()]
        if answer["nextForwardToken"] == token or not answer["events"]:
            return lines, answer["nextForwardToken"]
        token = answer["nextForwardToken"]


async def stop_build(aws: Aws, build_id: str) -> None:
    """End a build.

    Raises:
        CloudError: AWS did not do it.
    """
    await aws.call("codebuild", "stop_build", id=build_id)


def _agrees(found: Any, wanted: Any) -> bool:
    """Whether what is there says all that is wanted; AWS adds defaults of its own."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _agrees(found.get(name), value) for name, value in wanted.items()
        )
    return bool(found == wanted)
