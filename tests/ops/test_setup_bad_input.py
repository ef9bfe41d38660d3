"""Bad input to the set-up: a clear error with the next command, before anything is made."""

import datetime as dt
import hashlib
import json

import boto3
import pytest

import starburst
from starburst.aws.deployment import load_deployments
from starburst.errors import CloudUnavailable, CredentialsError, NotSetUp, OptionError, PermissionDenied

ACCOUNT = "123456789012"
BUCKET = f"starburst-{ACCOUNT}-us-east-1"


@pytest.fixture(autouse=True)
def nothing_made(account):
    yield
    assert account.gate.writes == []
    assert load_deployments() == []


def other_account(account):
    """Credentials of somebody else."""
    keys = account.client("sts").assume_role(
        RoleArn="arn:aws:iam::999999999999:role/x", RoleSessionName="other"
    )
    account.gate.clear()
    return boto3.Session(
        keys["Credentials"]["AccessKeyId"],
        keys["Credentials"]["SecretAccessKey"],
        keys["Credentials"]["SessionToken"],
        region_name="us-east-1",
    )


def refused(kind, *words, **choices):
    """The error of a set-up; all of ``words`` are in it."""
    with pytest.raises(kind) as caught:
        starburst.setup(**choices)
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert caught.value.hint
    return caught.value


