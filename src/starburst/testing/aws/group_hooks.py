"""moto's Auto Scaling, corrected: groups keep their capacity by our hosts, and errors are AWS's."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.hooks import replace

if TYPE_CHECKING:
    from starburst.testing.aws.fleet import Fleet

__all__ = ["install", "set_sizes"]

_PAGE = 100


def set_sizes(fleet: Fleet, group: Any, *, least: int | None, most: int | None, desired: int | None) -> None:
    """Set what is not None; the desired capacity follows the limits, as on AWS.

    Raises:
        ValidationError: moto's; the three contradict each other.
    """
    least = group.min_size if least is None else least
    most = group.max_size if most is None else most
    if least > most:
        raise _invalid(f"Max bound, {most}, must be greater than or equal to min bound, {least}")
    if desired is None:
        desired = min(max(group.desired_capacity or 0, least), most)
    elif not least <= desired <= most:
        raise _invalid(
            f"Desired capacity:{desired} must be between the specified min size:{least} and max size:{most}"
        )
    group.min_size, group.max_size, group.desired_capacity = least, most, desired
    fleet.groups.retry_now(group)
    fleet.settle(group)


def install(fleet: Fleet) -> None:
    """Put ours in the place of moto's."""
    _install_groups(fleet)
    _install_backend(fleet)
    _install_instances(fleet)
    _install_responses(fleet)


def _install_groups(fleet: Fleet) -> None:
    from moto.autoscaling.models import FakeAutoScalingGroup

    def set_desired_capacity(group: Any, wanted: int | None) -> None:
        """Called by moto while a group is made, and wherever its capacity changes."""
        if wanted is not None and group.name in group.autoscaling_backend.autoscaling_groups:
            if wanted > group.max_size:
                raise _invalid(
                    f"New SetDesiredCapacity value {wanted} is above max value {group.max_size} for the "
                    "AutoScalingGroup."
                )
            if wanted < group.min_size:
                raise _invalid(
                    f"New SetDesiredCapacity value {wanted} is below min value {group.min_size} for the "
                    "AutoScalingGroup."
                )
        set_sizes(fleet, group, least=None, most=None, desired=group.min_size if wanted is None else wanted)

    def update(group: Any, *_given: Any, **changes: Any) -> None:
        """UpdateAutoScalingGroup: what is not given stays as it is."""
        group._set_azs_and_vpcs(changes["availability_zones"], changes["vpc_zone_identifier"], update=True)  # noqa: SLF001
        policy = changes.get("mixed_instances_policy")
        if policy or changes["launch_template"] or changes["launch_config_name"]:
            group.mixed_instances_policy = policy
            group._set_launch_configuration(  # noqa: SLF001 - moto has no public way
                changes["launch_config_name"], changes["launch_template"], policy
            )
        for name, value in (
            ("health_check_grace_period", changes["health_check_period"]),
            ("health_check_type", changes["health_check_type"]),
            ("new_instances_protected_from_scale_in", changes.get("new_instances_protected_from_scale_in")),
        ):
            if value is not None:
                setattr(group, name, value)
        set_sizes(
            fleet,
            group,
            least=changes["min_size"],
            most=changes["max_size"],
            desired=changes["desired_capacity"],
        )

    def replace_instances(group: Any, _count: int, _tags: dict[str, str]) -> None:
        fleet.settle(group)

    replace(
        FakeAutoScalingGroup,
        set_desired_capacity=set_desired_capacity,
        update=update,
        replace_autoscaling_group_instances=replace_instances,
    )


