"""EC2 hosts of the simulated account: joining, room, placement, interruptions, what their metadata service says."""

import json
import os
import urllib.error
import urllib.request

import pytest
from ec2_capacity import GPU_IMAGE, X86_IMAGE, Capacity, refused

from helpers import eventually
from starburst.errors import ProviderError

GONE = "Host EC2 (instance {}) terminated."


def test_instances_join_the_cluster_that_their_script_names(capacity):
    capacity.make(sizes=(0, 2, 4), managed=False)
    hosts = capacity.joined(2)
    assert {each.zone for each in hosts} == {"us-east-1a", "us-east-1b"}
    assert {each.capacity_provider for each in hosts} == {capacity.name}
    first = hosts[0]
    assert (first.cpu, first.memory_mib, first.gpus) == (4096, 7782, 0)
    assert (first.architecture, first.spot) == ("arm64", False)

    arns = capacity.ecs.list_container_instances(cluster=capacity.name)["containerInstanceArns"]
    found = capacity.ecs.describe_container_instances(cluster=capacity.name, containerInstances=arns)
    assert not found["failures"]
    about = next(each for each in found["containerInstances"] if each["ec2InstanceId"] == first.instance_id)
    assert (about["status"], about["agentConnected"]) == ("ACTIVE", True)
    assert about["capacityProviderName"] == capacity.name
    attributes = {each["name"]: each.get("value") for each in about["attributes"]}
    assert attributes["ecs.instance-type"] == "c7g.xlarge"
    assert attributes["ecs.cpu-architecture"] == "arm64"
    assert attributes["ecs.availability-zone"] == first.zone
    assert len(about["containerInstanceArn"].rpartition("/")[2]) == 32
    assert room(about["registeredResources"]) == {"CPU": 4096, "MEMORY": 7782}


def room(resources):
    return {each["name"]: each["integerValue"] for each in resources if each["name"] in {"CPU", "MEMORY"}}


def test_a_cluster_without_hosts_is_described_without_an_error(capacity):
    capacity.ecs.create_cluster(clusterName=capacity.name)
    assert capacity.ecs.list_container_instances(cluster=capacity.name)["containerInstanceArns"] == []
    arn = f"arn:aws:ecs:us-east-1:123456789012:container-instance/{capacity.name}/{'0' * 32}"
    found = capacity.ecs.describe_container_instances(cluster=capacity.name, containerInstances=[arn])
    assert [each["reason"] for each in found["failures"]] == ["MISSING"]


def test_an_instance_whose_script_names_no_cluster_of_ours_never_joins(aws, capacity):
    capacity.make(sizes=(0, 1, 1), managed=False, extra="echo ECS_CLUSTER=elsewhere >> /etc/ecs/ecs.config")
    later = Capacity(aws).make(sizes=(0, 1, 1), managed=False)
    later.joined(1)
    later.clean()
    assert [(each.state, each.cluster) for each in capacity.hosts()] == [("pending", "")]


def test_tasks_take_room_and_give_it_back(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False).define(cpu=1024, memory=3000)
    capacity.joined(1)
    capacity.run(2, provider=False)
    tasks = capacity.running(2)
    (host,) = capacity.hosts()
    assert (host.free_cpu, host.free_memory_mib) == (2048, 1782)
    assert sorted(host.tasks) == sorted(each.task_id for each in tasks)
    assert {each.host for each in tasks} == {host.instance_id}
    assert {each.zone for each in tasks} == {host.zone}
    arns = capacity.ecs.list_container_instances(cluster=capacity.name)["containerInstanceArns"]
    (about,) = capacity.ecs.describe_container_instances(cluster=capacity.name, containerInstances=arns)[
        "containerInstances"
    ]
    assert room(about["remainingResources"]) == {"CPU": 2048, "MEMORY": 1782}
    assert about["runningTasksCount"] == 2

    refusal = capacity.run(1, provider=False)
    assert not refusal["tasks"]
    assert refusal["failures"] == [{"arn": arns[0], "reason": "RESOURCE:MEMORY"}]

    capacity.stop_all()
    eventually(lambda: capacity.hosts()[0].free_cpu == 4096)
    assert not capacity.hosts()[0].tasks


def test_without_hosts_the_launch_type_is_refused(capacity):
    capacity.make(managed=False).define()
    assert refused(capacity.run, count=1, provider=False) == (
        "InvalidParameterException",
        "No Container Instances were found in your cluster.",
    )


