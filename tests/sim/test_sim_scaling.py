"""Auto Scaling groups, managed scaling and things that happen at a given time, in the simulated account."""

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from ec2_capacity import Capacity

from helpers import eventually
from starburst.testing.aws.groups import is_next_spot
from starburst.testing.aws.hosts import cluster_in, shape_of
from starburst.testing.aws.placement import hosts_needed
from starburst.testing.aws.scaling import Settings, scaled_out
from starburst.testing.aws.schedules import moment_of, universal_target


@pytest.fixture
def capacity(aws):
    made = Capacity(aws)
    yield made
    made.clean()


@pytest.fixture
def quota(aws):
    def setter(code, value):
        aws.set_quota("ec2", code, value)
        changed.append(code)

    changed = []
    yield setter
    for code in changed:
        aws.set_quota("ec2", code, 4000)


def refused(call, **given):
    with pytest.raises(ClientError) as error:
        call(**given)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


SETTINGS = {
    "enabled": True,
    "target": 100,
    "least_step": 1,
    "largest_step": 10000,
    "protects": True,
    "drains": True,
}


@pytest.mark.parametrize(
    ("needed", "there", "changes", "expected"),
    [
        (0, 0, {}, 0),
        (1, 0, {}, 2),
        (50, 0, {}, 2),
        (50, 2, {}, 50),
        (3, 5, {}, 5),
        (8, 2, {"largest_step": 3}, 5),
        (3, 2, {"least_step": 4}, 6),
        (1, 0, {"least_step": 4}, 4),
        (4, 4, {"target": 50}, 8),
    ],
)
def test_how_many_hosts_ecs_asks_for(needed, there, changes, expected):
    settings = Settings(**{**SETTINGS, **changes})
    assert scaled_out(needed=needed, there=there, settings=settings) == expected


def test_packing_of_tasks_that_wait():
    def task(cpu, memory, gpus=0):
        definition = SimpleNamespace(runtime_platform=None)
        return SimpleNamespace(
            cpu=cpu,
            memory_mib=memory,
            gpus=gpus,
            attachments=[],
            definition=definition,
            architecture="x86_64",
        )

    xlarge, gpu = shape_of("c7i.xlarge"), shape_of("g5.xlarge")
    assert hosts_needed([task(1024, 1024)] * 9, [xlarge]) == 3
    assert hosts_needed([task(1024, 4000)] * 4, [xlarge]) == 4
    assert hosts_needed([task(100, 100, gpus=1)] * 2, [xlarge, gpu]) == 2
    assert hosts_needed([task(9000, 100)], [xlarge]) == 0


@pytest.mark.parametrize(
    ("base", "percent", "expected"), [(0, 0, 0), (0, 100, 10), (0, 25, 3), (2, 50, 6), (1, 0, 1)]
)
def test_share_of_spot(base, percent, expected):
    distribution = {"OnDemandBaseCapacity": base, "OnDemandPercentageAboveBaseCapacity": percent}
    group = SimpleNamespace(mixed_instances_policy={"InstancesDistribution": distribution})
    on_demand = 0
    for total in range(10):
        on_demand += not is_next_spot(group, on_demand=on_demand, total=total)
    assert on_demand == expected == base + math.ceil((10 - base) * percent / 100)


def test_what_the_agent_reads():
    import base64

    script = "#!/bin/bash\ncat >> /etc/ecs/ecs.config <<'END'\nECS_CLUSTER=mine\nECS_ENABLE_GPU_SUPPORT=true\nEND\n"
    assert cluster_in(base64.b64encode(script.encode()).decode()) == ("mine", True)
    assert cluster_in(base64.b64encode(b"echo 'ECS_CLUSTER=other' >> x").decode()) == ("other", False)
    assert cluster_in(None) == ("default", False)


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


# --- managed scaling


