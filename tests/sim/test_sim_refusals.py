"""What the simulated ECS refuses, and how: the errors that a provider must understand."""

import re

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError

from simulated import Account
from starburst.testing.aws import SimulatedAws

ON_DEMAND, SPOT = "L-3032A538", "L-36FBB829"


@pytest.fixture
def quota(aws):
    """Change a quota for one test."""
    yield lambda code, value: aws.set_quota("fargate", code, value)
    aws.set_quota("fargate", ON_DEMAND, aws.options.fargate_vcpus)
    aws.set_quota("fargate", SPOT, aws.options.fargate_spot_vcpus)


def refused(code, text=""):
    return pytest.raises(ClientError, match=rf"\({code}\).*{text}")


def test_client_token(account):
    definition = account.register("sleep", "600")
    request = account.request(definition, count=3, clientToken="token-1")
    first = account.ecs.run_task(**request)
    again = account.ecs.run_task(**request)
    arns = [each["taskArn"] for each in first["tasks"]]
    assert [each["taskArn"] for each in again["tasks"]] == arns
    assert len(account.aws.tasks(cluster=account.cluster)) == 3
    with refused("ConflictException", "already in use") as caught:
        account.ecs.run_task(**{**request, "count": 2})
    assert caught.value.response["resourceIds"] == arns
    account.ecs.run_task(**{**request, "clientToken": "token-2"})
    assert len(account.aws.tasks(cluster=account.cluster)) == 6


def test_a_reply_that_is_lost(account):
    account.aws.fail("ecs:RunTask", "lost-reply", times=1, cluster=account.cluster)
    definition = account.register("sleep", "600")
    request = account.request(definition, count=2, clientToken="lost-1")
    with pytest.raises((ConnectionClosedError, EndpointConnectionError, HTTPClientError)):
        account.client("ecs", retries=1).run_task(**request)
    assert len(account.aws.tasks(cluster=account.cluster)) == 2
    answer = account.ecs.run_task(**request)
    known = {each.task_arn for each in account.aws.tasks(cluster=account.cluster)}
    assert {each["taskArn"] for each in answer["tasks"]} == known
    assert len(known) == 2


def test_a_request_that_is_lost(account):
    account.aws.fail("ecs:RunTask", "lost-request", times=1, cluster=account.cluster)
    request = account.request(account.register("sleep", "600"))
    with pytest.raises((ConnectionClosedError, EndpointConnectionError, HTTPClientError)):
        account.client("ecs", retries=1).run_task(**request)
    assert account.aws.tasks(cluster=account.cluster) == []


def test_quota_of_vcpus(account, quota):
    quota(ON_DEMAND, 6)
    definition = account.register("sleep", "600", cpu="4096", memory="8192")
    answer = account.ecs.run_task(**account.request(definition, count=10))
    assert len(answer["tasks"]) == 1
    assert len(answer["failures"]) == 9
    assert "limit on the number of vCPUs" in answer["failures"][0]["reason"]
    # Spot has a quota of its own.
    assert account.run(definition, provider="FARGATE_SPOT", count=2)
    quota(ON_DEMAND, 8)
    assert len(account.run(definition)) == 1
    quota(SPOT, 1)
    answer = account.ecs.run_task(**account.request(definition, provider="FARGATE_SPOT"))
    assert "limit on the number of vCPUs" in answer["failures"][0]["reason"]


def test_vcpus_are_free_again_after_the_end(account, quota):
    definition = account.register("sleep", "600", cpu="1024", memory="2048")
    used = sum(each.cpu for each in account.aws.tasks(launch_type="FARGATE") if each.last_status != "STOPPED")
    quota(ON_DEMAND, used / 1024 + 1)
    task_id = account.run(definition)[0]
    assert account.ecs.run_task(**account.request(definition))["failures"]
    account.aws.kill(task_id)
    account.until(task_id, "STOPPED")
    assert account.run(definition)


def test_no_capacity_in_a_zone(account):
    account.aws.fail("ecs:RunTask", "capacity", zone=["us-east-1a", "us-east-1b"])
    definition = account.register("sleep", "600")
    answer = account.ecs.run_task(**account.request(definition, zones=["us-east-1a"], count=2))
    assert answer["tasks"] == []
    assert "Capacity is unavailable at this time" in answer["failures"][0]["reason"]
    answer = account.ecs.run_task(**account.request(definition, count=10))
    zones = {each["availabilityZone"] for each in answer["tasks"]}
    assert zones
    assert not zones & {"us-east-1a", "us-east-1b"}
    assert len(answer["tasks"]) + len(answer["failures"]) == 10
    account.aws.clear()
    assert account.run(definition, zones=["us-east-1a"])


