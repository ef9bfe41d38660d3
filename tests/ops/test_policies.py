"""Permission documents: least privilege, one by one, by an evaluator that knows nothing of us."""

import json
import re
from pathlib import Path

import pytest

import starburst
from starburst.aws import people, policies
from starburst.aws.resource import Scope
from starburst.testing.aws.iam import Access, Decision, Policy, decide

SCOPE = Scope(
    account="123456789012",
    region="us-east-1",
    partition="aws",
    bucket="starburst-123456789012-us-east-1",
    owner="me",
)
BUCKET = f"arn:aws:s3:::{SCOPE.bucket}"
CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/starburst-cluster"
TASK = "arn:aws:ecs:us-east-1:123456789012:task/starburst-cluster/0123456789abcdef0123456789abcdef"
WORKER = "arn:aws:ecs:us-east-1:123456789012:task-definition/starburst-worker-0123456789abcdef:1"
GROUP = (
    "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:x:autoScalingGroupName/starburst-c7g-xlarge"
)
ROLES = {
    "execution": policies.execution_policy(SCOPE),
    "task": policies.task_policy(SCOPE),
    "supervisor": policies.document(
        *policies.task_policy(SCOPE)["Statement"], *policies.supervisor_policy(SCOPE)["Statement"]
    ),
    "instance": policies.instance_policy(SCOPE),
}


def allows(document, action, resource, **context):
    access = Access(action, resource, {name.replace("__", ":"): value for name, value in context.items()})
    return decide([Policy.parse(document)], access) is Decision.ALLOWED


@pytest.mark.parametrize("role", ["task", "supervisor"])
def test_objects_of_sessions_and_no_others(role):
    document = ROLES[role]
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert allows(document, action, f"{BUCKET}/sessions/session-1/results/x")
        assert not allows(document, action, f"{BUCKET}/other/x")
        assert not allows(document, action, f"{BUCKET}-mine/sessions/x")
    assert allows(document, "s3:ListBucket", BUCKET, s3__prefix="sessions/session-1/")
    assert not allows(document, "s3:ListBucket", BUCKET, s3__prefix="")
    assert not allows(document, "s3:ListBucket", BUCKET)
    for action in (
        "s3:DeleteBucket",
        "s3:PutBucketPolicy",
        "s3:GetBucketPolicy",
        "s3:PutLifecycleConfiguration",
    ):
        assert not allows(document, action, BUCKET)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("ecs:RunTask", WORKER),
        ("ecs:StopTask", TASK),
        ("ecs:ListTasks", "*"),
        ("iam:PassRole", SCOPE.role_arn("starburstECSTaskRole")),
        ("iam:CreateRole", SCOPE.role_arn("starburstECSTaskRole")),
        ("logs:GetLogEvents", SCOPE.arn("logs", "log-group:/aws/ecs/starburst-worker")),
        ("ec2:DescribeInstances", "*"),
        ("sts:AssumeRole", SCOPE.role_arn("starburstSupervisorRole")),
        ("ecr:BatchGetImage", SCOPE.arn("ecr", "repository/starburst-worker")),
    ],
)
def test_a_worker_may_do_nothing_else(action, resource):
    context = {"ecs__cluster": CLUSTER, "iam__PassedToService": "ecs-tasks.amazonaws.com"}
    assert not allows(ROLES["task"], action, resource, **context)


def test_a_supervisor_starts_and_stops_our_tasks_in_our_cluster():
    document = ROLES["supervisor"]
    here = {"ecs__cluster": CLUSTER}
    assert allows(document, "ecs:RunTask", WORKER, **here)
    assert allows(document, "ecs:StopTask", TASK, **here)
    assert allows(document, "ecs:ListTasks", "*", **here)
    assert allows(document, "ecs:TagResource", TASK, ecs__CreateAction="RunTask")
    there = {"ecs__cluster": f"{CLUSTER}-mine"}
    assert not allows(document, "ecs:RunTask", WORKER, **there)
    assert not allows(document, "ecs:ListTasks", "*", **there)
    assert not allows(document, "ecs:RunTask", WORKER.replace("starburst-worker-", "mine-"), **here)
    assert not allows(document, "ecs:StopTask", TASK.replace("starburst-cluster/", "mine/"), **here)
    assert not allows(document, "ecs:TagResource", TASK)
    for action in (
        "ecs:RegisterTaskDefinition",
        "ecs:DeleteCluster",
        "ecs:CreateService",
        "ec2:RunInstances",
    ):
        assert not allows(document, action, "*", **here)


def test_a_supervisor_hands_on_two_roles_to_tasks_only():
    document = ROLES["supervisor"]
    for name, good in (
        ("starburstECSExecutionRole", True),
        ("starburstECSTaskRole", True),
        ("starburstSupervisorRole", False),
        ("starburstECSInstanceRole", False),
        ("Administrator", False),
    ):
        to_tasks = {"iam__PassedToService": "ecs-tasks.amazonaws.com"}
        assert allows(document, "iam:PassRole", SCOPE.role_arn(name), **to_tasks) is good
        to_hosts = {"iam__PassedToService": "ec2.amazonaws.com"}
        assert not allows(document, "iam:PassRole", SCOPE.role_arn(name), **to_hosts)