def test_from_nothing_and_back(capacity):
    capacity.make().define(cpu=2048, memory=2000)
    answer = capacity.run(5)
    assert [each["lastStatus"] for each in answer["tasks"]] == ["PROVISIONING"] * 5
    tasks = capacity.running(5)
    assert {each.capacity_provider for each in tasks} == {capacity.name}
    hosts = capacity.hosts()
    assert len(hosts) == 3
    assert capacity.group()["DesiredCapacity"] == 3
    assert all(each["ProtectedFromScaleIn"] for each in capacity.group()["Instances"])

    # Three tasks end: a host that is empty then goes, one that still runs something stays.
    first = tasks[0].host
    for task in tasks:
        if task.host != first:
            capacity.ecs.stop_task(cluster=capacity.name, task=task.task_arn)
    eventually(lambda: [each.instance_id for each in capacity.hosts()] == [first])
    assert len(capacity.tasks(last_status="RUNNING")) == sum(each.host == first for each in tasks)
    capacity.stop_all()
    eventually(lambda: not capacity.hosts())
    assert capacity.group()["DesiredCapacity"] == 0
    ends = [each for each in capacity.activities() if each["Description"].startswith("Terminating")]
    assert len(ends) == 3


def test_a_single_task_starts_two_hosts(capacity):
    capacity.make().define()
    capacity.run(1)
    capacity.running(1)
    assert len(capacity.hosts()) == 2
    eventually(lambda: len(capacity.hosts()) == 1)
    assert capacity.tasks(last_status="RUNNING")


def test_the_minimum_stays(capacity):
    capacity.make(sizes=(1, 1, 5)).define(cpu=4096)
    capacity.run(3)
    capacity.running(3)
    capacity.stop_all()
    eventually(lambda: len(capacity.hosts()) == 1)
    assert capacity.group()["DesiredCapacity"] == 1


def test_the_maximum_holds_and_the_rest_waits(capacity):
    capacity.make(sizes=(0, 0, 1)).define(cpu=2048)
    capacity.run(3)
    first, _ = capacity.running(2)
    assert len(capacity.tasks(last_status="PROVISIONING")) == 1
    assert len(capacity.hosts()) == 1
    capacity.ecs.stop_task(cluster=capacity.name, task=first.task_arn)
    eventually(lambda: not capacity.tasks(last_status="PROVISIONING"))
    capacity.running(2)


def test_a_task_that_waits_can_be_stopped(capacity):
    capacity.make(sizes=(0, 0, 0)).define()
    capacity.run(1)
    capacity.stop_all()
    (task,) = capacity.tasks()
    assert (task.stop_code, task.exit_code, task.host) == ("UserInitiated", None, "")
    capacity.asg.update_auto_scaling_group(AutoScalingGroupName=capacity.name, MaxSize=3)
    capacity.run(1)
    assert capacity.running(1)[0].task_id != task.task_id


def test_a_task_that_fits_on_no_type_starts_no_host(capacity):
    capacity.make().define(cpu=8192)
    capacity.run(1)
    capacity.define(cpu=1024).run(1)
    capacity.running(1)
    assert len(capacity.tasks(last_status="PROVISIONING")) == 1
    assert len(capacity.hosts()) <= 2


def test_more_tasks_than_may_wait(capacity):
    capacity.make(sizes=(0, 0, 0)).define()
    answers = [capacity.run(10) for _ in range(51)]
    assert sum(len(each["tasks"]) for each in answers) == 500
    assert len(answers[-1]["failures"]) == 10
    capacity.asg.delete_auto_scaling_group(AutoScalingGroupName=capacity.name)


def test_a_busy_host_is_drained_when_it_is_not_protected(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False, protect=False).define()
    (host,) = capacity.joined(1)
    capacity.run(1, provider=False)
    (task,) = capacity.running(1)
    capacity.asg.set_desired_capacity(AutoScalingGroupName=capacity.name, DesiredCapacity=0)
    assert [each.state for each in capacity.hosts()] == ["draining"]
    assert capacity.group()["Instances"][0]["LifecycleState"] == "Terminating:Wait"
    assert capacity.tasks(last_status="RUNNING") == [task]
    capacity.stop_all()
    eventually(lambda: not capacity.hosts())
    assert not capacity.group()["Instances"]
    assert host.spot is False


def test_without_draining_a_busy_host_ends_with_its_tasks(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False, protect=False, draining="DISABLED").define()
    capacity.joined(1)
    capacity.run(1, provider=False)
    capacity.running(1)
    capacity.asg.set_desired_capacity(AutoScalingGroupName=capacity.name, DesiredCapacity=0)
    (task,) = eventually(lambda: capacity.tasks(last_status="STOPPED"))
    assert task.stopped_reason.startswith("Host EC2 (instance i-")


