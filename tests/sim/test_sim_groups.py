"""Auto Scaling groups and capacity providers of the simulated account: quotas, capacity, AWS's refusals."""

from datetime import UTC, datetime, timedelta

import pytest
from ec2_capacity import Capacity, refused

from helpers import eventually


@pytest.fixture
def quota(aws):
    def setter(code, value):
        aws.set_quota("ec2", code, value)
        changed.append(code)

    changed = []
    yield setter
    for code in changed:
        aws.set_quota("ec2", code, 4000)


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
