"""Containers in podman: from real images, for tests of the image itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import secrets
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from starburst.testing.aws.children import Child, Children
from starburst.testing.aws.runtimes import CannotStart, Launch
from starburst.testing.aws.tasks import Container
from starburst.testing.aws.world import SimOptions

__all__ = ["PodmanRuntime"]

_ECR = re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/")
_LOCAL = re.compile(r"^(localhost|127\.0\.0\.1)(:\d+)?/")
_MAX_PROCESSES = 32_768  # what podman allows itself
_PULL_S = 600.0
_COMMAND_S = 60.0
_RETRIED = "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
_CANNOT_PULL = _RETRIED + "failed to resolve ref {image}: {why}"
_PLATFORM = "image Manifest does not contain descriptor matching platform 'linux/{architecture}'"


class PodmanRuntime:
    """Runs each container with ``podman run`` on the host's network.

    Args:
        options: ``podman`` is the command, ``registry`` stands for ECR.
    """

    def __init__(self, options: SimOptions) -> None:
        self._children = Children(adopt=False)
        self._podman = shlex.split(options.podman)
        self._registry = options.registry
        self._label = f"starburst.simulator={os.getpid()}-{secrets.token_hex(4)}"
        self._running: dict[str, Child] = {}
        self._pulled: dict[str, str] = {}
        self._pulling = threading.Lock()

    def prepare(self, image: str, architecture: str, then: Callable[[str], None]) -> None:
        """Pull the image on a thread of its own, once; ``then`` gets AWS's words for what went wrong."""

        def pull() -> None:
            with self._pulling:
                key = f"{image} {architecture}"
                if self._pulled.get(key) != "":  # what failed once may go well later
                    self._pulled[key] = self._pull(image, architecture)
                problem = self._pulled[key]
            then(problem)

        threading.Thread(target=pull, name="pull", daemon=True).start()

    def start(self, launch: Launch) -> None:
        """Start ``podman run``.

        Raises:
            CannotStart: There is no podman.
        """
        definition = launch.container.definition
        name = launch.container.runtime_id
        command = [*self._podman, "run", "--rm", "--pull=never", "--name", name, "--label", self._label]
        command += ["--network=host", "--log-driver=none", *_limits()]
        for key, value in launch.environment.items():
            command += ["--env", f"{key}={value}"]
        if definition.get("user"):
            command += ["--user", str(definition["user"])]
        if definition.get("workingDirectory"):
            command += ["--workdir", str(definition["workingDirectory"])]
        if definition.get("readonlyRootFilesystem"):
            command += ["--read-only", "--read-only-tmpfs=false"]
        if (definition.get("linuxParameters") or {}).get("initProcessEnabled"):
            command += ["--init"]
        for mount in definition.get("mountPoints") or []:
            command += ["--mount", f"type=tmpfs,destination={mount['containerPath']}"]
        if definition.get("entryPoint"):
            command += ["--entrypoint", json.dumps(definition["entryPoint"])]
        command += [self._name(str(definition.get("image"))), *(definition.get("command") or [])]
        try:
            child = self._children.start(
                command,
                environment=dict(os.environ),
                folder=Path(tempfile.gettempdir()),
                mark="",
                on_lines=launch.on_lines,
                on_exit=lambda code: self._exited(launch, code),
            )
        except OSError as error:
            raise CannotStart(f"CannotStartContainerError: {error}") from error
        launch.container.pid = child.process.pid
        self._running[launch.container.arn] = child

    def signal(self, container: Container, number: int) -> None:
        """SIGKILL goes through ``podman kill``, other signals through the attached client."""
        child = self._running.get(container.arn)
        if child is None:
            return
        if number == signal.SIGKILL:
            threading.Thread(
                target=self._run, args=(["kill", "--signal=KILL", container.runtime_id],), daemon=True
            ).start()
        else:
            child.signal(number)

    def stop(self) -> None:
        """Remove all containers of this simulator, then end the clients."""
        listing = self._run(["ps", "--all", "--quiet", "--filter", f"label={self._label}"])
        names = listing.stdout.split()
        if names:
            self._run(["rm", "--force", "--time=0", "--ignore", *names])
        self._children.stop()

    def _exited(self, launch: Launch, code: int) -> None:
        self._running.pop(launch.container.arn, None)
        launch.exited(code)

    def _pull(self, image: str, architecture: str) -> str:
        name = self._name(image)
        here = self._run(["image", "exists", name]).returncode == 0
        if not here or not name.startswith("localhost/"):
            insecure = ["--tls-verify=false"] if _LOCAL.match(name) else []
            pulled = self._run(["pull", "--quiet", *insecure, name], timeout_s=_PULL_S)
            if pulled.returncode != 0 and not here:
                why = pulled.stderr.strip().splitlines()[-1:] or ["not found"]
                return _CANNOT_PULL.format(image=image, why=why[0])
        found = self._run(["image", "inspect", "--format={{.Architecture}}", name]).stdout.strip()
        wanted = architecture.replace("x86_64", "amd64")
        if found != wanted:
            return _CANNOT_PULL.format(image=image, why=_PLATFORM.format(architecture=wanted))
        return ""

    def _name(self, image: str) -> str:
        if self._registry:
            return _ECR.sub(f"{self._registry}/", image)
        return image

    def _run(self, arguments: list[str], timeout_s: float = _COMMAND_S) -> subprocess.CompletedProcess[str]:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            return subprocess.run(
                [*self._podman, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
            )
        return subprocess.CompletedProcess(arguments, 1, "", "podman did not answer")


def _limits() -> list[str]:
    """Limits as this machine has them: to raise them takes more rights than a root of some machines has."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = _MAX_PROCESSES if processes == resource.RLIM_INFINITY else min(processes, _MAX_PROCESSES)
    return [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={processes}:{processes}"]
