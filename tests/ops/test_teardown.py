"""Taking down over HTTP: complete, in order, repeatable; what is not ours stays."""

import json

import pytest

import starburst
from starburst.aws.clients import Aws
from starburst.aws.deployment import load_deployments
from starburst.client.engine import engine
from starburst.errors import PermissionDenied
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices
from starburst.ops.setup import Setup
from starburst.ops.teardown import Teardown

ACCOUNT = "123456789012"
BUCKET = f"starburst-{ACCOUNT}-us-east-1"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)


def definition(account, family, *, ours=True):
    tags = [{"key": "starburst:managed", "value": "true"}] if ours else []
    made = account.client("ecs").register_task_definition(
        family=family, containerDefinitions=[{"name": "worker", "image": "x", "memory": 128}], tags=tags
    )
    return made["taskDefinition"]["taskDefinitionArn"]


@pytest.mark.parametrize("new_vpc", [False, True], ids=["default-vpc", "new-vpc"])
def test_nothing_is_left(account, new_vpc):
    before = account.resources()
    starburst.setup(new_vpc=new_vpc)
    definition(account, "starburst-worker-0123456789abcdef")
    definition(account, "starburst-supervisor-0123456789abcdef")
    s3 = account.client("s3")
    for number in range(3):
        s3.put_object(Bucket=BUCKET, Key=f"sessions/s/results/{number}", Body=b"x")
    s3.create_multipart_upload(Bucket=BUCKET, Key="sessions/s/big")
    plan = starburst.teardown(yes=True)
    assert plan.done
    assert account.resources() == before
    assert load_deployments() == []
    assert starburst.teardown(yes=True).items == ()


def test_without_yes_nothing_is_removed(account, capsys):
    starburst.setup(fargate_only=True)
    account.gate.clear()
    plan = starburst.teardown()
    assert not plan.done
    assert account.gate.writes == []
    assert f"remove  bucket            {BUCKET}" in capsys.readouterr().out


def test_all_versions_of_all_objects_go(account):
    before = account.resources()
    starburst.setup(fargate_only=True)
    s3 = account.client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket=BUCKET, Key="sessions/s/x", Body=body)
    s3.delete_object(Bucket=BUCKET, Key="sessions/s/x")
    starburst.teardown(yes=True)
    assert account.resources() == before


def test_the_bucket_can_be_kept(account):
    starburst.setup(fargate_only=True)
    account.client("s3").put_object(Bucket=BUCKET, Key="sessions/s/x", Body=b"1")
    plan = starburst.teardown(keep_bucket=True, yes=True)
    assert any(BUCKET in line and "1 objects" in line for line in plan.kept)
    found = account.resources()
    assert found["buckets"] == [BUCKET]
    assert found["roles"] == found["clusters"] == []
    assert starburst.setup(fargate_only=True).deployment.bucket == BUCKET, "and is found again"


def similar(account):
    """Things of somebody else's whose names are like ours."""
    ec2, iam, ecs = account.client("ec2"), account.client("iam"), account.client("ecs")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    account.client("s3").create_bucket(Bucket=f"{BUCKET}-mine")
    account.client("s3").create_bucket(Bucket="starburst-of-stars")
    account.client("s3").put_object(Bucket="starburst-of-stars", Key="sessions/s/x", Body=b"1")
    account.client("ecr").create_repository(repositoryName="starburst-worker-mine")
    account.client("logs").create_log_group(logGroupName="/aws/ecs/starburst-worker-mine")
    ecs.create_cluster(clusterName="starburst-cluster-mine")
    iam.create_role(RoleName="starburstECSTaskRoleMine", AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName="starburstECSInstanceProfileMine")
    ec2.create_security_group(GroupName="starburst-worker-mine", Description="mine", VpcId=vpc)
    ec2.create_vpc(
        CidrBlock="10.1.0.0/16",
        TagSpecifications=[{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "starburst"}]}],
    )
    definition(account, "starburst-worker-mine", ours=False)
    definition(account, "starburst-worker", ours=False)
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    ec2.create_launch_template(
        LaunchTemplateName="starburst-mine",
        LaunchTemplateData={"ImageId": image, "InstanceType": "t3.micro"},
    )
    account.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="starburst-mine",
        LaunchTemplate={"LaunchTemplateName": "starburst-mine"},
        MinSize=0,
        MaxSize=1,
        AvailabilityZones=["us-east-1a"],
    )