def test_a_supervisor_sizes_groups_that_carry_our_tag():
    document = ROLES["supervisor"]
    tag = {"aws__ResourceTag/starburst:managed": "true"}
    for action in ("autoscaling:UpdateAutoScalingGroup", "autoscaling:PutScheduledUpdateGroupAction"):
        assert allows(document, action, GROUP, **tag)
        assert not allows(document, action, GROUP)
        assert not allows(document, action, GROUP.replace("/starburst-", "/mine-"), **tag)
    assert not allows(document, "autoscaling:DeleteAutoScalingGroup", GROUP, **tag)


def test_hosts_see_no_objects():
    text = json.dumps(ROLES["instance"])
    assert "s3:" not in text
    assert "iam:" not in text


def statements(document):
    return [each for each in document["Statement"] if each["Effect"] == "Allow"]


def actions(statement):
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


def actions_of(name):
    return {action for statement in statements(DOCUMENTS[name]) for action in actions(statement)}


DOCUMENTS = {
    **ROLES,
    "builds": policies.build_policy(SCOPE),
    "setup": people.setup_policy(SCOPE),
    "jobs": people.job_policy(SCOPE),
    "setup-builds": people.setup_builds_policy(SCOPE),
    "job-builds": people.job_builds_policy(SCOPE),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_roles_are_handed_on_by_name_and_to_one_service(name):
    for statement in statements(DOCUMENTS[name]):
        if "iam:PassRole" in actions(statement):
            assert all("*" not in arn for arn in statement["Resource"])
            assert statement["Condition"]["StringEquals"]["iam:PassedToService"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_leaves_everything_open(name):
    for statement in statements(DOCUMENTS[name]):
        assert "*" not in actions(statement)
        if statement["Resource"] == "*" and "Condition" not in statement:
            # Only what AWS authorises without a resource: reading, and a token for the registry.
            words = ("Describe", "List", "Get", "StopQuery", "DiscoverPollEndpoint", "Deregister", "Request")
            assert all(action.split(":")[1].startswith(words) for action in actions(statement)), statement


@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-1", "cn-northwest-1", "us-gov-west-1"])
def test_peoples_documents_fit_into_a_managed_policy_in_every_partition(region):
    partition = {"cn": "aws-cn", "us-g": "aws-us-gov"}.get(
        region[:2] if region[:2] == "cn" else region[:4], "aws"
    )
    scope = Scope(
        account="1" * 12,
        region=region,
        partition=partition,
        bucket=f"starburst-{'1' * 12}-{region}",
        owner="me",
    )
    for document in (
        people.setup_policy(scope),
        people.job_policy(scope),
        people.setup_builds_policy(scope),
        people.job_builds_policy(scope),
        policies.supervisor_policy(scope),
        policies.build_policy(scope),
    ):
        text = json.dumps(document, separators=(",", ":"))
        assert len(text) <= 6144
        assert {part.split(":")[1] for part in text.split('"') if part.startswith("arn:")} == {partition}


OF_OTHERS = {
    "of the ECS agent and of ECS itself": {*actions_of("execution"), *actions_of("instance")},
    "of objects, through obstore": {
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListBucket*",
        "s3:PutObject",
    },
    "that other calls need": {
        "ec2:CreateTags",
        "ec2:RunInstances",
        "ecs:TagResource",
        "iam:PassRole",
        "iam:TagRole",
        "s3:TagResource",
    },
    "of settings of a bucket, whose calls are named otherwise": {
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
    },
    "of docker push": {
        "ecr:BatchCheckLayerAvailability",
        "ecr:CompleteLayerUpload",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
    },
}


@pytest.mark.parametrize("name", ["supervisor", "setup", "jobs"])
def test_nothing_is_allowed_that_nobody_does(name):
    """Every action is a call that stands in our sources, or has its reason above."""
    sources = Path(starburst.__file__).parent
    text = "".join(path.read_text("utf-8") for path in sources.rglob("*.py") if "testing" not in path.parts)
    called = {each.replace("_", "") for each in re.findall(r'"([a-z]+(?:_[a-z]+)+)"', text)}
    others = set().union(*OF_OTHERS.values())
    for action in sorted(actions_of(name) - others):
        pattern = re.compile(action.split(":")[1].lower().replace("*", ".*"))
        assert any(pattern.fullmatch(each) for each in called), f"nothing calls {action}"


def test_whom_roles_trust():
    [statement] = policies.trust_policy("ecs-tasks", SCOPE)["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnLike": {"aws:SourceArn": "arn:aws:ecs:*:123456789012:*"},
    }
    china = Scope(account="1" * 12, region="cn-north-1", partition="aws-cn", bucket="b", owner="me")
    [statement] = policies.trust_policy("ec2", china)["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com.cn"}


def test_whoever_runs_jobs_cannot_set_up():
    document = DOCUMENTS["jobs"]
    for action, resource in (
        ("iam:CreateRole", SCOPE.role_arn("starburstECSTaskRole")),
        ("iam:PutRolePolicy", SCOPE.role_arn("starburstECSTaskRole")),
        ("s3:DeleteBucket", BUCKET),
        ("s3:PutBucketPolicy", BUCKET),
        ("ecs:DeleteCluster", CLUSTER),
    ):
        assert not allows(document, action, resource, aws__RequestedRegion="us-east-1")
    assert allows(document, "ecs:RunTask", WORKER, ecs__cluster=CLUSTER)
    assert allows(document, "ecs:RegisterTaskDefinition", WORKER)
