"""Remote builds: set up on request only, with the least rights, and taken down with the rest."""

import json

import pytest
from test_policies import BUCKET, DOCUMENTS, SCOPE, allows

import starburst
from starburst.aws import policies
from starburst.aws.clients import Aws
from starburst.aws.deployment import load_deployments
from starburst.client.engine import engine
from starburst.errors import NotSetUp
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices
from starburst.ops.setup import documents_of

ROLE = "starburstCodeBuildRole"
PROJECT = "arn:aws:codebuild:us-east-1:123456789012:project/starburst-build"
LOGS = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/ecs/starburst-worker:log-stream:"
IMAGES = "arn:aws:ecr:us-east-1:123456789012:repository/starburst-worker"


def project(account):
    found = account.client("codebuild").batch_get_projects(names=["starburst-build"])["projects"]
    return found[0] if found else None


def forget(account):
    """Remove what remote builds are made of."""
    iam = account.client("iam")
    for name in iam.list_role_policies(RoleName=ROLE)["PolicyNames"]:
        iam.delete_role_policy(RoleName=ROLE, PolicyName=name)
    iam.delete_role(RoleName=ROLE)
    account.client("codebuild").delete_project(name="starburst-build")


def steps(plan):
    return {step.name: step.action for step in plan.steps}


def test_nobody_gets_them_unasked(account):
    plan = starburst.setup(fargate_only=True)
    assert "starburst-build" not in steps(plan)
    assert ROLE not in account.resources()["roles"]
    starburst.teardown(yes=True)  # who may not look at projects can take down what they set up
    assert "BatchGetProjects" not in account.gate.calls


def test_on_request_and_from_then_on(account):
    starburst.setup(fargate_only=True)
    plan = starburst.setup(remote_build=True)
    assert {name for name, action in steps(plan).items() if action == "make"} == {ROLE, "starburst-build"}
    assert load_deployments()[0].build_project == "starburst-build"
    found = project(account)
    assert found["serviceRole"] == SCOPE.role_arn(ROLE)
    assert found["environment"]["privilegedMode"] is True
    assert found["timeoutInMinutes"] == 60
    assert found["logsConfig"]["cloudWatchLogs"]["groupName"] == "/aws/ecs/starburst-worker"
    assert {"key": "starburst:managed", "value": "true"} in found["tags"]
    account.gate.clear()
    again = starburst.setup()
    assert steps(again)["starburst-build"] == "keep"
    assert account.gate.writes == []
    removed = starburst.teardown(yes=True)
    assert {"build project", "role"} <= {item.kind for item in removed.items}
    assert project(account) is None
    assert account.resources()["roles"] == []


def test_a_foreign_project_of_our_name(account):
    account.client("codebuild").create_project(
        name="starburst-build",
        source={"type": "S3", "location": "b/k"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={"type": "LINUX_CONTAINER", "image": "x", "computeType": "BUILD_GENERAL1_SMALL"},
        serviceRole="arn:aws:iam::123456789012:role/mine",
    )
    with pytest.raises(
        NotSetUp, match="build project starburst-build is there, but starburst did not"
    ) as caught:
        starburst.setup(fargate_only=True, remote_build=True)
    assert "aws codebuild update-project --name starburst-build" in caught.value.hint
    starburst.teardown(yes=True)
    assert project(account) is not None


def test_another_region_keeps_the_role(account, monkeypatch):
    starburst.setup(region="us-east-1", fargate_only=True, remote_build=True)
    starburst.setup(region="eu-west-1", fargate_only=True, remote_build=True)
    starburst.teardown(region="us-east-1", yes=True)
    assert project(account) is None
    assert ROLE in account.resources()["roles"]
    found = account.client("codebuild", "eu-west-1").batch_get_projects(names=["starburst-build"])["projects"]
    assert len(found) == 1
    starburst.teardown(region="eu-west-1", yes=True)
    assert ROLE not in account.resources()["roles"]


def test_interrupted_at_every_write_and_repeated_it_is_complete(account):
    starburst.setup(fargate_only=True)
    account.gate.clear()
    starburst.setup(remote_build=True)
    writes = len(account.gate.writes)
    assert writes == 4
    for number in range(1, writes + 1):
        forget(account)
        account.gate.clear()
        account.gate.refuse_write = number
        with pytest.raises(starburst.StarburstError, match="does not permit"):
            starburst.setup(remote_build=True)
        account.gate.clear()
        starburst.setup(remote_build=True)
        assert project(account) is not None
        account.gate.clear()
        assert starburst.setup().to_do == []
        assert account.gate.writes == []


def test_the_printed_policies_have_them_only_if_they_are_wanted(account):
    aws = Aws("us-east-1")
    plain = documents_of(engine.run(Blueprint.draw(aws, Choices())))
    wanted = documents_of(engine.run(Blueprint.draw(aws, Choices(remote_build=True))))
    aws.close()
    assert "codebuild" not in json.dumps(plain)
    assert set(wanted) - set(plain) == {"setup-builds", "job-builds"}
    assert set(wanted["roles"]) - set(plain["roles"]) == {ROLE}
    # Who sets up may hand this role to CodeBuild, who runs jobs may not.
    to_builds = {"iam__PassedToService": "codebuild.amazonaws.com"}
    assert allows(wanted["setup-builds"], "iam:PassRole", SCOPE.role_arn(ROLE), **to_builds)
    assert not allows(wanted["job-builds"], "iam:PassRole", SCOPE.role_arn(ROLE), **to_builds)
    for action in ("codebuild:StartBuild", "codebuild:StopBuild", "codebuild:BatchGetBuilds"):
        assert allows(wanted["job-builds"], action, PROJECT)
        assert not allows(wanted["job-builds"], action, f"{PROJECT}-mine")
        assert not allows(DOCUMENTS["jobs"], action, PROJECT)
    assert not allows(wanted["job-builds"], "codebuild:UpdateProject", PROJECT)
    assert allows(wanted["job-builds"], "s3:PutObject", f"{BUCKET}/builds/x.zip")


def test_what_a_build_may_do():
    document, sources = policies.build_policy(SCOPE), policies.build_sources_policy(SCOPE)
    assert allows(sources, "s3:GetObject", f"{BUCKET}/builds/x.zip")
    assert not allows(sources, "s3:GetObject", f"{BUCKET}/sessions/x")
    assert not allows(sources, "s3:PutObject", f"{BUCKET}/builds/x.zip")
    assert allows(document, "ecr:PutImage", IMAGES)
    assert not allows(document, "ecr:PutImage", f"{IMAGES}-mine")
    assert not allows(document, "ecr:DeleteRepository", IMAGES)
    assert allows(document, "logs:PutLogEvents", f"{LOGS}build/1")
    assert not allows(document, "logs:PutLogEvents", f"{LOGS}starburst/worker/1")
    for action in ("iam:PassRole", "ecs:RunTask", "sts:AssumeRole", "codebuild:StartBuild"):
        assert not allows(document, action, "*")


def test_only_our_project_may_take_the_role_on():
    [statement] = policies.trust_policy("codebuild", SCOPE)["Statement"]
    assert statement["Principal"] == {"Service": "codebuild.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnLike": {"aws:SourceArn": "arn:aws:codebuild:*:123456789012:project/starburst-build"},
    }