def test_foreign_things_of_similar_names_survive(account):
    similar(account)
    before = account.resources()
    starburst.setup()
    assert account.resources() != before
    starburst.teardown(yes=True)
    assert account.resources() == before
    kept = account.client("s3").get_object(Bucket="starburst-of-stars", Key="sessions/s/x")
    assert kept["Body"].read() == b"1"


def test_a_foreign_thing_of_our_own_name_is_kept_and_said(account):
    account.client("logs").create_log_group(logGroupName="/aws/ecs/starburst-worker")
    account.client("iam").create_role(RoleName="starburstECSTaskRole", AssumeRolePolicyDocument=TRUST)
    before = account.resources()
    plan = starburst.teardown(yes=True)
    assert plan.items == ()
    assert [line.split(":")[0] for line in plan.kept] == [
        "log group /aws/ecs/starburst-worker",
        "role starburstECSTaskRole",
    ]
    assert account.resources() == before


def test_another_region_keeps_what_it_needs(account):
    before = account.resources()
    starburst.setup(region="us-east-1", fargate_only=True)
    west = starburst.setup(region="eu-west-1", fargate_only=True).deployment
    plan = starburst.teardown("us-east-1", yes=True)
    assert any("eu-west-1 still need it" in item.details for item in plan.items)
    assert [one.region for one in load_deployments()] == ["eu-west-1"]
    assert starburst.setup(region="eu-west-1").to_do == []
    found = account.resources("eu-west-1")
    assert found["buckets"] == [west.bucket]
    assert found["role policies"] == [
        "starburstECSExecutionRole/starburst-eu-west-1",
        f"starburstECSTaskRole/starburst-{west.bucket}",
        "starburstSupervisorRole/starburst-eu-west-1",
        f"starburstSupervisorRole/starburst-{west.bucket}",
    ]
    starburst.teardown("eu-west-1", yes=True)
    assert account.resources() == before


def test_buckets_of_earlier_set_ups_go_too_from_any_machine(account, tmp_path, monkeypatch):
    before = account.resources()
    starburst.setup("first-bucket-of-mine", fargate_only=True)
    starburst.setup("second-bucket-of-mine", fargate_only=True)
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "another-machine"))
    starburst.teardown(yes=True)
    assert account.resources() == before


@pytest.mark.timeout(600)  # some fifty times
def test_interrupted_at_every_write_and_repeated_it_is_complete(account):
    aws = Aws("us-east-1")
    before = account.resources()
    choices = Choices(new_vpc=True, fargate_only=True)

    async def build():
        work = await Setup.of(await Blueprint.draw(aws, choices))
        await work.apply(await work.plan())

    async def remove():
        work = Teardown(aws, (await Blueprint.draw(aws, choices)).scope)
        await work.apply(await work.plan())

    def everything():
        engine.run(build())
        definition(account, "starburst-worker-0123456789abcdef")
        account.client("s3").put_object(Bucket=BUCKET, Key="sessions/s/x", Body=b"1")
        account.gate.clear()

    everything()
    engine.run(remove())
    writes = len(account.gate.writes)
    assert writes > 20
    shape = {kind: len(names) for kind, names in before.items()}
    for number in range(1, writes + 1):
        account.reset()
        everything()
        account.gate.refuse_write = number
        with pytest.raises(PermissionDenied):
            engine.run(remove())
        account.gate.clear()
        engine.run(remove())
        found = {kind: len(names) for kind, names in account.resources().items()}
        assert found == shape, f"write {number}"
    aws.close()