def test_without_managed_scaling_tasks_do_not_wait(capacity):
    capacity.make(managed=False).define()
    assert [each["reason"] for each in capacity.run(2)["failures"]] == ["RESOURCE:CPU", "RESOURCE:CPU"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"cpu": 5000}, "RESOURCE:CPU"),
        ({"memory": 8000}, "RESOURCE:MEMORY"),
        ({"gpus": 1}, "RESOURCE:GPU"),
        ({"architecture": "X86_64"}, "ATTRIBUTE"),
        (
            {
                "placementConstraints": [
                    {"type": "memberOf", "expression": "attribute:ecs.instance-type == c5.large"}
                ]
            },
            "ATTRIBUTE",
        ),
    ],
)
def test_why_a_task_gets_no_host(hosts_for_placement, what, reason):
    constraints = {"placementConstraints": what.pop("placementConstraints", [])}
    hosts_for_placement.define(**what)
    answer = hosts_for_placement.run(1, provider=False, **constraints)
    assert [each["reason"] for each in answer["failures"]] == [reason]


@pytest.fixture(scope="module")
def hosts_for_placement(aws):
    """Three empty hosts: two in the first zone or the second, as the group likes."""
    made = Capacity(aws).make(sizes=(0, 3, 3), managed=False)
    made.joined(3)
    yield made
    made.clean()


def test_placement_strategies_and_constraints(hosts_for_placement):
    capacity = hosts_for_placement
    capacity.define(cpu=512, memory=512)
    packed = {"placementStrategy": [{"type": "binpack", "field": "memory"}]}
    capacity.run(5, provider=False, **packed)
    assert len({each.host for each in capacity.running(5)}) == 1
    capacity.stop_all()

    spread = {"placementStrategy": [{"type": "spread", "field": "instanceId"}]}
    capacity.run(3, provider=False, **spread)
    assert len({each.host for each in capacity.running(3)}) == 3
    capacity.stop_all()

    apart = {"placementConstraints": [{"type": "distinctInstance"}]}
    answer = capacity.run(4, provider=False, **apart)
    assert (len(answer["tasks"]), len(answer["failures"])) == (3, 1)
    assert len({each.host for each in capacity.running(3)}) == 3
    capacity.stop_all()

    zone = "attribute:ecs.availability-zone in [us-east-1b] and attribute:ecs.instance-type =~ c7g.*"
    there = {"placementConstraints": [{"type": "memberOf", "expression": zone}]}
    capacity.run(2, provider=False, **there)
    assert {each.zone for each in capacity.running(2)} == {"us-east-1b"}
    capacity.stop_all()


def test_a_network_interface_for_each_task_in_awsvpc_mode(capacity):
    capacity.make(types=["c7g.large"], sizes=(0, 1, 1), managed=False)
    capacity.define(cpu=128, memory=128, network="awsvpc")
    capacity.joined(1)
    subnet = capacity.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    network = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet]}}}
    answer = capacity.run(3, provider=False, **network)
    assert len(answer["tasks"]) == 2
    assert [each["reason"] for each in answer["failures"]] == ["RESOURCE:ENI"]


def test_gpus(capacity):
    capacity.make(
        types=["g4dn.12xlarge"],
        image=GPU_IMAGE,
        sizes=(0, 1, 1),
        managed=False,
        extra="echo ECS_ENABLE_GPU_SUPPORT=true >> /etc/ecs/ecs.config",
    ).define(gpus=3, architecture="X86_64")
    assert capacity.joined(1)[0].gpus == 4
    answer = capacity.run(2, provider=False)
    assert len(answer["tasks"]) == 1
    assert [each["reason"] for each in answer["failures"]] == ["RESOURCE:GPU"]


def test_no_gpus_without_the_agents_support(capacity):
    capacity.make(types=["g4dn.xlarge"], image=GPU_IMAGE, sizes=(0, 1, 1), managed=False)
    assert capacity.joined(1)[0].gpus == 0


def test_an_image_of_the_other_architecture_does_not_start(capacity):
    capacity.make(types=["c7g.xlarge"], image=X86_IMAGE, sizes=(0, 1, 1), managed=False)
    message = eventually(lambda: capacity.activities("Failed"))[0]["StatusMessage"]
    assert "'arm64' of the specified instance type does not match the architecture 'x86_64'" in message
    assert not capacity.hosts()


