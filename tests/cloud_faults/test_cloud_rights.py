"""Least privilege, as the account enforces it: what sessions do is allowed, and nothing else."""

import json
import urllib.request

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cloud_tasks import may, slow_square

import starburst
from helpers import eventually

CLUSTER = "starburst-cluster"
ACCOUNT = "arn:aws:iam::123456789012"
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
PASS = {
    "taskDefinition": "starburst-worker",
    "cluster": CLUSTER,
    "overrides": {"taskRoleArn": f"{ACCOUNT}:role/admin"},
}


def calls_of_workers(bucket):
    """What a worker has no business with, by service, operation and parameters."""
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    return [
        ("s3", "list_buckets", {}),
        ("s3", "list_objects_v2", {"Bucket": bucket}),
        ("s3", "list_objects_v2", {"Bucket": bucket, "Prefix": "other/"}),
        ("s3", "get_object", {"Bucket": bucket, "Key": "other/secret"}),
        ("s3", "put_object", {"Bucket": bucket, "Key": "other/mine", "Body": b""}),
        ("s3", "put_object", {"Bucket": bucket, "Key": "sessions-of-others", "Body": b""}),
        ("s3", "delete_object", {"Bucket": bucket, "Key": "other/secret"}),
        ("s3", "get_object", {"Bucket": "another-bucket", "Key": "sessions/secret"}),
        ("s3", "put_object", {"Bucket": "another-bucket", "Key": "sessions/mine", "Body": b""}),
        ("s3", "list_objects_v2", {"Bucket": "another-bucket", "Prefix": "sessions/"}),
        ("s3", "create_bucket", {"Bucket": "starburst-of-a-worker"}),
        ("s3", "delete_bucket", {"Bucket": bucket}),
        ("s3", "put_bucket_policy", {"Bucket": bucket, "Policy": trust}),
        ("s3", "get_bucket_policy", {"Bucket": bucket}),
        ("ecs", "run_task", PASS),
        ("ecs", "stop_task", {"cluster": CLUSTER, "task": "0" * 32}),
        ("ecs", "list_tasks", {"cluster": CLUSTER}),
        ("ecs", "describe_tasks", {"cluster": CLUSTER, "tasks": ["0" * 32]}),
        ("ecs", "describe_clusters", {}),
        ("ecs", "describe_task_definition", {"taskDefinition": "starburst-worker"}),
        ("ecs", "register_task_definition", {"family": "mine", "containerDefinitions": []}),
        ("iam", "list_roles", {}),
        ("iam", "create_user", {"UserName": "mine"}),
        ("iam", "create_access_key", {"UserName": "testing"}),
        (
            "iam",
            "put_role_policy",
            {"RoleName": "starburstECSTaskRole", "PolicyName": "p", "PolicyDocument": trust},
        ),
        (
            "sts",
            "assume_role",
            {"RoleArn": f"{ACCOUNT}:role/starburstSupervisorRole", "RoleSessionName": "mine"},
        ),
        ("ec2", "describe_instances", {}),
        ("ec2", "run_instances", {"MinCount": 1, "MaxCount": 1, "ImageId": "ami-12345678"}),
        ("autoscaling", "describe_auto_scaling_groups", {}),
        (
            "autoscaling",
            "set_desired_capacity",
            {"AutoScalingGroupName": "starburst-c7g-xlarge", "DesiredCapacity": 9},
        ),
        ("logs", "describe_log_groups", {}),
        ("ecr", "describe_repositories", {}),
        ("ssm", "get_parameter", {"Name": "/aws/service/secret"}),
        ("scheduler", "list_schedules", {}),
        ("service-quotas", "list_service_quotas", {"ServiceCode": "fargate"}),
    ]


@pytest.mark.parametrize("launch_type", ["FARGATE", "EC2"])
def test_a_session_needs_no_more_than_its_roles_have(site, launch_type):
    before = len(site.aws.denials())
    session = starburst.session(workers=2, launch_type=launch_type)
    session.map(slow_square, range(40), [0.01] * 40)
    assert session.collect(timeout=60) == [i * i for i in range(40)]
    session.cleanup(force=True)
    assert site.aws.denials()[before:] == []