def test_no_capacity_for_spot_a_number_of_times(account):
    account.aws.fail("ecs:RunTask", "capacity", times=3, provider="FARGATE_SPOT")
    definition = account.register("sleep", "600")
    assert account.run(definition, provider="FARGATE")
    answer = account.ecs.run_task(**account.request(definition, provider="FARGATE_SPOT", count=5))
    assert (len(answer["tasks"]), len(answer["failures"])) == (2, 3)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pull", "CannotPullContainerError"),
        ("platform", "CannotPullContainerError: .*descriptor matching platform 'linux/amd64'"),
        ("addresses", "InsufficientFreeAddressesInSubnet"),
        ("network", "Timeout waiting for network interface provisioning to complete."),
        ("log-group", "ResourceInitializationError"),
    ],
)
def test_tasks_that_fail_to_start(account, kind, reason):
    account.aws.fail("ecs:RunTask", kind, times=1, cluster=account.cluster)
    definition = account.register("true")
    about = account.until(account.run(definition)[0], "STOPPED")
    assert about["stopCode"] == "TaskFailedToStart"
    assert re.search(reason, about["stoppedReason"])
    assert "exitCode" not in about["containers"][0]
    assert account.until(account.run(definition)[0], "STOPPED")["containers"][0]["exitCode"] == 0


def test_scripts_end_by_number_and_by_hand(account):
    client = account.client("ecs", retries=1)
    script = account.aws.fail("ecs:Describe*", "denied", times=2)
    for _ in range(2):
        with refused("AccessDeniedException", "is not authorized to perform: ecs:DescribeClusters"):
            client.describe_clusters(clusters=[account.cluster])
    client.describe_clusters(clusters=[account.cluster])
    account.aws.clear(script)
    script = account.aws.fail("iam:ListRoles", "denied")
    with refused("AccessDenied"):
        account.client("iam", retries=1).list_roles()
    account.aws.clear(script)
    account.client("iam").list_roles()
    account.aws.fail("ec2:DescribeVpcs", "denied", times=1)
    with refused("UnauthorizedOperation"):
        account.client("ec2", retries=1).describe_vpcs()
    account.aws.fail("ecs:RunTask", "throttle", times=1)
    with refused("ThrottlingException", "Rate exceeded"):
        client.run_task(**account.request(account.register("true")))
    account.aws.fail("ecs:ListClusters", "server-error", times=1)
    with refused("ServerException"):
        client.list_clusters()
    account.ecs.list_clusters()


def test_rates_are_the_published_ones(tmp_path):
    with SimulatedAws(folder=str(tmp_path / "aws"), rates=0.1) as aws:
        account = Account(aws, retries=1)
        definition = account.register("sleep", "600")
        # A tenth of a burst of 100 calls; the refill of 4 a second may let a few more pass.
        answers = [_describe(account, definition) for _ in range(40)]
        assert answers[:10] == ["passed"] * 10
        assert answers.count("ThrottlingException") > 10
        assert aws.throttled()["ecs.DescribeTasks"] == answers.count("ThrottlingException")
        assert aws.calls()["ecs.DescribeTasks"] == 40
        # Fargate starts a tenth of 100 tasks at once; the second call is one too many.
        assert len(account.run(definition, count=10)) == 10
        with refused("ThrottlingException"):
            account.run(definition, count=10)
        # With retries, as everybody has them, all goes well in the end.
        patient = Account(aws, retries=10)
        assert len(patient.run(patient.register("sleep", "600"), provider="FARGATE_SPOT", count=10)) == 10


def _describe(account, _definition):
    try:
        account.ecs.describe_tasks(cluster=account.cluster, tasks=["0" * 32])
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "passed"


