"""Things that happen at a given time: scheduled actions of Auto Scaling groups, and EventBridge Scheduler.

Schedules with ``at()`` fire, once, and call the API that their universal target names, with the rights of their role.
Recurring ones (``rate()``, ``cron()``, ``Recurrence``) are kept but never fire. An ``at()`` that is past when it is
made does not fire either.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from starburst.testing.aws.group_hooks import set_sizes
from starburst.testing.aws.hooks import replace

if TYPE_CHECKING:
    from starburst.testing.aws.fleet import Fleet
    from starburst.testing.aws.world import World

__all__ = ["input_for", "install", "moment_of", "universal_target"]

_TICK_S = 0.1
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_RECURRING = re.compile(r"rate\(\d+ (minute|hour|day)s?\)|cron\([^)]+\)")
_TARGET = re.compile(r"arn:aws[\w-]*:scheduler:::aws-sdk:([\w-]+):(\w+)")
_READS = ("get", "describe", "list", "poll", "receive", "search", "scan", "query", "select", "read", "view")
_AGAIN = ("Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded")
_RETRY_FIRST_S = 1.0
_RETRY_LAST_S = 60.0
_BOTO_NAMES = {"sfn": "stepfunctions", "cloudwatchlogs": "logs", "eventbridge": "events"}

_log = logging.getLogger(__name__)


def moment_of(expression: str, zone: str) -> float | None:
    """When an ``at()`` expression fires, in seconds since 1970; None for one that recurs.

    Raises:
        ValueError: It is no schedule expression, or there is no such time zone.
    """
    once = _AT.fullmatch(expression)
    if once is None:
        if _RECURRING.fullmatch(expression):
            return None
        raise ValueError(f"Invalid Schedule Expression {expression}.")
    try:
        return datetime.fromisoformat(once[1]).replace(tzinfo=ZoneInfo(zone)).timestamp()
    except (ValueError, ZoneInfoNotFoundError):
        raise ValueError(f"Invalid Schedule Expression {expression} in time zone {zone}.") from None


def universal_target(arn: str) -> tuple[str, str] | None:
    """Service and action of a universal target; None for a target of another kind.

    Raises:
        ValueError: The action only reads; the scheduler refuses those.
    """
    parsed = _TARGET.fullmatch(arn)
    if parsed is None:
        return None
    service, action = parsed.groups()
    if action.lower().startswith(_READS):
        raise ValueError(f"The action {action} of {service} is not supported: it only reads.")
    return service, action


def input_for(shape: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The scheduler's PascalCase names as the API's own."""
    names = {name.lower(): name for name in shape.members}
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = names.get(key.lower(), key)
        member = shape.members.get(name)
        nested = member is not None and member.type_name == "structure" and isinstance(value, dict)
        found[name] = input_for(member, value) if nested else value
    return found


def install(world: World, fleet: Fleet) -> None:
    """Let schedules of both kinds be made, and fire."""
    _install_actions()
    _install_schedules()
    clock = _Clock(world, fleet)
    world.timers.every(_TICK_S, clock.tick)


class _Clock:
    """Looks for what is due."""

    def __init__(self, world: World, fleet: Fleet) -> None:
        self._world = world
        self._fleet = fleet

    def tick(self) -> None:
        from moto.autoscaling.models import autoscaling_backends
        from moto.scheduler.models import scheduler_backends

        account = self._world.options.account
        with self._world.lock:
            for backend in list(autoscaling_backends[account].values()):
                self._actions(backend)
            for region, scheduler in list(scheduler_backends[account].items()):
                for group in list(scheduler.schedule_groups.values()):
                    for schedule in list(group.schedules.values()):
                        self._schedule(region, group, schedule)

    def _actions(self, backend: Any) -> None:
        now = datetime.now(UTC)
        for key, action in list(backend.scheduled_actions.items()):
            start = _utc(action.start_time)
            if start is None or start > now or action.recurrence:
                continue
            del backend.scheduled_actions[key]
            group = backend.autoscaling_groups.get(action.auto_scaling_group_name)
            suspended = {each["ProcessName"] for each in group.suspended_processes} if group else set()
            if group is None or "ScheduledActions" in suspended:
                continue
            try:
                set_sizes(
                    self._fleet,
                    group,
                    least=action.min_size,
                    most=action.max_size,
                    desired=action.desired_capacity,
                )
            except Exception as error:  # noqa: BLE001 - AWS ends such an action with a failed activity
                _log.warning("the scheduled action %s did not run: %s", key, error)

    def _schedule(self, region: str, group: Any, schedule: Any) -> None:
        at = moment_of(schedule.schedule_expression, schedule.schedule_expression_timezone)
        if schedule.state != "ENABLED" or at is None or at > time.time():
            return
        if getattr(schedule, "fired", None) == at or at < int(schedule.last_modified_date):
            return
        schedule.fired = at
        if schedule.action_after_completion == "DELETE":
            del group.schedules[schedule.name]
        self._fire(region, schedule.target, tries=0)

    def _fire(self, region: str, target: dict[str, Any], *, tries: int) -> None:
        """Call the API on a thread of its own: it is answered under the world's lock."""
        called = universal_target(target["Arn"])
        if called is None:
            _log.warning("the simulator does not know the schedule target %s", target["Arn"])
            return

        def run() -> None:
            from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

            try:
                self._call(region, *called, target)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                again = code in _AGAIN or status >= 500
                self._failed(region, target, tries, error, again=again)
            except (BotoCoreError, ValueError) as error:
                self._failed(region, target, tries, error, again=False)

        threading.Thread(target=run, name="schedule", daemon=True).start()

    def _failed(
        self, region: str, target: dict[str, Any], tries: int, error: Exception, *, again: bool
    ) -> None:
        _log.warning("the schedule for %s failed: %s", target["Arn"], error)
        if again and tries < int(target["RetryPolicy"].get("MaximumRetryAttempts", 185)):
            wait_s = min(_RETRY_LAST_S, _RETRY_FIRST_S * 2**tries)
            self._world.timers.after(wait_s, lambda: self._fire(region, target, tries=tries + 1))

    def _call(self, region: str, service: str, action: str, target: dict[str, Any]) -> None:
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.session import Session  # type: ignore[import-untyped]

        with self._world.lock:
            key, secret, token = self._world.credentials_for(target["RoleArn"])
        client = Session().create_client(
            _BOTO_NAMES.get(service, service),
            region_name=region,
            endpoint_url=self._world.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(retries={"total_max_attempts": 1}),
        )
        operation = action[0].upper() + action[1:]
        shape = client.meta.service_model.operation_model(operation).input_shape
        given = input_for(shape, json.loads(target.get("Input") or "{}"))
        method = {name: each for each, name in client.meta.method_to_api_mapping.items()}[operation]
        getattr(client, method)(**given)


