"""How the containers of tasks run: as processes of this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from starburst.testing.aws.children import Child, Children
from starburst.testing.aws.tasks import Container, Task

__all__ = ["CannotStart", "Launch", "ProcessRuntime", "Runtime", "kept_environment"]

# What a task sees of the user's environment; above all none of the user's keys.
_KEPT = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


def kept_environment() -> dict[str, str]:
    """What a task gets of the user's own variables."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


class CannotStart(Exception):  # noqa: N818 - named for the condition
    """A container could not be started; the text is what AWS says as the reason."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What it takes to start one container.

    Attributes:
        task: Its task.
        container: The container.
        environment: All its variables.
        on_lines: Gets what it prints.
        on_exit: Gets its exit code, 128 + number for a signal.
    """

    task: Task
    container: Container
    environment: dict[str, str]
    on_lines: Callable[[list[str]], None]
    on_exit: Callable[[int], None]

    @property
    def command(self) -> list[str]:
        """Entry point and arguments."""
        definition = self.container.definition
        return [*(definition.get("entryPoint") or []), *(definition.get("command") or [])]

    def exited(self, code: int) -> None:
        """Tell the exit code of a child process as container engines write it."""
        self.on_exit(128 - code if code < 0 else code)


class Runtime(Protocol):
    """Starts and signals containers; all methods return at once."""

    def prepare(self, image: str, architecture: str, then: Callable[[str], None]) -> None:
        """Pull an image if need be; ``then`` is called with why that failed, or the empty string."""
        ...

    def start(self, launch: Launch) -> None:
        """Start a container.

        Raises:
            CannotStart: With AWS's words.
        """
        ...

    def signal(self, container: Container, number: int) -> None:
        """Send a signal to the container's first process; SIGKILL ends all of it."""
        ...

    def stop(self) -> None:
        """End all containers."""
        ...


class ProcessRuntime:
    """Containers are processes of this machine: images are not looked at, ``python`` is this Python.

    Args:
        folder: Each task gets a folder of its own in it as its working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.children = Children()
        self._folder = folder
        self._running: dict[str, Child] = {}

    def prepare(self, image: str, architecture: str, then: Callable[[str], None]) -> None:  # noqa: ARG002
        """Nothing to pull."""
        then("")

    def start(self, launch: Launch) -> None:
        """Start it in a session of its own.

        Raises:
            CannotStart: There is no such program.
        """
        command = launch.command
        if not command:
            raise CannotStart("CannotStartContainerError: Error response from daemon: No command specified")
        if command[0] in {"python", "python3"}:
            command[0] = sys.executable
        folder = self._folder / launch.task.id
        folder.mkdir(parents=True, exist_ok=True)
        try:
            child = self.children.start(
                command,
                environment={**kept_environment(), **launch.environment},
                folder=folder,
                mark=launch.container.runtime_id,
                on_lines=launch.on_lines,
                on_exit=lambda code: self._exited(launch, code),
            )
        except OSError as error:
            raise CannotStart(
                "CannotStartContainerError: Error response from daemon: failed to create task for container: "
                f'failed to start container process: exec: "{command[0]}": {error.strerror}'
            ) from error
        launch.container.pid = child.process.pid
        self._running[launch.container.arn] = child

    def signal(self, container: Container, number: int) -> None:
        """To the first process; SIGKILL to all."""
        child = self._running.get(container.arn)
        if child is not None and number == signal.SIGKILL:
            child.kill()
        elif child is not None:
            child.signal(number)

    def stop(self) -> None:
        """Kill all."""
        self.children.stop()

    def _exited(self, launch: Launch, code: int) -> None:
        self._running.pop(launch.container.arn, None)
        launch.exited(code)