def test_workers_may_use_objects_of_sessions_and_nothing_else(site):
    before = len(site.aws.denials())
    s3 = boto3.client("s3")
    s3.put_object(Bucket=site.cloud.bucket, Key="other/secret", Body=b"secret")
    s3.create_bucket(Bucket="another-bucket")
    s3.put_object(Bucket="another-bucket", Key="sessions/secret", Body=b"secret")
    calls = calls_of_workers(site.cloud.bucket)
    answers = starburst.map(may, calls, workers=1, progress=False)
    allowed = [
        f"{call[0]}.{call[1]} {call[2]}: {answer}"
        for call, answer in zip(calls, answers, strict=True)
        if answer not in DENIED
    ]
    assert not allowed
    assert len(site.aws.denials()) - before >= len(calls)
    [key] = starburst.map(
        may,
        [("s3", "put_object", {"Bucket": site.cloud.bucket, "Key": "sessions/mine", "Body": b""})],
        workers=1,
        progress=False,
    )
    assert key == ""


def credentials_of(task):
    """As a program in the container gets them."""
    environment = psutil.Process(task.pid).environ()
    with urllib.request.urlopen(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"], timeout=5) as answer:
        return json.load(answer)


@pytest.fixture
def supervisor(site):
    """Asks AWS as the supervisor of a session does; returns the error's code."""
    session = starburst.session(workers=1, spot=False)
    session.map(slow_square, range(2000), [0.05] * 2000)
    [task] = eventually(lambda: [one for one in site.supervisors() if one.pid], what="a supervisor")
    eventually(lambda: site.workers(last_status="RUNNING"), what="a worker")
    keys = credentials_of(task)
    boto = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"])

    def ask(service, operation, **parameters):
        client = boto.client(service, config=Config(retries={"total_max_attempts": 1}))
        try:
            getattr(client, operation)(**parameters)
        except ClientError as error:
            return error.response["Error"]["Code"]
        return ""

    return ask


def test_supervisors_may_do_what_their_document_says(site, supervisor):
    [worker] = site.workers()
    definition = worker.definition
    groups = {"AutoScalingGroupName": "starburst-c7g-xlarge"}
    fargate = {
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }
    allowed = [
        ("ecs", "list_tasks", {"cluster": CLUSTER}),
        ("ecs", "describe_tasks", {"cluster": CLUSTER, "tasks": [worker.task_id]}),
        ("autoscaling", "describe_auto_scaling_groups", {}),
        ("autoscaling", "update_auto_scaling_group", {**groups, "MaxSize": 100}),
        ("logs", "describe_log_streams", {"logGroupName": "/aws/ecs/starburst-worker"}),
        ("s3", "list_objects_v2", {"Bucket": site.cloud.bucket, "Prefix": "sessions/"}),
        ("ecs", "stop_task", {"cluster": CLUSTER, "task": worker.task_id}),
    ]
    denied = [
        ("ecs", "run_task", {"cluster": CLUSTER, "taskDefinition": "of-others", **fargate}),
        ("ecs", "run_task", {"cluster": "of-others", "taskDefinition": definition, **fargate}),
        ("ecs", "run_task", {**PASS, "taskDefinition": definition, **fargate}),
        ("ecs", "list_tasks", {"cluster": "of-others"}),
        ("ecs", "stop_task", {"cluster": "of-others", "task": worker.task_id}),
        ("ecs", "register_task_definition", {"family": "starburst-worker-x", "containerDefinitions": []}),
        ("ecs", "delete_cluster", {"cluster": CLUSTER}),
        ("ecs", "describe_clusters", {"clusters": [CLUSTER]}),
        ("ec2", "describe_instances", {}),
        ("autoscaling", "update_auto_scaling_group", {"AutoScalingGroupName": "of-others", "MaxSize": 9}),
        ("autoscaling", "delete_auto_scaling_group", groups),
        ("ec2", "run_instances", {"MinCount": 1, "MaxCount": 1, "ImageId": "ami-12345678"}),
        ("ec2", "terminate_instances", {"InstanceIds": ["i-12345678"]}),
        ("logs", "delete_log_group", {"logGroupName": "/aws/ecs/starburst-worker"}),
        ("iam", "get_role", {"RoleName": "starburstSupervisorRole"}),
        ("s3", "put_object", {"Bucket": site.cloud.bucket, "Key": "other/mine", "Body": b""}),
        ("s3", "delete_bucket", {"Bucket": site.cloud.bucket}),
    ]
    for service, operation, parameters in denied:
        assert supervisor(service, operation, **parameters) in DENIED, (service, operation, parameters)
    for service, operation, parameters in allowed:
        assert supervisor(service, operation, **parameters) == "", (service, operation, parameters)
