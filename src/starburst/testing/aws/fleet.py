"""EC2 in ECS: groups and their hosts, tasks that wait for them, managed scaling, interruptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from starburst.testing.aws.groups import Groups
from starburst.testing.aws.hosts import GONE_CODE, Host, gone_reason
from starburst.testing.aws.placement import choose, refusal
from starburst.testing.aws.scaling import ManagedScaling, Settings
from starburst.testing.aws.world import Failure, HostInfo, World

if TYPE_CHECKING:
    from starburst.testing.aws.tasks import Task

__all__ = ["Fleet"]

_TICK_S = 0.2
_MAX_WAITING = 500  # tasks in PROVISIONING for each cluster

_log = logging.getLogger(__name__)


class Fleet:
    """The placer of the world, and all that hosts do; methods are called under the world's lock."""

    def __init__(self, world: World) -> None:
        self.groups = Groups(world)
        self._world = world
        self._scaling = ManagedScaling(world.options.scale_in_s)
        self._waiting: dict[str, Task] = {}
        self._ticks = False

    # --- moto's state

    def ecs(self, region: str) -> Any:
        """What moto keeps of ECS in a region."""
        from moto.ecs.models import ecs_backends

        return ecs_backends[self._world.options.account][region]

    def all_groups(self) -> list[Any]:
        """All Auto Scaling groups of the account."""
        from moto.autoscaling.models import autoscaling_backends

        backends = list(autoscaling_backends[self._world.options.account].values())
        return [group for backend in backends for group in list(backend.autoscaling_groups.values())]

    def group_of(self, host: Host) -> Any:
        """The host's group; None if that is removed."""
        return next((g for g in self.all_groups() if (g.region, g.name) == (host.region, host.group)), None)

    def providers_of(self, group: Any) -> Iterator[tuple[Any, Any]]:
        """The capacity providers of a group, each with the cluster that uses it."""
        backend = self.ecs(group.region)
        for provider in list(backend.capacity_providers.values()):
            if provider.auto_scaling_group_provider["autoScalingGroupArn"] not in (group.arn, group.name):
                continue
            for cluster in list(backend.clusters.values()):
                if provider.name in (cluster.capacity_providers or []) and cluster.status == "ACTIVE":
                    yield provider, cluster

    def _find_provider(self, host: Host) -> None:
        group = self.group_of(host)
        found = self.providers_of(group) if group is not None else iter(())
        host.provider = next((each.name for each, cluster in found if cluster.name == host.cluster), "")
        if host.record is not None:
            host.record.capacity_provider_name = host.provider or None

    def _settings_of(self, group: Any) -> Settings | None:
        """Those of the group's provider, if it has one that a cluster uses."""
        return next((Settings.of(provider) for provider, _ in self.providers_of(group)), None)

    # --- tasks

    def place(self, task: Task) -> Failure | Literal["placed", "waiting"]:
        """See :class:`~starburst.testing.aws.world.Placer`."""
        hosts = self._hosts_for(task)
        if not task.capacity_provider and not hosts:
            from moto.ecs.exceptions import InvalidParameterException

            raise InvalidParameterException("No Container Instances were found in your cluster.")
        host = choose(hosts, task)
        if host is not None:
            self._take(host, task)
            return "placed"
        if self._may_wait(task):
            self._waiting[task.id] = task
            self._tick_soon()
            return "waiting"
        if not hosts:
            return Failure("RESOURCE:CPU")
        return Failure(refusal(hosts[-1], task), arn=hosts[-1].record.container_instance_arn)

    def release(self, task: Task) -> None:
        """See :class:`~starburst.testing.aws.world.Placer`."""
        self._waiting.pop(task.id, None)
        host = self.groups.hosts.get(task.host)
        if host is None or host.tasks.pop(task.id, None) is None:
            return
        host.update_record()
        if host.tasks or host.terminated:
            self._place_waiting()
            return
        host.empty_since = time.monotonic()
        if host.leaving:
            self.end(host, "an instance was terminated: its last task has ended.")
        else:
            self._place_waiting()

    def _hosts_for(self, task: Task) -> list[Host]:
        return [
            host
            for host in self.groups.hosts.values()
            if host.record is not None
            and not host.terminated
            and (host.region, host.cluster) == (task.region, task.cluster)
            and task.capacity_provider in ("", host.provider)
        ]

    def _may_wait(self, task: Task) -> bool:
        provider = self.ecs(task.region).capacity_providers.get(task.capacity_provider)
        if provider is None or not Settings.of(provider).enabled:
            return False
        waiting = sum(each.cluster == task.cluster for each in self._waiting.values())
        return waiting < _MAX_WAITING

    def _take(self, host: Host, task: Task) -> None:
        host.tasks[task.id] = task
        task.host, task.zone = host.id, host.zone
        task.container_instance_arn = host.record.container_instance_arn
        task.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = (
            f"{self._world.control.endpoint}/imds/{host.id}"
        )
        host.update_record()
        self._protect(host, on=True)

    def _place_waiting(self) -> None:
        refused = set()
        for task in list(self._waiting.values()):
            kind = (task.definition_arn, task.cluster, task.capacity_provider, task.cpu, task.memory_mib)
            if kind in refused:
                continue  # hundreds of the same kind may wait
            host = choose(self._hosts_for(task), task)
            if host is None:
                refused.add(kind)
            else:
                del self._waiting[task.id]
                self._take(host, task)
                self._world.lifecycle.begin(task)

    # --- groups

    def settle(self, group: Any) -> None:
        """Start or end instances until the group has its desired capacity, as far as it can be had."""
        for host in self.groups.fill(group):
            self._world.timers.after(self._world.options.host_join_s, lambda each=host: self._join(each))  # type: ignore[misc]
        settings = self._settings_of(group)
        for host in self.groups.surplus(group):
            if host.tasks and settings is not None and settings.drains:
                self._drain(host)
            else:
                self.end(
                    host,
                    "an instance was taken out of service in response to a difference between desired and "
                    "actual capacity.",
                )

    def forget(self, group: Any) -> None:
        """A group is deleted: its instances end at once."""
        for host in self.groups.of(group):
            self.end(host, "the group was deleted.")
        self.groups.forget(group)

    def end(self, host: Host, cause: str) -> None:
        """An instance ends, and with it what runs on it.

        Args:
            host: The instance.
            cause: For the group's activities.
        """
        if host.terminated:
            return
        group = self.group_of(host)
        host.terminated = True
        if group is not None:
            group.instance_states = [each for each in group.instance_states if each.instance.id != host.id]
            self.groups.note_end(group, host, cause)
        if host.record is not None:
            self.ecs(host.region).container_instances.get(host.cluster, {}).pop(host.record.id, None)
            cluster = self.ecs(host.region).clusters.get(host.cluster)
            if cluster is not None:
                cluster.registered_container_instances_count -= 1
        if host.instance.state != "terminated":
            host.instance.terminate()
        for task in list(host.tasks.values()):
            self._world.lifecycle.kill(task, GONE_CODE, gone_reason(host.id))
        self._tick_soon()

    def interrupt(self, host: Host) -> None:
        """Spot takes it back: the notice now, the end later."""
        if host.terminated or host.notice_at is not None:
            return
        if not host.spot:
            raise ValueError(f"{host.id} is not a Spot instance")
        host.notice_at = datetime.now(UTC).timestamp() + self._world.options.interruption_s
        group = self.group_of(host)
        settings = self._settings_of(group) if group is not None else None
        if host.record is not None and settings is not None and settings.drains:
            host.record.status = "DRAINING"

        def take() -> None:
            with self._world.lock:
                self.end(host, "an instance was taken out of service in response to a Spot interruption.")

        self._world.timers.after(self._world.options.interruption_s, take)

    def _join(self, host: Host) -> None:
        with self._world.lock:
            if host.terminated:
                return
            backend = self.ecs(host.region)
            cluster = backend.clusters.get(host.cluster)
            if cluster is None or cluster.status != "ACTIVE":
                _log.warning("%s finds no ECS cluster %s", host.id, host.cluster)
                return
            host.join(backend)
            self._find_provider(host)
            host.empty_since = time.monotonic()
            self._place_waiting()

    def _drain(self, host: Host) -> None:
        host.leaving = True
        host.record.status = "DRAINING"
        for state in host.instance.autoscaling_group.instance_states:
            if state.instance.id == host.id:
                state.lifecycle_state = "Terminating:Wait"

    def _protect(self, host: Host, *, on: bool) -> None:
        """Managed termination protection, where it is in force."""
        group = self.group_of(host)
        settings = self._settings_of(group) if group is not None else None
        if settings is None or not settings.protects:
            return
        for state in group.instance_states:
            if state.instance.id == host.id:
                state.protected_from_scale_in = on

    # --- time

    def start(self) -> None:
        """Look regularly at what should happen."""
        self._world.timers.every(_TICK_S, self.tick)

    def tick(self) -> None:
        """Scale, and bring each group to its desired capacity."""
        with self._world.lock:
            self._ticks = False
            for host in self.groups.hosts.values():
                if not host.terminated:
                    self._find_provider(host)
            for group in self.all_groups():
                self._scale(group)
                self.settle(group)

    def _tick_soon(self) -> None:
        if not self._ticks:
            self._ticks = True
            self._world.timers.after(0, self.tick)

    def _scale(self, group: Any) -> None:
        settings = self._settings_of(group)
        if settings is None or not settings.enabled:
            return
        names = {provider.name for provider, _ in self.providers_of(group)}
        waiting = [
            task
            for task in self._waiting.values()
            if task.region == group.region and task.capacity_provider in names
        ]
        live = self.groups.live(group)
        wanted = self._scaling.desired(group, settings, live=live, waiting=waiting)
        if wanted is not None:
            group.desired_capacity = wanted
        if settings.protects and len(live) > (group.desired_capacity or 0):
            # ECS lets go of hosts on which nothing has run for a while, and only of those.
            for host in live:
                idle_s = time.monotonic() - host.empty_since
                if not host.tasks and idle_s >= self._world.options.scale_in_s:
                    self._protect(host, on=False)

    def infos(self) -> list[HostInfo]:
        """All hosts, as the handle tells them."""
        return [host.info() for host in self.groups.hosts.values()]