def test_a_host_that_dies_takes_its_tasks_along_and_is_replaced(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False).define()
    (host,) = capacity.joined(1)
    capacity.run(2, provider=False)
    pids = [each.pid for each in capacity.running(2)]
    capacity.aws.kill_host(host.instance_id)
    eventually(lambda: len(capacity.tasks(last_status="STOPPED")) == 2)
    for task in capacity.tasks():
        assert task.stop_code == "TerminationNotice"
        assert task.stopped_reason == GONE.format(host.instance_id)
    eventually(lambda: not any(alive(pid) for pid in pids))
    (other,) = capacity.joined(1)
    assert other.instance_id != host.instance_id
    states = {each["InstanceId"]: each["State"]["Name"] for each in capacity.instances()}
    assert states[host.instance_id] == "terminated"


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_terminating_an_instance_through_ec2_is_the_same(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False)
    (host,) = capacity.joined(1)
    capacity.ec2.terminate_instances(InstanceIds=[host.instance_id])
    eventually(
        lambda: [each.instance_id for each in capacity.hosts("running")] not in ([], [host.instance_id])
    )
    arns = capacity.ecs.list_container_instances(cluster=capacity.name)["containerInstanceArns"]
    assert len(arns) == 1


LOOK = """
import json, os, time, urllib.request, urllib.error
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "/latest/"
def ask(path, token=None, **how):
    headers = {"X-aws-ec2-metadata-token": token} if token else how.pop("headers", {})
    try:
        with urllib.request.urlopen(urllib.request.Request(base + path, headers=headers, **how)) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code
seen = {"untokened": ask("meta-data/instance-id")}
token = ask("api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
for name in ("instance-id", "instance-type", "instance-life-cycle", "placement/region", "spot/instance-action"):
    seen[name] = ask("meta-data/" + name, token)
print(json.dumps(seen), flush=True)
deadline = time.monotonic() + 30
while ask("meta-data/spot/instance-action", token) == 404 and time.monotonic() < deadline:
    time.sleep(0.02)
print(ask("meta-data/spot/instance-action", token), flush=True)
time.sleep(1000)
"""


def test_a_spot_host_is_taken_after_a_notice(capacity):
    logs = capacity.client("logs")
    logs.create_log_group(logGroupName=f"/{capacity.name}")
    capacity.make(spot=100, sizes=(0, 1, 1), protect=False).define(
        command=["python3", "-c", LOOK],
        logs={
            "awslogs-group": f"/{capacity.name}",
            "awslogs-region": "us-east-1",
            "awslogs-stream-prefix": "t",
        },
    )
    (host,) = capacity.joined(1)
    assert host.spot
    capacity.run(1)
    (task,) = capacity.running(1)

    def lines():
        try:
            found = logs.get_log_events(
                logGroupName=f"/{capacity.name}", logStreamName=f"t/worker/{task.task_id}", startFromHead=True
            )
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [json.loads(each["message"]) for each in found["events"]]

    (seen,) = eventually(lines)
    assert seen == {
        "untokened": 401,
        "instance-id": host.instance_id,
        "instance-type": "c7g.xlarge",
        "instance-life-cycle": "spot",
        "placement/region": "us-east-1",
        "spot/instance-action": 404,
    }
    capacity.aws.interrupt_host(host.instance_id)
    states = {each.instance_id: each.state for each in capacity.aws.hosts()}
    assert states[host.instance_id] == "draining"  # for the two seconds until its end
    stopped = eventually(lambda: capacity.tasks(last_status="STOPPED"))
    assert stopped[0].stopped_reason == GONE.format(host.instance_id)
    assert eventually(lambda: lines()[1:])[0]["action"] == "terminate"


def test_only_spot_hosts_can_be_interrupted(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False)
    (host,) = capacity.joined(1)
    with pytest.raises(ProviderError, match="not a Spot instance"):
        capacity.aws.interrupt_host(host.instance_id)
    with pytest.raises(ProviderError, match="i-none"):
        capacity.aws.kill_host("i-none")


def test_a_draining_host_takes_no_tasks(capacity):
    capacity.make(sizes=(0, 1, 1), managed=False).define()
    capacity.joined(1)
    arns = capacity.ecs.list_container_instances(cluster=capacity.name)["containerInstanceArns"]
    capacity.ecs.update_container_instances_state(
        cluster=capacity.name, containerInstances=arns, status="DRAINING"
    )
    assert [each.state for each in capacity.hosts()] == ["draining"]
    assert [each["reason"] for each in capacity.run(1, provider=False)["failures"]] == ["AGENT"]


def test_the_metadata_of_a_host_that_is_gone(aws):
    address = f"{aws._control}/imds/i-0/latest/meta-data/instance-id"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address)
