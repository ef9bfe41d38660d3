"""CodeBuild that builds: the commands of a build run on this machine, with podman in the place of Docker.

What is like AWS: the source is fetched with the rights of the project's role, the buildspec in it is carried out (it
has to be in JSON, and all its commands run in one shell), its lines go to CloudWatch Logs, and it can be stopped. What
is not: the role's rights to ECR and logs are not looked at, there is only this machine's architecture, and ``aws``
knows how to get a password for ECR, and no more. Without a registry (see ``SimOptions``) builds fail and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.front import Call, Refusal
from starburst.testing.aws.runtimes import kept_environment

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["install"]

_ECR = r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com"
_HERE = {"x86_64": "LINUX_CONTAINER", "aarch64": "ARM_CONTAINER"}
_DOCKER = """\
#!{python}
import os, re, sys
verb, *rest = [re.sub({ecr!r}, {registry!r}, each) for each in sys.argv[1:]]
if verb == "login":
    if not sys.stdin.read().strip():
        sys.exit("Error: Password Required")
    print("Login Succeeded", flush=True)
else:
    own = {{"build": ["--network=host", "--layers", "--tls-verify=false"], "push": ["--tls-verify=false"]}}[verb]
    os.execvp({podman!r}[0], [*{podman!r}, verb, *own, *rest])
"""
_AWS = """\
#!/bin/sh
[ "$1 $2" = "ecr get-login-password" ] && echo token && exit 0
echo "the simulator's aws knows only ecr get-login-password" >&2
exit 2
"""


@dataclass(slots=True, eq=False)
class _Build:
    build_id: str
    role: str
    location: str
    environment: str
    variables: dict[str, str]
    group: str
    stream: str
    region: str
    status: str = "IN_PROGRESS"
    phase: str = "SUBMITTED"
    why: str = ""
    process: subprocess.Popen[bytes] | None = None


def install(world: World) -> None:
    """Put the operations on builds before moto's, which run nothing."""
    builds = _Builds(world)
    world.front.operations |= {
        "codebuild:StartBuild": builds.start,
        "codebuild:BatchGetBuilds": builds.describe,
        "codebuild:StopBuild": builds.stop,
        "codebuild:UpdateProject": _update_project,
    }
    world.at_exit.append(builds.end)


def _update_project(call: Call) -> dict[str, Any]:
    project = _project(call, str(call.parameters.get("name")))
    project.project_metadata |= call.parameters
    return {"project": project.project_metadata}


def _project(call: Call, name: str) -> Any:
    from moto.codebuild.models import codebuild_backends

    found = codebuild_backends[call.account][call.region].codebuild_projects.get(name)
    if found is None:
        arn = f"arn:aws:codebuild:{call.region}:{call.account}:project/{name}"
        raise Refusal("ResourceNotFoundException", f"Project cannot be found: {arn}")
    return found