def test_no_credentials(account, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    refused(CredentialsError, "no AWS credentials", "aws sso login")


def test_an_expired_sign_in(account, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "aws-config"
    config.write_text(
        "[profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\nregion = us-east-1\n"
        "[sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.example/start\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    cache = tmp_path / ".aws" / "sso" / "cache" / f"{hashlib.sha1(b'corp').hexdigest()}.json"
    cache.parent.mkdir(parents=True)
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    cache.write_text(json.dumps({"accessToken": "x", "expiresAt": yesterday.strftime("%Y-%m-%dT%H:%M:%SZ")}))
    refused(CredentialsError, "expired", "aws sso login", profile="work")


def test_an_unknown_profile(account):
    refused(CredentialsError, "nobody", "aws configure list-profiles", profile="nobody")


def test_a_region_that_does_not_exist(account):
    refused(OptionError, "us-eest-1", "did you mean", "us-east-1", region="us-eest-1")
    assert account.gate.calls == []


def test_no_region(account, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    refused(CredentialsError, "no AWS region", "AWS_REGION")


def test_a_server_that_does_not_answer(account, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    refused(CloudUnavailable, "does not answer")


def test_a_missing_permission_is_named(account):
    account.gate.denied = ("DescribeClusters",)
    refused(PermissionDenied, "ecs:DescribeClusters", "--print-policies")


@pytest.mark.parametrize("name", ["A", "has_underscore", "ab", "x" * 64, "two..dots", "-a-b-c"])
def test_what_is_no_bucket_name(account, name):
    refused(OptionError, name, "--bucket", bucket=name)


def test_a_bucket_name_that_is_taken_by_another_account(account):
    other_account(account).client("s3").create_bucket(Bucket="their-bucket")
    account.gate.clear()
    refused(NotSetUp, "the bucket their-bucket", "--bucket NAME", bucket="their-bucket")


def test_a_bucket_that_may_not_be_looked_at(account):
    account.gate.denied = ("HeadS3",)
    refused(NotSetUp, BUCKET, "belongs to another account", "--bucket NAME")


def test_a_bucket_in_another_region(account):
    account.client("s3", "eu-west-1").create_bucket(
        Bucket="my-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    account.gate.clear()
    refused(NotSetUp, "it is in eu-west-1, not in us-east-1", bucket="my-bucket")


TAKEN = {
    "bucket": lambda account: account.client("s3").create_bucket(Bucket=BUCKET),
    "repository": lambda account: account.client("ecr").create_repository(repositoryName="starburst-worker"),
    "log group": lambda account: account.client("logs").create_log_group(
        logGroupName="/aws/ecs/starburst-worker"
    ),
    "cluster": lambda account: account.client("ecs").create_cluster(clusterName="starburst-cluster"),
    "role": lambda account: account.client("iam").create_role(
        RoleName="starburstECSTaskRole", AssumeRolePolicyDocument="{}"
    ),
    "instance profile": lambda account: account.client("iam").create_instance_profile(
        InstanceProfileName="starburstECSInstanceProfile"
    ),
    "security group": lambda account: account.client("ec2").create_security_group(
        GroupName="starburst-worker",
        Description="theirs",
        VpcId=account.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"],
    ),
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_name_that_is_taken_is_reported_and_not_touched(account, what):
    TAKEN[what](account)
    before = account.resources()
    account.gate.clear()
    error = refused(NotSetUp, what, "starburst did not make it", "nothing was changed")
    assert any(word in error.hint for word in ("--bucket", "--security-groups", "starburst:managed"))
    assert account.resources() == before


def test_an_unknown_instance_type(account):
    refused(OptionError, "c7g.hugest", instance_types="c7g.hugest")


def test_choices_that_contradict_each_other(account):
    refused(OptionError, "Fargate only", fargate_only=True, instance_types="c7g.large")
    refused(OptionError, "new VPC", new_vpc=True, subnets="subnet-1")
    refused(OptionError, "not the ARN of a policy", permissions_boundary="boundary")
    refused(OptionError, "log_days=8", "7, 14", log_days=8)


def test_subnets_that_do_not_exist(account):
    refused(OptionError, "subnet-12345678", "describe-subnets", subnets="subnet-12345678")


def test_subnets_of_different_vpcs(account):
    ec2 = account.client("ec2")
    default = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    other = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    account.gate.clear()
    refused(OptionError, "different VPCs", f"{other} in {vpc}", subnets=[default, other])


def test_no_default_vpc(account):
    ec2 = account.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc)
    account.gate.clear()
    refused(NotSetUp, "no default VPC", "--new-vpc")


def group(account, vpc=None, egress=()):
    """A security group of the user's; lets everything out unless told otherwise."""
    ec2 = account.client("ec2")
    vpc = vpc or ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    made = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=vpc)["GroupId"]
    if egress is not None:
        [found] = ec2.describe_security_groups(GroupIds=[made])["SecurityGroups"]
        ec2.revoke_security_group_egress(GroupId=made, IpPermissions=found["IpPermissionsEgress"])
        if egress:
            ec2.authorize_security_group_egress(GroupId=made, IpPermissions=list(egress))
    account.gate.clear()
    return made


def test_security_groups_that_do_not_exist(account):
    refused(OptionError, "sg-12345678", "describe-security-groups", security_groups="sg-12345678")


@pytest.mark.parametrize(
    "egress",
    [
        (),
        ({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},),
        ({"IpProtocol": "udp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},),
        ({"IpProtocol": "-1", "IpRanges": [{"CidrIp": "127.0.0.1/32"}]},),
    ],
    ids=["nothing", "http", "udp", "loopback"],
)
def test_a_security_group_that_blocks_egress(account, egress):
    refused(
        OptionError,
        "blocks egress",
        "authorize-security-group-egress",
        security_groups=group(account, egress=egress),
    )


def test_a_security_group_of_another_vpc(account):
    vpc = account.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    refused(OptionError, f"is of {vpc}", "--subnets", security_groups=group(account, vpc, None))


def test_a_security_group_that_lets_out_to_some_places_is_a_warning(account):
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "172.31.0.0/16"}]}
    plan = starburst.setup(security_groups=group(account, egress=(rule,)), dry_run=True)
    assert any("172.31.0.0/16 only" in warning for warning in plan.warnings)


def test_subnets_of_one_zone_are_a_warning(account):
    [subnet] = account.client("ec2").describe_subnets()["Subnets"][:1]
    plan = starburst.setup(subnets=subnet["SubnetId"], dry_run=True)
    assert any(f"all subnets are in {subnet['AvailabilityZone']}" in warning for warning in plan.warnings)