def _utc(at: Any) -> datetime | None:
    if at is None:
        return None
    found = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _install_actions() -> None:
    from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
    from moto.autoscaling.models import AutoScalingBackend

    original_put = AutoScalingBackend.put_scheduled_update_group_action

    def put(backend: Any, **given: Any) -> Any:
        group = backend.autoscaling_groups[given["name"]]
        name, start = given["scheduled_action_name"], _utc(given["start_time"])
        sizes = {each: given[each] for each in ("min_size", "max_size", "desired_capacity")}
        if all(each is None for each in sizes.values()):
            raise ValidationError("You must specify at least one of min size, max size or desired capacity.")
        if start is None and not given["recurrence"]:
            raise ValidationError("You must specify a start time or a recurrence.")
        if start is not None and start < datetime.now(UTC):
            raise ValidationError(f"Specified start time {start:%Y-%m-%dT%H:%M:%SZ} is in the past.")
        for action in backend.scheduled_actions.values():
            same_group = action.auto_scaling_group_name == group.name
            if same_group and action.scheduled_action_name != name and _utc(action.start_time) == start:
                raise AutoscalingClientError(
                    "AlreadyExists",
                    "Scheduled Action by this start time already exists - "
                    f"{action.scheduled_action_name} of {group.name} starts at the same time",
                )
        made = original_put(backend, **given)
        # moto knows one action of a name in all groups together
        backend.scheduled_actions[f"{group.name}/{name}"] = backend.scheduled_actions.pop(name)
        return made

    def delete(backend: Any, auto_scaling_group_name: str, scheduled_action_name: str) -> None:
        if backend.scheduled_actions.pop(f"{auto_scaling_group_name}/{scheduled_action_name}", None) is None:
            raise ValidationError("Scheduled action name not found")

    replace(AutoScalingBackend, put_scheduled_update_group_action=put, delete_scheduled_action=delete)


def _install_schedules() -> None:
    from moto.scheduler.exceptions import ScheduleGroupNotFound, ValidationException
    from moto.scheduler.models import EventBridgeSchedulerBackend
    from moto.scheduler.responses import EventBridgeSchedulerResponse

    original_create = EventBridgeSchedulerBackend.create_schedule
    original_update = EventBridgeSchedulerBackend.update_schedule
    original_delete_group = EventBridgeSchedulerBackend.delete_schedule_group
    original_response = EventBridgeSchedulerResponse.update_schedule

    def check(given: dict[str, Any]) -> None:
        try:
            moment_of(given["schedule_expression"], given["schedule_expression_timezone"] or "UTC")
            universal_target(given["target"]["Arn"])
            json.loads(given["target"].get("Input") or "{}")
        except ValueError as error:
            raise ValidationException(message=str(error)) from None

    def create(backend: Any, **given: Any) -> Any:
        check(given)
        backend.get_schedule_group(given["group_name"])
        return original_create(backend, **given)

    def update(backend: Any, **given: Any) -> Any:
        check(given)
        return original_update(backend, **given)

    def delete_group(backend: Any, name: str | None) -> None:
        if (name or "default") not in backend.schedule_groups:
            raise ScheduleGroupNotFound(name or "default")
        original_delete_group(backend, name)

    def update_response(response: Any) -> str:
        answer = original_response(response)
        name = response.uri.split("?")[0].split("/")[-1]
        group = response._get_param("GroupName")  # noqa: SLF001 - as moto's own answers do
        schedule = response.scheduler_backend.get_schedule(group, name)
        schedule.action_after_completion = response._get_param("ActionAfterCompletion")  # noqa: SLF001
        return answer

    replace(
        EventBridgeSchedulerBackend,
        create_schedule=create,
        update_schedule=update,
        delete_schedule_group=delete_group,
    )
    replace(EventBridgeSchedulerResponse, update_schedule=update_response)