class _Builds:
    """All builds; operations run under the world's lock, builds on threads of their own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._builds: dict[str, _Build] = {}

    def start(self, call: Call) -> dict[str, Any]:
        """Start one. A script of the kind ``fault`` makes it end with trouble of AWS's own."""
        given = call.parameters
        name = str(given.get("projectName"))
        project = _project(call, name).project_metadata
        logs = project.get("logsConfig", {}).get("cloudWatchLogs", {})
        number = str(uuid.uuid4())
        build = _Build(
            build_id=f"{name}:{number}",
            role=project["serviceRole"],
            location=given.get("sourceLocationOverride") or project["source"]["location"],
            environment=given.get("environmentTypeOverride") or project["environment"]["type"],
            variables={each["name"]: each["value"] for each in given.get("environmentVariablesOverride", ())},
            group=logs.get("groupName") or f"/aws/codebuild/{name}",
            stream=f"{logs['streamName']}/{number}" if logs.get("streamName") else number,
            region=call.region,
        )
        self._builds[build.build_id] = build
        if self._world.scripts.take("codebuild:StartBuild", "fault", project=name):
            build.status, build.phase, build.why = "FAULT", "PROVISIONING", "INTERNAL_SERVICE_ERROR: no host"
        else:
            threading.Thread(target=self._run, args=(build,), name="codebuild", daemon=True).start()
        return {"build": _described(build)}

    def describe(self, call: Call) -> dict[str, Any]:
        """How builds are."""
        ids = call.parameters.get("ids", [])
        known = [self._builds[each] for each in ids if each in self._builds]
        return {
            "builds": [_described(each) for each in known],
            "buildsNotFound": [each for each in ids if each not in self._builds],
        }

    def stop(self, call: Call) -> dict[str, Any]:
        """End one."""
        build = self._builds.get(str(call.parameters.get("id")))
        if build is None:
            raise Refusal("ResourceNotFoundException", f"Build {call.parameters.get('id')} does not exist")
        if build.status == "IN_PROGRESS":
            build.status = "STOPPED"
            _kill(build)
        return {"build": _described(build)}

    def end(self) -> None:
        """End all of them, with the simulator."""
        with self._world.lock:
            for build in self._builds.values():
                _kill(build)

    def _run(self, build: _Build) -> None:
        folder = self._world.folder / "builds" / build.build_id.partition(":")[2]
        try:
            self._phase(build, "DOWNLOAD_SOURCE")
            commands = self._fetch(build, folder)
            self._phase(build, "BUILD")
            code = self._carry_out(build, folder, commands)
            self._write(
                build, [f"[Container] Phase complete: BUILD State: {'FAILED' if code else 'SUCCEEDED'}"]
            )
            self._finish(
                build, "FAILED" if code else "SUCCEEDED", f"COMMAND_EXECUTION_ERROR: exit status {code}"
            )
        except Exception as error:  # noqa: BLE001 - as AWS does, a build tells of its own failure
            self._finish(build, "FAILED", f"CLIENT_ERROR: {error}")

    def _fetch(self, build: _Build, folder: Path) -> list[str]:
        import boto3  # type: ignore[import-untyped]

        folder.mkdir(parents=True)
        key, secret, token = self._world.credentials_for(build.role)
        s3 = boto3.client(
            "s3",
            endpoint_url=self._world.s3_endpoint,
            region_name=build.region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
        )
        bucket, _, name = build.location.partition("/")
        s3.download_file(bucket, name, str(folder / "source.zip"))
        source = folder / "src"
        with zipfile.ZipFile(folder / "source.zip") as archive:
            archive.extractall(source)
            for entry in archive.infolist():
                path, mode = source / entry.filename, entry.external_attr >> 16
                if mode & 0o170000 == 0o120000:
                    target = path.read_text()
                    path.unlink()
                    path.symlink_to(target)
                elif mode:
                    path.chmod(mode & 0o777)
        phases = json.loads((source / "buildspec.yml").read_text())["phases"]
        order = ("install", "pre_build", "build", "post_build")
        return [command for phase in order for command in phases.get(phase, {}).get("commands", ())]

    def _carry_out(self, build: _Build, folder: Path, commands: list[str]) -> int:
        registry = self._world.options.registry
        if not registry:
            self._write(
                build, ["the simulator builds nothing without a registry: SimulatedAws(registry=...)"]
            )
            return 1
        if build.environment != _HERE.get(platform.machine()):
            self._write(build, [f"the simulator has no machine for {build.environment}"])
            return 1
        dockerfile = folder / "src" / "Dockerfile"
        dockerfile.write_text(re.sub(_ECR, registry, dockerfile.read_text()))
        programs = folder / "bin"
        programs.mkdir()
        podman = shlex.split(self._world.options.podman)
        docker = _DOCKER.format(python=sys.executable, ecr=_ECR, registry=registry, podman=podman)
        for name, text in (("docker", docker), ("aws", _AWS)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        own = kept_environment()
        environment = {
            **own,
            "PATH": f"{programs}:{own.get('PATH', '')}",
            "BUILDAH_ISOLATION": "chroot",
            "AWS_REGION": build.region,
            "CODEBUILD_BUILD_ID": build.build_id,
            **build.variables,
        }
        with self._world.lock:
            if build.status != "IN_PROGRESS":
                return 1
            build.process = subprocess.Popen(
                ["sh", "-e", "-c", "\n".join(commands)],
                cwd=folder / "src",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert build.process.stdout is not None
        for line in build.process.stdout:
            self._write(build, [line.decode(errors="replace").rstrip("\n")])
        return build.process.wait()

    def _phase(self, build: _Build, name: str) -> None:
        with self._world.lock:
            build.phase = name
        self._write(build, [f"[Container] Entering phase {name}"])

    def _finish(self, build: _Build, status: str, why: str) -> None:
        with self._world.lock:
            if build.status == "IN_PROGRESS":  # else it was stopped
                build.status, build.why = status, why if status == "FAILED" else ""
                build.phase = build.phase if status == "FAILED" else "COMPLETED"

    def _write(self, build: _Build, lines: list[str]) -> None:
        from moto.logs.models import logs_backends

        now_ms = int(time.time() * 1000)
        events = [{"timestamp": now_ms, "message": line} for line in lines if line]
        with self._world.lock:
            backend = logs_backends[self._world.options.account][build.region]
            if events and build.group in backend.groups:
                backend.ensure_log_stream(build.group, build.stream)
                backend.put_log_events(build.group, build.stream, events)


def _kill(build: _Build) -> None:
    if build.process is not None and build.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(build.process.pid, signal.SIGKILL)


def _described(build: _Build) -> dict[str, Any]:
    failed = build.status in ("FAILED", "FAULT", "STOPPED")
    phase: dict[str, Any] = {"phaseType": build.phase}
    if failed:
        phase |= {"phaseStatus": build.status, "contexts": [{"message": build.why}] if build.why else []}
    return {
        "id": build.build_id,
        "projectName": build.build_id.partition(":")[0],
        "buildStatus": build.status,
        "currentPhase": build.phase,
        "buildComplete": build.status != "IN_PROGRESS",
        "serviceRole": build.role,
        "phases": [phase],
        "logs": {"groupName": build.group, "streamName": build.stream},
    }
