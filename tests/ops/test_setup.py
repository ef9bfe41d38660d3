"""Setting up over HTTP: what is made, that twice is once, that an interruption does no harm."""

import json

import pytest

import starburst
from starburst.aws.clients import Aws
from starburst.aws.deployment import deployment_path, load_deployments
from starburst.client.engine import engine
from starburst.errors import PermissionDenied
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices, open_aws
from starburst.ops.setup import Setup

ACCOUNT = "123456789012"
BUCKET = f"starburst-{ACCOUNT}-us-east-1"


def actions(plan):
    return {f"{step.kind} {step.name}": step.action for step in plan.steps}


def test_everything_is_made_and_kept_in_the_settings(account, capsys):
    plan = starburst.setup()
    assert {step.action for step in plan.steps} == {"make", "use"}
    assert capsys.readouterr().out.startswith(f"account {ACCOUNT}, region us-east-1")
    [deployment] = load_deployments()
    assert deployment == plan.deployment
    assert deployment.bucket == BUCKET
    assert len(deployment.subnets) == 6
    found = account.resources()
    assert found["buckets"] == [deployment.bucket]
    assert found["repositories"] == ["starburst-worker"]
    assert found["log groups"] == [deployment.log_group]
    assert len(found["roles"]) == 4
    assert found["scaling groups"] == ["starburst-c7g-xlarge", "starburst-c7g-xlarge-spot"]
    assert found["instances"] == []


def test_the_second_time_changes_nothing(account):
    first = starburst.setup()
    before = account.resources()
    account.gate.clear()
    again = starburst.setup()
    assert account.gate.writes == []
    assert again.to_do == []
    assert "everything is as it should be" in str(again)
    assert again.deployment == first.deployment
    assert account.resources() == before


def test_a_dry_run_changes_nothing(account):
    before = account.resources()
    plan = starburst.setup(dry_run=True)
    assert plan.deployment is None
    assert plan.to_do
    assert account.gate.writes == []
    assert account.resources() == before
    assert load_deployments() == []


@pytest.mark.timeout(600)  # some fifty times
def test_interrupted_at_every_write_and_repeated_it_is_complete(account):
    aws = Aws("us-east-1")
    choices = Choices(new_vpc=True, instance_types=("c7g.xlarge",))

    async def run():
        work = await Setup.of(await Blueprint.draw(aws, choices))
        return await work.apply(await work.plan())

    def counted():
        return {kind: len(names) for kind, names in account.resources().items()}

    engine.run(run())
    writes = len(account.gate.writes)
    whole = counted()
    assert writes > 30
    for number in range(1, writes + 1):
        account.reset()
        deployment_path("us-east-1").unlink()
        account.gate.refuse_write = number
        with pytest.raises(PermissionDenied) as caught:
            engine.run(run())
        assert "goes on from there" in caught.value.hint
        account.gate.clear()
        engine.run(run())
        assert counted() == whole, f"write {number}"
        account.gate.clear()
        assert engine.run(run()).to_do == [], f"write {number}"
        assert account.gate.writes == []
    aws.close()


