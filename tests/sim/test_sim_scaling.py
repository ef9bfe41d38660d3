"""Managed scaling of the simulated account: how many hosts there are for the tasks that wait and run."""

import base64
import math
from types import SimpleNamespace

import pytest

from helpers import eventually
from starburst.testing.aws.groups import is_next_spot
from starburst.testing.aws.hosts import cluster_in, shape_of
from starburst.testing.aws.placement import hosts_needed
from starburst.testing.aws.scaling import Settings, scaled_out

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
    script = "#!/bin/bash\ncat >> /etc/ecs/ecs.config <<'END'\nECS_CLUSTER=mine\nECS_ENABLE_GPU_SUPPORT=true\nEND\n"
    assert cluster_in(base64.b64encode(script.encode()).decode()) == ("mine", True)
    assert cluster_in(base64.b64encode(b"echo 'ECS_CLUSTER=other' >> x").decode()) == ("other", False)
    assert cluster_in(None) == ("default", False)


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