def test_overrides_are_limited(account):
    definition = account.register("true")
    change = {"name": "main", "environment": [{"name": "LONG", "value": "x" * 8200}]}
    with refused("InvalidParameterException", "at most 8192"):
        account.ecs.run_task(**account.request(definition, overrides={"containerOverrides": [change]}))
    change = {"name": "main", "environment": [{"name": "LONG", "value": "x" * 8000}]}
    account.run(definition, overrides={"containerOverrides": [change]})


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"count": 11}, "InvalidParameterException", "between 1 and 10"),
        (
            {
                "launchType": "FARGATE",
                "capacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1}],
            },
            "InvalidParameterException",
            "not both",
        ),
        ({"cluster": "no-such-cluster"}, "ClusterNotFoundException", ""),
        ({"taskDefinition": "no-such-definition"}, "ClientException", "TaskDefinition not found"),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0"]}}},
            "InvalidParameterException",
            "InvalidSubnetID.NotFound",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "other"}]}},
            "InvalidParameterException",
            "not a container in the TaskDefinition",
        ),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "no-such-provider", "weight": 1}]},
            "InvalidParameterException",
            "was not found",
        ),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            "InvalidParameterException",
            "weight greater than 0",
        ),
        (
            {
                "capacityProviderStrategy": [
                    {"capacityProvider": "FARGATE", "weight": 1, "base": 1},
                    {"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 1},
                ]
            },
            "InvalidParameterException",
            "base",
        ),
        ({"startedBy": "with space"}, "InvalidParameterException", "startedBy"),
        ({"clientToken": "x" * 65}, "InvalidParameterException", "clientToken"),
    ],
)
def test_requests_that_are_wrong(account, change, code, text):
    request = account.request(account.register("true"))
    if "launchType" not in change and "capacityProviderStrategy" in change:
        request.pop("capacityProviderStrategy")
    with refused(code, text):
        account.ecs.run_task(**{**request, **change})
    assert account.aws.tasks(cluster=account.cluster) == []


def test_networks_of_several_vpcs(account):
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"]
    definition, known = account.register("true"), next(iter(account.zones.values()))
    for network, text in (
        ({"subnets": [known, subnet]}, "same VPC"),
        ({"subnets": [known], "securityGroups": [group]}, "same VPC"),
        ({"subnets": [known], "securityGroups": ["sg-0"]}, "InvalidGroup.NotFound"),
    ):
        with refused("InvalidParameterException", text):
            account.ecs.run_task(
                **account.request(definition) | {"networkConfiguration": {"awsvpcConfiguration": network}}
            )
    ec2.delete_security_group(GroupId=group)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


def test_a_strategy_divides_tasks(account):
    definition = account.register("sleep", "600")
    strategy = [
        {"capacityProvider": "FARGATE", "weight": 1, "base": 2},
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
    ]
    answer = account.ecs.run_task(**account.request(definition, count=10, capacityProviderStrategy=strategy))
    providers = [each["capacityProviderName"] for each in answer["tasks"]]
    assert (providers.count("FARGATE"), providers.count("FARGATE_SPOT")) == (4, 6)
    account.ecs.put_cluster_capacity_providers(
        cluster=account.cluster,
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        defaultCapacityProviderStrategy=strategy,
    )
    request = account.request(definition)
    del request["capacityProviderStrategy"]
    assert account.ecs.run_task(**request)["tasks"][0]["capacityProviderName"] == "FARGATE"
    answer = account.ecs.run_task(**account.request(definition, launchType="FARGATE"))
    assert "capacityProviderName" not in answer["tasks"][0]
    assert answer["tasks"][0]["launchType"] == "FARGATE"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cpu": "300"}, "Invalid 'cpu' setting"),
        ({"cpu": "256", "memory": "4096"}, "No Fargate configuration exists"),
        ({"task": {"networkMode": "bridge"}}, "network mode"),
        ({"task": {"executionRoleArn": ""}}, "execution role"),
        ({"privileged": True}, "privileged"),
        ({"resourceRequirements": [{"type": "GPU", "value": "1"}]}, "GPU"),
        ({"linuxParameters": {"sharedMemorySize": 64}}, "sharedMemorySize"),
        ({"stopTimeout": 121}, "stopTimeout"),
        ({"task": {"ephemeralStorage": {"sizeInGiB": 300}}}, "sizeInGiB"),
    ],
)
def test_definitions_that_are_wrong(account, change, text):
    with refused("ClientException", text):
        account.register("true", **change)


@pytest.mark.parametrize(
    ("cpu", "memory"), [("256", "512"), ("4096", "30720"), ("16384", "122880"), ("1 vCPU", "2 GB")]
)
def test_definitions_that_are_right(account, cpu, memory):
    arn = account.register("true", cpu=cpu, memory=memory)
    found = account.ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    assert found["status"] == "ACTIVE"
    account.ecs.deregister_task_definition(taskDefinition=arn)
    with refused("ClientException", "inactive"):
        account.ecs.run_task(**account.request(arn))