def test_the_bucket_is_private_encrypted_and_never_expires_anything(account):
    starburst.setup(fargate_only=True)
    s3 = account.client("s3")
    blocked = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    rules = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    owner = s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
    assert owner == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    [statement] = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    lifecycle = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert [list(rule) for rule in lifecycle if "Expiration" in rule] == []
    assert lifecycle[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_all_that_is_made_carries_our_tags(account):
    starburst.setup(new_vpc=True)
    ec2, iam, ecs = account.client("ec2"), account.client("iam"), account.client("ecs")
    found = account.resources()
    tags = {
        BUCKET: account.client("s3").get_bucket_tagging(Bucket=BUCKET)["TagSet"],
        **{name: iam.list_role_tags(RoleName=name)["Tags"] for name in found["roles"]},
        "profile": iam.get_instance_profile(InstanceProfileName=found["profiles"][0])["InstanceProfile"][
            "Tags"
        ],
        "cluster": [
            {"Key": each["key"], "Value": each["value"]}
            for each in ecs.describe_clusters(clusters=["starburst-cluster"], include=["TAGS"])["clusters"][
                0
            ]["tags"]
        ],
    }
    kinds = (
        "vpc",
        "subnet",
        "internet-gateway",
        "route-table",
        "vpc-endpoint",
        "security-group",
        "launch-template",
    )
    for kind in kinds:
        filters = [
            {"Name": "resource-type", "Values": [kind]},
            {"Name": "key", "Values": ["starburst:managed"]},
        ]
        assert ec2.describe_tags(Filters=filters)["Tags"], kind
    for name, pairs in tags.items():
        named = {each["Key"]: each["Value"] for each in pairs}
        assert named["starburst:managed"] == "true", name
        assert named["starburst:owner"], name


def test_a_region_with_a_location_constraint(account):
    plan = starburst.setup(region="eu-west-1", fargate_only=True)
    assert plan.deployment.bucket == f"starburst-{ACCOUNT}-eu-west-1"
    location = account.client("s3").get_bucket_location(Bucket=plan.deployment.bucket)
    assert location["LocationConstraint"] == "eu-west-1"


def test_two_regions_share_the_roles(account):
    starburst.setup(region="us-east-1")
    account.gate.clear()
    starburst.setup(region="eu-west-1")
    assert "CreateRole" not in account.gate.writes
    names = account.client("iam").list_role_policies(RoleName="starburstECSTaskRole")["PolicyNames"]
    assert sorted(names) == [f"starburst-starburst-{ACCOUNT}-eu-west-1", f"starburst-{BUCKET}"]
    assert [one.region for one in load_deployments()] == ["eu-west-1", "us-east-1"]
    account.gate.clear()
    assert starburst.setup(region="us-east-1").to_do == []
    assert account.gate.writes == []


def test_what_was_chosen_stays_chosen(account):
    ec2 = account.client("ec2")
    subnets = [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]][:2]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=vpc)["GroupId"]
    starburst.setup(
        "my-own-bucket",
        fargate_only=True,
        subnets=",".join(subnets),
        security_groups=[group],
        image="registry/image@sha256:1",
        log_days=30,
    )
    plan = starburst.setup()
    assert plan.to_do == []
    deployment = plan.deployment
    assert deployment.bucket == "my-own-bucket"
    assert set(deployment.subnets) == set(subnets)
    assert deployment.security_groups == (group,)
    assert deployment.image == "registry/image@sha256:1"
    assert deployment.instance_profile_arn == ""
    [found] = account.client("logs").describe_log_groups()["logGroups"]
    assert found["retentionInDays"] == 30
    assert account.resources()["scaling groups"] == []
    with_ec2 = starburst.setup(instance_types=["c6i.large"])
    assert with_ec2.deployment.instance_profile_arn.endswith(":instance-profile/starburstECSInstanceProfile")
    assert account.resources()["scaling groups"] == ["starburst-c6i-large", "starburst-c6i-large-spot"]
    assert starburst.setup().to_do == []


def test_a_new_vpc_has_subnets_in_several_zones_a_way_out_and_s3_next_door(account):
    plan = starburst.setup(new_vpc=True, fargate_only=True)
    ec2 = account.client("ec2")
    own = [{"Name": "tag:starburst:managed", "Values": ["true"]}]
    subnets = ec2.describe_subnets(Filters=own)["Subnets"]
    assert {each["SubnetId"] for each in subnets} == set(plan.deployment.subnets)
    assert len({each["AvailabilityZone"] for each in subnets}) == 3
    [table] = ec2.describe_route_tables(Filters=own)["RouteTables"]
    assert any(str(each.get("GatewayId")).startswith("igw-") for each in table["Routes"])
    assert len(table["Associations"]) == 3
    [endpoint] = ec2.describe_vpc_endpoints(Filters=own)["VpcEndpoints"]
    assert endpoint["ServiceName"] == "com.amazonaws.us-east-1.s3"
    assert endpoint["RouteTableIds"] == [table["RouteTableId"]]
    assert plan.deployment.assign_public_ip
    assert starburst.setup().to_do == [], "without --new-vpc, too"


