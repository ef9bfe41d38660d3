"""Things that happen at a given time in the simulated account: scheduled actions, EventBridge Scheduler."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError
from ec2_capacity import Capacity, refused

from helpers import eventually
from starburst.testing.aws.schedules import moment_of, universal_target


def test_schedule_expressions():
    assert moment_of("at(2026-11-24T12:00:00)", "UTC") == datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
    berlin = moment_of("at(2026-07-01T12:00:00)", "Europe/Berlin")
    assert berlin == datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp()
    assert moment_of("rate(5 minutes)", "UTC") is None
    assert moment_of("cron(0 10 * * ? *)", "UTC") is None
    for wrong in ("at(tomorrow)", "at(2026-13-01T00:00:00)", "every now and then"):
        with pytest.raises(ValueError, match="Invalid Schedule Expression"):
            moment_of(wrong, "UTC")
    assert universal_target("arn:aws:scheduler:::aws-sdk:ecs:stopTask") == ("ecs", "stopTask")
    with pytest.raises(ValueError, match="only reads"):
        universal_target("arn:aws:scheduler:::aws-sdk:ecs:listTasks")


def soon(seconds=2):
    """A whole second, as AWS's times are."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)


def test_a_scheduled_action_closes_a_group_and_busy_hosts_go_with_their_last_task(capacity):
    capacity.make().define(cpu=4096)
    capacity.run(2)
    capacity.running(2)
    capacity.asg.put_scheduled_update_group_action(
        AutoScalingGroupName=capacity.name,
        ScheduledActionName="close",
        StartTime=soon(),
        MinSize=0,
        MaxSize=0,
        DesiredCapacity=0,
    )
    eventually(lambda: capacity.group()["MaxSize"] == 0)
    found = capacity.asg.describe_scheduled_actions(AutoScalingGroupName=capacity.name)
    assert not found["ScheduledUpdateGroupActions"]
    assert len(capacity.hosts()) == 2
    assert len(capacity.tasks(last_status="RUNNING")) == 2
    capacity.stop_all()
    eventually(lambda: not capacity.hosts())


def test_scheduled_actions_belong_to_their_group(aws, capacity):
    capacity.make(managed=False)
    other = Capacity(aws).make(managed=False)
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    action = {"ScheduledActionName": "close", "StartTime": at}
    for each, size in ((capacity, 1), (other, 2)):
        each.asg.put_scheduled_update_group_action(AutoScalingGroupName=each.name, **action, MaxSize=size)
    sizes = {
        each["AutoScalingGroupName"]: each["MaxSize"]
        for each in capacity.asg.describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    }
    assert sizes == {capacity.name: 1, other.name: 2}
    put, name = capacity.asg.put_scheduled_update_group_action, capacity.name
    clash = {"AutoScalingGroupName": name, "ScheduledActionName": "too", "StartTime": at, "MaxSize": 0}
    assert refused(put, **clash)[0] == "AlreadyExists"
    past = {**clash, "StartTime": at - timedelta(hours=2)}
    assert "in the past" in refused(put, **past)[1]
    delete = capacity.asg.delete_scheduled_action
    delete(AutoScalingGroupName=name, ScheduledActionName="close")
    assert refused(delete, AutoScalingGroupName=name, ScheduledActionName="close")[0] == "ValidationError"
    assert len(capacity.asg.describe_scheduled_actions()["ScheduledUpdateGroupActions"]) == 1
    other.clean()
    assert not capacity.asg.describe_scheduled_actions()["ScheduledUpdateGroupActions"]


def test_a_schedule_stops_a_task(capacity):
    capacity.make().define()
    capacity.run(1)
    (task,) = capacity.running(1)
    given = {"Cluster": capacity.name, "Task": task.task_arn, "Reason": "the schedule says so"}
    capacity.schedule(
        "stop-task", f"{soon():%Y-%m-%dT%H:%M:%S}", "ecs:stopTask", given, role=capacity.role("ecs:StopTask")
    )
    (stopped,) = eventually(lambda: capacity.tasks(last_status="STOPPED"))
    assert (stopped.stop_code, stopped.stopped_reason) == ("UserInitiated", "the schedule says so")
    assert not capacity.scheduler.list_schedules(NamePrefix="stop-task")["Schedules"]


