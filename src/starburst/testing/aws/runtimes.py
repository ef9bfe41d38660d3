"""How the containers of tasks run: as processes of this machine, or in podman."""

from __future__ import annotations

from typing import Protocol

from starburst.testing.aws.tasks import Container, Task

__all__ = ["Runtime"]


class Runtime(Protocol):
    """Starts and signals containers."""

    def start(self, task: Task, container: Container, environment: dict[str, str]) -> None:
        """Start it."""
        ...
