"""Tasks from PROVISIONING to STOPPED."""

from __future__ import annotations

from starburst.testing.aws.tasks import Task
from starburst.testing.aws.world import World

__all__ = ["Lifecycle", "install"]


class Lifecycle:
    """Moves tasks through their states; all methods are called under the world's lock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, task: Task) -> None:
        """A new task has its place: pull, start, run."""

    def stop(self, task: Task, code: str, reason: str) -> None:
        """SIGTERM, and SIGKILL when the stop timeout is over."""

    def kill(self, task: Task, code: str, reason: str) -> None:
        """SIGKILL at once."""


def install(world: World) -> None:
    """Add it to the world."""
    world.lifecycle = Lifecycle(world)
