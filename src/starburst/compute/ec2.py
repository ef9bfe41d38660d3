"""Workers on EC2 hosts: tasks of ECS whose capacity providers start and end the hosts."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from starburst.aws.instance_types import InstanceType, describe_types
from starburst.aws.scaling_failures import scaling_failures
from starburst.clock import Clock
from starburst.compute.base import Launched, LaunchSpec, PlaceEnvironment, ProviderStatus
from starburst.compute.ec2_capacity import check_types, ensure_capacity, find_capacity
from starburst.compute.ec2_holds import clear, close_at, keep_warm
from starburst.compute.ec2_sizes import WorkerSize, default_size, fits
from starburst.compute.ecs import EcsProvider
from starburst.compute.ecs_image import workers_image
from starburst.compute.ecs_outcome import NO_SPOT
from starburst.compute.ecs_place import EcsPlace
from starburst.compute.ecs_prepare import Target, architecture_of, place_of
from starburst.compute.ecs_tasks import SessionTasks
from starburst.errors import CloudError, OptionError
from starburst.options import Options, parse_memory_bytes

__all__ = ["DEFAULT_INSTANCE_TYPE", "Ec2Provider"]

log = logging.getLogger(__name__)

DEFAULT_INSTANCE_TYPE = "c7g.xlarge"
_SPOT_PATIENCE_S = 240.0
"""A host takes a minute or two."""
_WARM_EVERY_S = 60.0
_WARM_PEAK_S = 600.0
"""Workers leave one by one when their work is done; so many stay warm as there were at once within so long."""
_HOST_WITHIN_S = 90.0
"""After that it is asked why no host has come, and again after as long: RunTask does not tell."""


class Ec2Provider(EcsProvider):
    """Workers on EC2 and EC2 Spot.

    Args:
        clock: Time.
        look_every_s: Seconds between two looks at a small session's tasks.
        spot_patience_s: So long tasks wait for a Spot host before they are sent to on-demand ones.
        host_within_s: So long tasks wait for a host before it is asked why none comes.
    """

    name: ClassVar[str] = "EC2"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        look_every_s: float = 1.0,
        spot_patience_s: float = _SPOT_PATIENCE_S,
        host_within_s: float = _HOST_WITHIN_S,
    ) -> None:
        super().__init__(clock=clock, look_every_s=look_every_s)
        self._spot_patience_s = spot_patience_s
        self._host_within_s = host_within_s
        self._asked_s = float("-inf")
        self._no_hosts = ""
        self._warmed_s = float("-inf")
        self._most: dict[str, tuple[int, float]] = {}
        self._told: dict[str, int] = {}
        self._launching = 0
        self._deadline_at: float | None = None
        self._cleared = False

    async def launch(self, spec: LaunchSpec) -> Launched:
        """As for all of ECS; AWS keeps the hosts' group open until the deadline.

        Raises:
            CloudError: AWS refused, and nothing was started.
        """
        self._launching += 1
        self._cleared, self._deadline_at = False, spec.deadline_at
        try:
            return await super().launch(spec)
        finally:
            self._launching -= 1

    async def describe(self, session_id: str) -> list[ProviderStatus]:
        """As for all of ECS; those that wait for a host say why none comes, if the leading supervisor asks."""
        found = await super().describe(session_id)
        return [one if one.placed else replace(one, waits_for=self._no_hosts) for one in found]

    async def tend(self, session_id: str) -> None:
        """Ask why no host comes, give up on Spot hosts that do not, and say which hosts are to stay warm.

        Raises:
            CloudError: The session's hold on its hosts could not be renewed.
        """
        tasks = self._tasks(session_id)
        await self._give_up_on_spot(tasks)
        await self._ask_why(tasks)
        await self._keep_hosts(session_id, tasks)

    async def _placed(self, target: Target, options: Options) -> tuple[EcsPlace, PlaceEnvironment]:
        names = options.instance_types or (DEFAULT_INSTANCE_TYPE,)
        types = await describe_types(target.aws, names)
        mode = options.spot_mode
        architecture = check_types(types, spot=mode != "no", gpus=options.gpus)
        if options.architecture not in (None, architecture):
            raise OptionError(
                f"architecture={options.architecture!r}, but {types[0].name} is {architecture}",
                hint="leave architecture= out: on EC2 the instance type decides",
            )
        size = _size(types, options)
        found = await workers_image(target.aws, target.deployment, options, architecture)
        architecture_of(found.image, architecture)
        providers = await self._ensure(target, names, options)
        place = place_of(
            target,
            options,
            found.image,
            launch_type="EC2",
            architecture=architecture,
            size=(size.cpu_units, size.memory_mib),
            instance_types=tuple(one.name for one in types),
            per_host=min(fits(one, size.cpu_units, size.memory_mib, options.gpus) for one in types),
            **providers,
        )
        return place, found.environment

    async def _ensure(self, target: Target, names: tuple[str, ...], options: Options) -> dict[str, str]:
        """Make the capacity that may be used; no host is started by that."""
        mode = options.spot_mode
        found = {"spot_provider": "", "on_demand_provider": ""}
        for key, wanted, spot in (
            ("spot_provider", mode != "no", True),
            ("on_demand_provider", mode != "only" or options.on_demand_base > 0, False),
        ):
            if wanted:
                made = await ensure_capacity(
                    target.aws, target.deployment, names, spot=spot, gpus=options.gpus, clock=self._clock
                )
                found[key] = made.name
        return found

    async def _before_launch(self, spec: LaunchSpec) -> None:
        """The capacity may have been closed by the deadline of a former session."""
        for name in self._providers():
            await find_capacity(
                self.aws, self.place.instance_types, spot=name == self.place.spot_provider, clock=self._clock
            )
            if spec.deadline_at is not None:
                await close_at(
                    self.aws, name, spec.session_id, deadline_at=spec.deadline_at, clock=self._clock
                )

    async def extend(self, session_id: str, deadline_at: float) -> None:
        """Move the moment at which AWS lets idle hosts go and starts no more.

        Raises:
            CloudError: AWS did not do it.
        """
        self._deadline_at = deadline_at
        for name in self._providers():
            await close_at(self.aws, name, session_id, deadline_at=deadline_at, clock=self._clock)

    def _capacity(self, *, spot: bool) -> tuple[str, ...]:
        # RunTask takes what we ask for and lets it wait for a host: the fallback comes with _give_up_on_spot.
        return super()._capacity(spot=spot)[:1]

    async def _ask_why(self, tasks: SessionTasks) -> None:
        """Tasks that no host comes for wait without a word; the Auto Scaling group knows what is in the way."""
        waiting = self._waiting(tasks, self._host_within_s)
        if not waiting:
            self._no_hosts = ""
        elif self._clock.monotonic() - self._asked_s >= self._host_within_s:
            self._asked_s = self._clock.monotonic()
            since = self._clock.time() - 2 * self._host_within_s
            names = sorted({str(tasks.tasks[arn].get("capacityProviderName")) for arn in waiting})
            try:
                failures = [
                    one for name in names for one in await scaling_failures(self.aws, name, since=since)
                ]
            except CloudError as error:
                log.warning("%d workers wait for a host; why cannot be asked: %s", len(waiting), error)
                return
            self._no_hosts = f"no EC2 host comes: {failures[0].message}" if failures else self._no_hosts

    def _waiting(self, tasks: SessionTasks, seconds: float) -> list[str]:
        """Tasks that have waited for a host for so long."""
        now = self._clock.time()
        return [
            arn
            for arn in tasks.alive()
            if (task := tasks.tasks[arn]).get("lastStatus") == "PROVISIONING"
            and task.get("capacityProviderName") in self._providers()
            and now - _created(task.get("createdAt"), now) >= seconds
        ]

    async def _give_up_on_spot(self, tasks: SessionTasks) -> None:
        """Tasks that have waited too long for a Spot host are stopped: seeing that, the next launch is on-demand."""
        place = self.place
        if place.spot != "prefer":
            return
        waiting = [
            arn
            for arn in self._waiting(tasks, self._spot_patience_s)
            if tasks.tasks[arn]["capacityProviderName"] == place.spot_provider
        ]
        if waiting:
            log.warning("%d workers get no Spot host", len(waiting))
            try:
                await tasks.stop(waiting, NO_SPOT)
            except CloudError:
                log.info("they are asked to stop again")  # those that were not stopped are in the log

    async def _keep_hosts(self, session_id: str, tasks: SessionTasks) -> None:
        """While workers are there, put off the moment at which their hosts may go; AWS keeps it, whoever is gone."""
        by_provider = Counter(
            str(tasks.tasks[arn].get("capacityProviderName") or "") for arn in tasks.alive()
        )
        hosted = {name: by_provider[name] for name in self._providers() if by_provider[name]}
        if hosted:
            await self._stay_warm(session_id, hosted)
            return
        had_hosts = any(
            task.get("capacityProviderName") in self._providers() for task in tasks.tasks.values()
        )
        if self._cleared or self._launching or not had_hosts:
            return
        self._cleared = True  # nothing to close at the deadline; who launches again says so again
        self._most, self._told = {}, {}
        await self._after_stop(session_id)
        if not self._cleared and self._deadline_at is not None:
            # Workers were launched meanwhile, and their hold may have gone with the old one.
            await self.extend(session_id, self._deadline_at)

    async def _stay_warm(self, session_id: str, hosted: Mapping[str, int]) -> None:
        timeout_s, now_s = self.place.warm_pool_timeout_s, self._clock.monotonic()
        for name, count in hosted.items():
            most, at_s = self._most.get(name, (0, now_s))
            if count >= most or now_s - at_s > _WARM_PEAK_S:
                self._most[name] = count, now_s
        due = now_s - self._warmed_s >= min(_WARM_EVERY_S, timeout_s / 4)
        if not due and all(self._most[name][0] <= self._told.get(name, 0) for name in hosted):
            return
        self._warmed_s = now_s
        for name in hosted:
            self._told[name] = self._most[name][0]
            try:
                await keep_warm(
                    self.aws,
                    name,
                    session_id,
                    hosts=math.ceil(self._told[name] / max(1, self.place.per_host)),
                    until=self._clock.time() + timeout_s,
                    clock=self._clock,
                )
            except CloudError as error:  # it only saves the next call some time; the workers go on
                log.warning("hosts are not kept: %s", error)

    async def _after_stop(self, session_id: str) -> None:
        """The session needs no hosts any more; those that it kept warm stay for the next one until their time."""
        for name in self._providers():
            try:
                await clear(self.aws, name, session_id, clock=self._clock)
            except CloudError as error:
                log.warning("%s", error)

    def _providers(self) -> list[str]:
        return [name for name in (self.place.spot_provider, self.place.on_demand_provider) if name]


def _size(types: Sequence[InstanceType], options: Options) -> WorkerSize:
    memory = None if options.memory is None else -(-parse_memory_bytes(options.memory) // 2**20)
    try:
        return default_size(types, options.cpu, memory, options.gpus)
    except OptionError:
        if not (options.is_default("cpu") and options.is_default("memory")):
            raise
        return default_size(types, None, None, options.gpus)  # as large as they are


def _created(value: object, otherwise: float) -> float:
    stamp = getattr(value, "timestamp", None)
    return float(stamp()) if callable(stamp) else otherwise