# --- quotas and capacity


def test_vcpu_quota_of_on_demand_hosts(capacity, quota):
    quota("L-1216C47A", 8)
    capacity.make().define(cpu=4096)
    capacity.run(4)
    capacity.running(2)
    failed = eventually(lambda: capacity.activities("Failed"))[0]
    assert "VcpuLimitExceeded" in failed["StatusMessage"]
    assert "more vCPU capacity than your current vCPU limit of 8 allows" in failed["StatusMessage"]
    assert failed["Description"].startswith("Launching a new EC2 instance.  Status Reason: ")
    assert len(capacity.hosts()) == 2
    assert len(capacity.tasks(last_status="PROVISIONING")) == 2
    quota("L-1216C47A", 16)
    capacity.running(4)


def test_vcpu_quota_of_spot_hosts_falls_to_a_smaller_type(capacity, quota):
    quota("L-34B43A08", 6)
    capacity.make(types=["c7g.xlarge", "c7g.large"], spot=100, sizes=(0, 3, 5), managed=False)
    types = [each.instance_type for each in capacity.joined(2)]
    assert types == ["c7g.xlarge", "c7g.large"]
    assert (
        "MaxSpotInstanceCountExceeded"
        in eventually(lambda: capacity.activities("Failed"))[0]["StatusMessage"]
    )


def test_no_capacity_in_one_zone_or_of_one_type_falls_to_the_next(aws, capacity):
    aws.fail("ec2:RunInstances", "capacity", zone="us-east-1a")
    aws.fail("ec2:RunInstances", "capacity", instance_type="c7g.xlarge", spot=True)
    capacity.make(types=["c7g.xlarge", "c6g.xlarge"], spot=100, sizes=(0, 2, 5), managed=False)
    hosts = capacity.joined(2)
    assert {(each.instance_type, each.zone) for each in hosts} == {("c6g.xlarge", "us-east-1b")}
    assert not capacity.activities("Failed")


@pytest.mark.parametrize(
    ("spot", "text"), [(100, "no Spot capacity available"), (0, "do not have sufficient c7g.xlarge")]
)
def test_no_capacity_at_all_until_there_is_some(aws, capacity, spot, text):
    capacity.make(spot=spot).define()
    script = aws.fail("ec2:RunInstances", "capacity", group=capacity.name)
    capacity.run(1)
    failed = eventually(lambda: capacity.activities("Failed"))[0]
    assert "InsufficientInstanceCapacity" in failed["StatusMessage"]
    assert text in failed["StatusMessage"]
    assert not capacity.hosts()
    aws.clear(script)
    capacity.running(1)


def test_a_group_with_both_purchase_options(capacity):
    capacity.make(spot=50, base=1, sizes=(0, 5, 5), managed=False)
    hosts = capacity.joined(5)
    assert sum(not each.spot for each in hosts) == 3
    kinds = [each.get("InstanceLifecycle") for each in capacity.instances()]
    assert kinds.count("spot") == 2


# --- the API where moto is too kind, or fails


def test_sizes_that_contradict_each_other(capacity):
    capacity.make(sizes=(0, 1, 2), managed=False)
    name = capacity.name
    code, text = refused(capacity.asg.set_desired_capacity, AutoScalingGroupName=name, DesiredCapacity=3)
    assert (code, text) == (
        "ValidationError",
        "New SetDesiredCapacity value 3 is above max value 2 for the AutoScalingGroup.",
    )
    code, _ = refused(capacity.asg.update_auto_scaling_group, AutoScalingGroupName=name, MinSize=4)
    assert code == "ValidationError"
    capacity.asg.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=2)
    assert capacity.group()["DesiredCapacity"] == 2
    capacity.asg.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=0, MaxSize=0)
    assert capacity.group()["DesiredCapacity"] == 0


