"""Tasks from PROVISIONING to STOPPED: what ECS and its agents do."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starburst.testing.aws import environment, logs
from starburst.testing.aws.podman import PodmanRuntime
from starburst.testing.aws.runtimes import CannotStart, Launch, ProcessRuntime
from starburst.testing.aws.tasks import Container, Task

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["Lifecycle", "install"]

_STOP_TIMEOUT_S = 30.0
_FAILED = "TaskFailedToStart"
_PULL = (
    "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: {image}: "
    "not found"
)
_PLATFORM = (
    "CannotPullContainerError: pull image manifest has been retried 1 time(s): image Manifest does not contain "
    "descriptor matching platform 'linux/{platform}'"
)
_ADDRESSES = (
    "Unexpected EC2 error while attempting to Create Network Interface in subnet '{subnet}': "
    "InsufficientFreeAddressesInSubnet"
)
_NETWORK = "Timeout waiting for network interface provisioning to complete."
_OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"

# Failures of one task after RunTask said yes: kind of the script -> reason.
_AFTER_LAUNCH = {
    "pull": _PULL,
    "platform": _PLATFORM,
    "addresses": _ADDRESSES,
    "network": _NETWORK,
    "log-group": logs.MISSING_GROUP,
}


class Lifecycle:
    """Moves tasks through their states; all public methods are called under the world's lock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, task: Task) -> None:
        """A new task has its place: its image is pulled and it starts."""
        self._world.timers.after(self._world.options.pull_s / 2, lambda: self._pull(task))

    def stop(self, task: Task, code: str, reason: str, *, grace_s: float | None = None) -> None:
        """SIGTERM, and SIGKILL when the stop timeout is over; nothing if it ends already.

        Args:
            task: Any task.
            code: Its ``stopCode``.
            reason: Its ``stoppedReason``.
            grace_s: Less than the container's own stop timeout.
        """
        if task.desired_status == "STOPPED":
            return
        self._say(task, code, reason)
        started = [each for each in task.containers if each.last_status == "RUNNING"]
        if not started:
            self._end(task)
            return
        task.last_status = "STOPPING"
        for container in started:
            self._world.runtime.signal(container, signal.SIGTERM)
            timeout_s = float(container.definition.get("stopTimeout") or _STOP_TIMEOUT_S)
            limits = [timeout_s, self._world.options.max_stop_timeout_s]
            limits += [] if grace_s is None else [grace_s]
            self._world.timers.after(min(limits), lambda each=container: self._kill(each))  # type: ignore[misc]

    def interrupt(self, task: Task) -> None:
        """Spot takes a Fargate task back."""
        reason = "Your Spot Task was interrupted."
        self.stop(task, "SpotInterruption", reason, grace_s=self._world.options.interruption_s)

    def kill(self, task: Task, code: str, reason: str, *, out_of_memory: bool = False) -> None:
        """SIGKILL at once; code and reason count if it was not about to stop anyway.

        With an empty code it is as if the container had died by itself.
        """
        if code and task.desired_status != "STOPPED":
            self._say(task, code, reason)
        started = [each for each in task.containers if each.last_status == "RUNNING"]
        for container in started:
            if out_of_memory:
                container.reason = _OUT_OF_MEMORY
            self._world.runtime.signal(container, signal.SIGKILL)
        if not started and not task.stopped:
            self._say(task, code or _FAILED, reason or task.stopped_reason)
            self._end(task)

    def _say(self, task: Task, code: str, reason: str) -> None:
        task.desired_status = "STOPPED"
        task.stop_code = task.stop_code or code
        task.stopped_reason = task.stopped_reason or reason
        task.version += 1
        task.times.setdefault("stoppingAt", _now())

    def _pull(self, task: Task) -> None:
        with self._world.lock:
            if task.stopped:
                return
            task.last_status = "PENDING"
            task.version += 1
            kind = next((each for each in _AFTER_LAUNCH if self._scripted(task, each)), "")
            task.times["pullStartedAt"] = _now()
            if kind:
                reason = _AFTER_LAUNCH[kind].format(
                    image=task.containers[0].definition.get("image"),
                    platform=task.architecture.replace("x86_64", "amd64"),
                    subnet=task.subnet,
                )
                self._fail(task, reason)
                return
            image = str(task.containers[0].definition.get("image", ""))

        def pulled(problem: str) -> None:
            self._world.timers.after(self._world.options.pull_s / 2, lambda: self._start(task, problem))

        self._world.runtime.prepare(image, task.architecture, pulled)

    def _start(self, task: Task, problem: str) -> None:
        with self._world.lock:
            if task.stopped:
                return
            task.times["pullStoppedAt"] = _now()
            if problem:
                self._fail(task, problem)
                return
            for container in task.containers:
                if not logs.ready(task, container):
                    self._fail(task, logs.MISSING_GROUP)
                    return
                try:
                    self._world.runtime.start(self._launch(task, container))
                except CannotStart as error:
                    container.reason = str(error)
                    self._fail(task, str(error))
                    return
                container.last_status = "RUNNING"
            task.times["startedAt"] = task.times["connectivityAt"] = _now()
            task.last_status = "RUNNING"
            task.version += 1

    def _launch(self, task: Task, container: Container) -> Launch:
        return Launch(
            task=task,
            container=container,
            environment=environment.for_container(self._world, task, container),
            on_lines=logs.writer(self._world, task, container),
            on_exit=lambda code: self._exited(task, container, code),
        )

    def _scripted(self, task: Task, kind: str) -> bool:
        found = self._world.scripts.take(
            "ecs:RunTask",
            kind,
            cluster=task.cluster,
            family=task.definition.family,
            provider=task.capacity_provider,
            started_by=task.started_by,
            subnet=task.subnet,
            zone=task.zone,
        )
        return found is not None

    def _fail(self, task: Task, reason: str) -> None:
        self._say(task, _FAILED, reason)
        running = [each for each in task.containers if each.last_status == "RUNNING"]
        for container in running:
            self._world.runtime.signal(container, signal.SIGKILL)
        if not running:
            self._end(task)

    def _exited(self, task: Task, container: Container, code: int) -> None:
        with self._world.lock:
            container.last_status, container.exit_code, container.pid = "STOPPED", code, None
            task.times.setdefault("executionStoppedAt", _now())
            others = [each for each in task.containers if each.last_status == "RUNNING"]
            if not others:
                self._say(task, "EssentialContainerExited", "Essential container in task exited")
                self._end(task)
            elif container.definition.get("essential", True):
                self.stop(task, "EssentialContainerExited", "Essential container in task exited")

    def _kill(self, container: Container) -> None:
        with self._world.lock:
            if container.last_status == "RUNNING":
                self._world.runtime.signal(container, signal.SIGKILL)

    def _end(self, task: Task) -> None:
        for container in task.containers:
            container.last_status = "STOPPED"
        task.last_status = "STOPPED"
        task.times["stoppedAt"] = _now()
        task.version += 1
        for attachment in task.attachments:
            attachment["status"] = "DELETED"
        if self._world.placer is not None and task.launch_type == "EC2":
            self._world.placer.release(task)


def install(world: World) -> None:
    """Add it to the world, with the runtime that its options ask for."""
    world.lifecycle = Lifecycle(world)
    (world.folder / environment.TOKEN_FILE).write_text("simulated")
    if world.options.runtime == "podman":
        world.runtime = PodmanRuntime(world.options)
    elif world.options.runtime == "light":
        from starburst.testing.aws.light import LightRuntime  # loads the whole worker

        world.runtime = LightRuntime(world.folder / "tasks")
    else:
        world.runtime = ProcessRuntime(world.folder / "tasks")
    world.at_exit.append(world.runtime.stop)


def _now() -> datetime:
    return datetime.now(UTC)
