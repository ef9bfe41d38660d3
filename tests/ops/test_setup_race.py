"""Two set-ups of one account at the same moment: both succeed, and make one whole."""

import asyncio

import pytest

import starburst
from starburst.aws import capacity_provider
from starburst.aws.clients import Aws
from starburst.aws.deployment import load_deployments
from starburst.client.engine import engine
from starburst.errors import NotSetUp
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices
from starburst.ops.setup import Setup

MEET_S = 1.0


@pytest.fixture(autouse=True)
def settled(account, monkeypatch):
    """Here somebody else is at work: each makes sure, as on AWS, that what it attached stays."""
    monkeypatch.setattr(capacity_provider, "_SETTLED_S", 2.0)


def race(account, region, **choices):
    """Two set-ups: both plan while all is missing, and then go in step, each write waiting for the other's."""
    sides = [Aws(region), Aws(region)]

    async def both():
        setups = [await Setup.of(await Blueprint.draw(aws, Choices(**choices))) for aws in sides]
        plans = [await one.plan() for one in setups]
        account.gate.meet_s = MEET_S
        return await asyncio.gather(
            *(one.apply(plan) for one, plan in zip(setups, plans, strict=True)), return_exceptions=True
        )

    try:
        done = engine.run(both())
    finally:
        for aws in sides:
            aws.close()
    failed = [one for one in done if isinstance(one, Exception)]
    assert not failed, failed
    [deployment] = load_deployments()
    assert [one.deployment for one in done] == [deployment, deployment]
    twice = {name for name in account.gate.calls if account.gate.calls.count(name) > 1}
    account.gate.clear()
    again = starburst.setup(region=region, **choices)
    assert again.to_do == []
    assert account.gate.writes == []
    return twice


def test_both_succeed_and_all_is_as_it_should_be(account):
    twice = race(account, "us-east-1")
    assert {
        "CreateInstanceProfile",
        "CreateLaunchTemplate",
        "CreateLogGroup",
        "CreateRepository",
        "CreateRole",
        "CreateSecurityGroup",
        "PutS3",
    } <= twice


def test_where_nobody_may_make_a_bucket_twice(account):
    """Outside us-east-1 S3 refuses, also its owner."""
    assert "PutS3" in race(account, "eu-west-1", fargate_only=True)


@pytest.mark.parametrize("what", ["role", "security group", "log group", "repository"])
def test_what_somebody_else_made_just_before_is_not_touched(account, what):
    def make():
        if what == "role":
            account.client("iam").create_role(
                RoleName="starburstECSExecutionRole", AssumeRolePolicyDocument="{}"
            )
        elif what == "security group":
            ec2 = account.client("ec2")
            vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
            ec2.create_security_group(GroupName="starburst-worker", Description="mine", VpcId=vpc)
        elif what == "log group":
            account.client("logs").create_log_group(logGroupName="/aws/ecs/starburst-worker")
        else:
            account.client("ecr").create_repository(repositoryName="starburst-worker")

    operations = {
        "role": "CreateRole",
        "security group": "CreateSecurityGroup",
        "log group": "CreateLogGroup",
        "repository": "CreateRepository",
    }
    account.gate.before[operations[what]] = make
    with pytest.raises(NotSetUp, match="starburst did not make it") as caught:
        starburst.setup(fargate_only=True)
    assert what in str(caught.value)
    assert "goes on from there" in caught.value.hint
    later = account.gate.calls[account.gate.calls.index(operations[what]) :]
    assert not {"PutRetentionPolicy", "PutLifecyclePolicy", "UpdateAssumeRolePolicy"} & set(later)