def test_an_update_keeps_what_it_does_not_name(capacity):
    capacity.make(types=["c7g.xlarge", "c6g.xlarge"], spot=100, managed=False)
    before = capacity.group()
    capacity.asg.update_auto_scaling_group(AutoScalingGroupName=capacity.name, MaxSize=7)
    after = capacity.group()
    assert after["MixedInstancesPolicy"] == before["MixedInstancesPolicy"]
    assert after["NewInstancesProtectedFromScaleIn"] is True
    assert (before["MaxSize"], after["MaxSize"]) == (10, 7)


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("set_desired_capacity", {"DesiredCapacity": 1}),
        ("update_auto_scaling_group", {"MaxSize": 1}),
        ("delete_auto_scaling_group", {}),
        ("put_scheduled_update_group_action", {"ScheduledActionName": "x", "MaxSize": 0}),
        ("set_instance_protection", {"InstanceIds": ["i-1"], "ProtectedFromScaleIn": False}),
    ],
)
def test_a_group_that_is_not_there(aws, operation, more):
    asg = Capacity(aws).asg
    if operation == "put_scheduled_update_group_action":
        more["StartTime"] = datetime.now(UTC) + timedelta(hours=1)
    code, text = refused(getattr(asg, operation), AutoScalingGroupName="not-there", **more)
    assert code == "ValidationError"
    assert "not found" in text


def test_instances_of_nobody(aws):
    asg = Capacity(aws).asg
    code, text = refused(
        asg.terminate_instance_in_auto_scaling_group, InstanceId="i-1", ShouldDecrementDesiredCapacity=True
    )
    assert (code, text) == (
        "ValidationError",
        "Instance Id not found - No managed instance found for instance ID: i-1",
    )


def test_an_instance_terminated_by_its_group(capacity):
    capacity.make(sizes=(0, 2, 2), managed=False)
    first, second = capacity.joined(2)
    capacity.asg.terminate_instance_in_auto_scaling_group(
        InstanceId=first.instance_id, ShouldDecrementDesiredCapacity=True
    )
    assert [each.instance_id for each in capacity.hosts()] == [second.instance_id]
    assert capacity.group()["DesiredCapacity"] == 1


def test_groups_are_made_once_and_deleted_when_empty(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False)
    code, _ = refused(
        capacity.asg.create_auto_scaling_group,
        AutoScalingGroupName=capacity.name,
        MinSize=0,
        MaxSize=1,
        LaunchTemplate={"LaunchTemplateName": capacity.name},
        AvailabilityZones=["us-east-1a"],
    )
    assert code == "AlreadyExists"
    code, text = refused(capacity.asg.delete_auto_scaling_group, AutoScalingGroupName=capacity.name)
    assert code == "ResourceInUse"
    assert "while there are instances" in text
    capacity.joined(1)
    capacity.asg.delete_auto_scaling_group(AutoScalingGroupName=capacity.name, ForceDelete=True)
    assert not capacity.hosts()
    assert not capacity.ecs.list_container_instances(cluster=capacity.name)["containerInstanceArns"]


def test_capacity_providers(capacity):
    capacity.make()
    ecs, name = capacity.ecs, capacity.name
    provider = {"autoScalingGroupArn": capacity.group()["AutoScalingGroupARN"]}
    assert {"Key": "AmazonECSManaged", "Value": ""}.items() <= capacity.group()["Tags"][0].items()
    code, text = refused(ecs.create_capacity_provider, name=name, autoScalingGroupProvider=provider)
    assert code == "ClientException"
    assert "already exists" in text
    missing = {"autoScalingGroupArn": provider["autoScalingGroupArn"] + "x"}
    code, text = refused(ecs.create_capacity_provider, name="other", autoScalingGroupProvider=missing)
    assert "Auto Scaling group ARN is not valid" in text
    assert refused(ecs.delete_capacity_provider, capacityProvider="not-there")[0] == "ClientException"
    assert "associated with cluster" in refused(ecs.delete_capacity_provider, capacityProvider=name)[1]
    capacity.asg.update_auto_scaling_group(AutoScalingGroupName=name, NewInstancesProtectedFromScaleIn=False)
    protected = {
        **provider,
        "managedScaling": {"status": "ENABLED"},
        "managedTerminationProtection": "ENABLED",
    }
    code, text = refused(ecs.create_capacity_provider, name="third", autoScalingGroupProvider=protected)
    assert "instance protection from scale in enabled" in text
    ecs.put_cluster_capacity_providers(cluster=name, capacityProviders=[], defaultCapacityProviderStrategy=[])
    ecs.delete_capacity_provider(capacityProvider=name)
    assert not ecs.describe_capacity_providers(capacityProviders=[name])["capacityProviders"]


# --- at a given time


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