class _GroupsByName(OrderedDict[str, Any]):
    """A group that is not there is an error of the caller, not of the server."""

    def __missing__(self, name: str) -> Any:
        raise _invalid(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")


def _install_backend(fleet: Fleet) -> None:
    from moto.autoscaling.exceptions import AutoscalingClientError
    from moto.autoscaling.models import AutoScalingBackend, TerminateInstanceActivity

    original_init = AutoScalingBackend.__init__
    original_create = AutoScalingBackend.create_auto_scaling_group

    def __init__(backend: Any, region_name: str, account_id: str) -> None:  # noqa: N807 - moto's
        original_init(backend, region_name, account_id)
        backend.autoscaling_groups = _GroupsByName()

    def create(backend: Any, name: str, *given: Any, **about: Any) -> Any:
        if name in backend.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists",
                f"AutoScalingGroup by this name already exists - A group with the name {name} already exists",
            )
        group = original_create(backend, name, *given, **about)
        fleet.settle(group)
        return group

    def notify_terminated(backend: Any, instance_ids: list[str]) -> None:
        """TerminateInstances of EC2; the group replaces what is missing."""
        del backend
        for each in instance_ids:
            if each in fleet.groups.hosts:
                fleet.end(
                    fleet.groups.hosts[each],
                    "an instance was taken out of service in response to an EC2 health check indicating it has "
                    "been terminated or stopped.",
                )

    def terminate(backend: Any, instance_id: str, should_decrement: bool) -> Any:
        host = fleet.groups.hosts.get(instance_id)
        if host is None or host.terminated or host.region != backend.region_name:
            raise _invalid(
                f"Instance Id not found - No managed instance found for instance ID: {instance_id}"
            )
        group = backend.autoscaling_groups[host.group]
        before = group.desired_capacity
        if should_decrement:
            if before <= group.min_size:
                raise _invalid(
                    f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without "
                    "replacement will violate group's min size constraint. Either set "
                    "shouldDecrementDesiredCapacity flag to false or lower group's min size."
                )
            group.desired_capacity -= 1
        fleet.end(host, "an instance was taken out of service in response to a user request.")
        return TerminateInstanceActivity(host.instance, before)

    replace(
        AutoScalingBackend,
        __init__=__init__,
        create_auto_scaling_group=create,
        notify_terminate_instances=notify_terminated,
        terminate_instance=terminate,
    )


def _install_instances(fleet: Fleet) -> None:
    """Instances that others terminate through EC2, such as moto's own helpers, end as hosts, too."""
    from moto.ec2.models.instances import Instance

    original = Instance.terminate

    def terminate(instance: Any) -> Any:
        previous = original(instance)
        host = fleet.groups.hosts.get(instance.id)
        if host is not None:
            fleet.end(host, "an instance was terminated.")
        return previous

    replace(Instance, terminate=terminate)


def _install_responses(fleet: Fleet) -> None:
    from moto.autoscaling.exceptions import AutoscalingClientError
    from moto.autoscaling.responses import AutoScalingResponse
    from moto.core.responses import ActionResult, EmptyResult

    def describe_scaling_activities(response: Any) -> ActionResult:
        name = response._get_param("AutoScalingGroupName")  # noqa: SLF001 - as moto's own answers do
        found = fleet.groups.activities(response.region, name)
        wanted = response._get_param("ActivityIds", [])  # noqa: SLF001
        if wanted:
            found = [each for each in found if each["ActivityId"] in wanted]
        start = int(response._get_param("NextToken") or 0)  # noqa: SLF001
        end = start + min(int(response._get_param("MaxRecords") or _PAGE), _PAGE)  # noqa: SLF001
        token = str(end) if end < len(found) else None
        return ActionResult({"Activities": found[start:end], "NextToken": token})

    def delete_auto_scaling_group(response: Any) -> ActionResult:
        backend = response.autoscaling_backend
        group = backend.autoscaling_groups[response._get_param("AutoScalingGroupName")]  # noqa: SLF001
        forced = response._get_bool_param("ForceDelete")  # noqa: SLF001
        if fleet.groups.of(group) and not forced:
            raise AutoscalingClientError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance "
                "request(s) still in the group.",
            )
        fleet.forget(group)
        del backend.autoscaling_groups[group.name]
        for key, action in list(backend.scheduled_actions.items()):
            if action.auto_scaling_group_name == group.name:
                del backend.scheduled_actions[key]
        return EmptyResult()

    replace(
        AutoScalingResponse,
        describe_scaling_activities=describe_scaling_activities,
        delete_auto_scaling_group=delete_auto_scaling_group,
    )


def _invalid(message: str) -> Exception:
    from moto.autoscaling.exceptions import ValidationError

    return ValidationError(message)
