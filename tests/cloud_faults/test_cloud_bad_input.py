"""Mistakes are told before anything is launched, with the next command."""

import asyncio
import json
import shutil

import boto3
import msgspec
import pytest

import starburst
from cloud import IMAGE
from starburst.aws.deployment import load_deployments, save_deployment
from starburst.errors import CredentialsError, InvalidStoreURL, NotSetUp, OptionError, StarburstError
from starburst.store import open_store

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/starburst-worker"


@pytest.fixture
def refused(site):
    """Tries to make a session, and sees that it fails with a hint, and that nothing was launched; the error."""

    def check(kind, hint, **options):
        before = site.aws.calls().get("ecs.RunTask", 0)
        with pytest.raises(kind) as caught:
            starburst.map(abs, [1], workers=1, progress=False, **options)
        assert isinstance(caught.value, StarburstError)
        assert site.aws.calls().get("ecs.RunTask", 0) == before
        assert hint in (caught.value.hint or "")
        return str(caught.value)

    return check


@pytest.fixture
def settings(site, tmp_path, monkeypatch):
    """Settings of this test's own: changes what they say of the set-up."""
    shutil.copytree(site.cloud.config_dir, tmp_path / "settings")
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "settings"))

    def change(**values):
        [known] = load_deployments()
        save_deployment(msgspec.structs.replace(known, **values))

    return change


# ---- credentials ----


def test_no_credentials(refused, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no AWS credentials" in refused(CredentialsError, "aws configure")


def test_wrong_credentials(refused, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
    refused(CredentialsError, "aws sts get-caller-identity")


def test_expired_credentials(site, refused):
    site.aws.fail("*", "expired")
    refused(CredentialsError, "aws sso login")


def test_a_profile_that_does_not_exist(refused, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in refused(CredentialsError, "aws configure list-profiles")


def test_credentials_of_another_account(refused, settings):
    settings(account="210987654321")
    assert "123456789012" in refused(NotSetUp, "AWS_PROFILE")


# ---- the set-up ----


def test_not_set_up(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "empty"))
    refused(NotSetUp, "starburst setup")


def test_another_region(refused):
    assert "us-east-1" in refused(NotSetUp, "starburst setup --region eu-west-1", region="eu-west-1")


def test_set_up_for_fargate_only(refused, settings):
    settings(instance_profile_arn="")
    refused(NotSetUp, "starburst setup", launch_type="EC2", instance_type="c7g.large")


def test_a_subnet_is_gone(refused, settings):
    settings(subnets=("subnet-0123456789abcdef0",))
    assert "subnet-0123456789abcdef0" in refused(NotSetUp, "starburst setup --region us-east-1")


@pytest.fixture
def set_up_again(site):
    yield
    starburst.setup(image=IMAGE)


@pytest.mark.usefixtures("set_up_again")
def test_the_cluster_is_gone(refused):
    boto3.client("ecs").delete_cluster(cluster="starburst-cluster")
    assert "starburst-cluster" in refused(NotSetUp, "starburst setup --region us-east-1")


@pytest.mark.usefixtures("set_up_again")
def test_the_log_group_is_gone(refused):
    boto3.client("logs").delete_log_group(logGroupName="/aws/ecs/starburst-worker")
    assert "/aws/ecs/starburst-worker" in refused(NotSetUp, "starburst setup --region us-east-1")


@pytest.mark.usefixtures("set_up_again")
def test_the_security_group_is_gone(refused):
    ec2 = boto3.client("ec2")
    named = [{"Name": "group-name", "Values": ["starburst-worker"]}]
    [group] = ec2.describe_security_groups(Filters=named)["SecurityGroups"]
    ec2.delete_security_group(GroupId=group["GroupId"])
    assert group["GroupId"] in refused(NotSetUp, "starburst setup --region us-east-1")


@pytest.mark.usefixtures("set_up_again")
def test_the_bucket_is_gone(site, refused):
    async def empty():
        store = open_store(site.url)
        await store.delete([info.key for info in await store.list("")])

    asyncio.run(empty())
    boto3.client("s3").delete_bucket(Bucket=site.cloud.bucket)
    assert site.cloud.bucket in refused(StarburstError, "starburst setup")


# ---- what is asked for ----


def test_an_unknown_instance_type(refused):
    assert "c7g.xlrge" in refused(OptionError, "c7g.xlarge", launch_type="EC2", instance_type="c7g.xlrge")


def test_instance_types_of_two_architectures(refused):
    told = refused(OptionError, "one", launch_type="EC2", instance_type=["c7g.xlarge", "c7i.xlarge"])
    assert "c7g.xlarge" in told
    assert "c7i.xlarge" in told


def test_gpus_on_fargate(refused):
    refused(OptionError, 'launch_type="EC2"', gpus=1)


def test_gpus_on_hosts_without(refused):
    refused(OptionError, "g5.xlarge", launch_type="EC2", instance_type="c7g.xlarge", gpus=1)


def test_a_size_that_fargate_does_not_have(refused):
    assert "8GB to 30GB" in refused(OptionError, 'memory="8GB"', cpu=4, memory="1GB")
    assert "cpu=3" in refused(OptionError, "cpu=2", cpu=3)


def test_a_worker_that_is_larger_than_its_host(refused):
    refused(OptionError, "instance_type=", launch_type="EC2", instance_type="c7g.large", cpu=8, memory="8GB")


def test_an_image_that_is_not_there(refused):
    assert "nothing" in refused(NotSetUp, "starburst setup --image", image=f"{ECR}:nothing")


@pytest.fixture(scope="module")
def arm_image(account):
    """An image in the repository that is built for ARM only."""
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{'0' * 64}",
        "size": 2,
        "platform": {"os": "linux", "architecture": "arm64"},
    }
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
    with pytest.MonkeyPatch.context() as patch:
        account.use(patch)
        boto3.client("ecr").put_image(
            repositoryName="starburst-worker",
            imageTag="arm",
            imageManifest=json.dumps(index),
            imageManifestMediaType=kind,
        )
    return f"{ECR}:arm"


@pytest.mark.parametrize(
    "options",
    [{"architecture": "X86_64"}, {"launch_type": "EC2", "instance_type": "c7i.xlarge"}],
    ids=["fargate", "ec2"],
)
def test_an_image_for_another_architecture(refused, arm_image, options):
    assert "ARM64, not for X86_64" in refused(OptionError, "build it", image=arm_image, **options)


def test_a_store_on_this_machine(refused, tmp_path):
    refused(InvalidStoreURL, "s3://", store=(tmp_path / "store").as_uri())