def test_what_was_changed_by_hand_is_put_right(account):
    deployment = starburst.setup().deployment
    [group] = deployment.security_groups
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    account.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    account.client("s3").delete_public_access_block(Bucket=BUCKET)
    account.client("logs").delete_retention_policy(logGroupName=deployment.log_group)
    iam = account.client("iam")
    anyone = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [anyone]}
    iam.update_assume_role_policy(RoleName="starburstECSTaskRole", PolicyDocument=json.dumps(trust))
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    for role in ("starburstSupervisorRole", "starburstECSExecutionRole"):
        iam.put_role_policy(RoleName=role, PolicyName="starburst-us-east-1", PolicyDocument=policy)
    iam.remove_role_from_instance_profile(
        InstanceProfileName="starburstECSInstanceProfile", RoleName="starburstECSInstanceRole"
    )
    plan = starburst.setup()
    changed = {step.name for step in plan.to_do}
    assert changed == {
        BUCKET,
        "/aws/ecs/starburst-worker",
        "starburst-worker",
        "starburstECSTaskRole",
        "starburstSupervisorRole",
        "starburstECSExecutionRole",
        "starburstECSInstanceProfile",
    }
    assert {step.action for step in plan.to_do} == {"change"}
    assert starburst.setup().to_do == []
    [found] = account.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert found["IpPermissions"] == []


def test_the_cluster_keeps_the_capacity_providers_of_others(account):
    starburst.setup()
    ecs = account.client("ecs")
    theirs = ["starburst-c7g-xlarge", "starburst-c7g-xlarge-spot"]
    ecs.put_cluster_capacity_providers(
        cluster="starburst-cluster", capacityProviders=theirs, defaultCapacityProviderStrategy=[]
    )
    assert [step.details for step in starburst.setup().to_do] == [("has no FARGATE", "has no FARGATE_SPOT")]
    [cluster] = ecs.describe_clusters(clusters=["starburst-cluster"])["clusters"]
    assert set(cluster["capacityProviders"]) == {*theirs, "FARGATE", "FARGATE_SPOT"}


def test_rules_that_somebody_added_to_the_bucket_stay(account):
    starburst.setup(fargate_only=True)
    s3 = account.client("s3")
    theirs = {
        "Sid": "Theirs",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteBucket",
        "Resource": f"arn:aws:s3:::{BUCKET}",
    }
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    rule = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 7}}
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})
    plan = starburst.setup()
    [step] = plan.to_do
    assert step.details == ("can be reached without TLS", "keeps unfinished uploads")
    [warning] = [each for each in plan.warnings if "theirs" in each]
    assert "removes objects by age" in warning
    statements = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert [each["Sid"] for each in statements] == ["Theirs", "StarburstTlsOnly"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert [each["ID"] for each in rules] == ["theirs", "starburst-unfinished-uploads"]


def test_a_permissions_boundary_limits_all_roles(account):
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    iam = account.client("iam")
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.create_policy(PolicyName="boundary", PolicyDocument=json.dumps(document))
    starburst.setup(fargate_only=True)
    plan = starburst.setup(permissions_boundary=boundary)
    assert {step.kind for step in plan.to_do} == {"role"}
    for name in account.resources()["roles"]:
        role = iam.get_role(RoleName=name)["Role"]
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    assert starburst.setup(permissions_boundary=boundary).to_do == []


def test_another_bucket_takes_nothing_from_the_sessions_in_the_first(account):
    starburst.setup(fargate_only=True)
    plan = starburst.setup("another-bucket-of-mine")
    assert any(BUCKET in warning for warning in plan.warnings)
    policies = account.client("iam").list_role_policies(RoleName="starburstECSTaskRole")["PolicyNames"]
    assert sorted(policies) == ["starburst-another-bucket-of-mine", f"starburst-{BUCKET}"]


def test_the_profile_of_the_set_up_is_kept_and_gives_way_to_the_environments(account, monkeypatch, tmp_path):
    config = tmp_path / "aws-config"
    keys = "aws_access_key_id = testing\naws_secret_access_key = testing12345\nregion = us-east-1\n"
    config.write_text(f"[profile first]\n{keys}\n[profile second]\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert starburst.setup(profile="first", fargate_only=True).deployment.profile == "first"
    assert open_aws().profile == "first"
    monkeypatch.setenv("AWS_PROFILE", "second")
    assert open_aws().profile is None
    assert starburst.setup().to_do == []
    assert "testing12345" not in deployment_path("us-east-1").read_text()