def test_schedules_close_a_group_and_empty_a_service(capacity):
    capacity.make(sizes=(0, 1, 3), managed=False, protect=False).define()
    capacity.joined(1)
    capacity.ecs.create_service(
        cluster=capacity.name, serviceName="pool", taskDefinition=capacity.name, desiredCount=4
    )
    at = f"{soon():%Y-%m-%dT%H:%M:%S}"
    group = {"AutoScalingGroupName": capacity.name, "MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
    service = {"Cluster": capacity.name, "Service": "pool", "DesiredCount": 0}
    role = capacity.role("autoscaling:UpdateAutoScalingGroup", "ecs:UpdateService")
    capacity.schedule("close", at, "autoscaling:updateAutoScalingGroup", group, role=role)
    capacity.schedule("empty", at, "ecs:updateService", service, role=role, ActionAfterCompletion="NONE")
    eventually(lambda: capacity.group()["MaxSize"] == 0 and not capacity.hosts())

    def desired():
        found = capacity.ecs.describe_services(cluster=capacity.name, services=["pool"])
        return found["services"][0]["desiredCount"]

    eventually(lambda: desired() == 0)
    assert [each["Name"] for each in capacity.scheduler.list_schedules()["Schedules"]] == ["empty"]
    capacity.scheduler.delete_schedule(Name="empty")
    capacity.ecs.delete_service(cluster=capacity.name, service="pool")


def test_a_dead_mans_switch_is_pushed_forward(capacity):
    capacity.make(sizes=(0, 0, 3), managed=False)
    given, action = (
        {"AutoScalingGroupName": capacity.name, "MaxSize": 1},
        "autoscaling:updateAutoScalingGroup",
    )
    role = capacity.role("autoscaling:UpdateAutoScalingGroup")
    capacity.schedule("switch", f"{soon():%Y-%m-%dT%H:%M:%S}", action, given, role=role)
    about = capacity.scheduler.get_schedule(Name="switch")
    later = f"{soon(3600):%Y-%m-%dT%H:%M:%S}"
    capacity.scheduler.update_schedule(
        Name="switch",
        ScheduleExpression=f"at({later})",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target=about["Target"],
        ActionAfterCompletion="DELETE",
    )
    due = {"AutoScalingGroupName": capacity.name, "MaxSize": 2}
    capacity.schedule("due", f"{soon(3):%Y-%m-%dT%H:%M:%S}", action, due, role=role)
    eventually(lambda: capacity.group()["MaxSize"] == 2)
    assert capacity.scheduler.get_schedule(Name="switch")["ActionAfterCompletion"] == "DELETE"
    capacity.scheduler.delete_schedule(Name="switch")


def test_a_schedule_may_do_what_its_role_may_and_no_more(capacity):
    capacity.make(sizes=(0, 0, 3), managed=False)
    action, name = "autoscaling:updateAutoScalingGroup", capacity.name
    at = f"{soon():%Y-%m-%dT%H:%M:%S}"
    capacity.schedule(f"{name}-may-not", at, action, {"AutoScalingGroupName": name, "MinSize": 1})
    may = capacity.role("autoscaling:UpdateAutoScalingGroup")
    later = f"{soon(3):%Y-%m-%dT%H:%M:%S}"
    capacity.schedule(f"{name}-may", later, action, {"AutoScalingGroupName": name, "MaxSize": 2}, role=may)
    eventually(lambda: capacity.group()["MaxSize"] == 2)
    assert capacity.group()["MinSize"] == 0


def test_schedules_that_the_scheduler_refuses(aws):
    capacity = Capacity(aws)
    make = capacity.schedule
    at = f"{soon(3600):%Y-%m-%dT%H:%M:%S}"
    with pytest.raises(ClientError, match="Invalid Schedule Expression"):
        make("wrong", "tomorrow", "ecs:stopTask", {})
    with pytest.raises(ClientError, match="only reads"):
        make("wrong", at, "ecs:listTasks", {})
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        make("wrong", at, "ecs:stopTask", {}, GroupName="not-there")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        capacity.scheduler.delete_schedule_group(Name="not-there")
