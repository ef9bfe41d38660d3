"""A simulated AWS account for tests that use it directly: imported by the conftest.py of their folder."""

import itertools
import json

import boto3
import pytest
from botocore.config import Config

from helpers import eventually
from starburst.testing.aws import SimulatedAws

LOG_GROUP = "/tests/worker"
_serial = itertools.count(1)


def client_of(environment, service, *, region=None, keys=None, retries=3):
    """A client of the account that these variables lead to, with their keys or others: key, secret, token."""
    key, secret, token = keys or (
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        None,
    )
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL_S3" if service == "s3" else "AWS_ENDPOINT_URL"],
        region_name=region or environment["AWS_REGION"],
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(
            retries={"total_max_attempts": retries},
            connect_timeout=10,
            read_timeout=30,
            max_pool_connections=50,
            signature_version="s3v4" if service == "s3" else None,
        ),
    )


class Account:
    """Clients of one account, and a cluster of its own for one test."""

    def __init__(self, aws, *, retries=3):
        self.aws = aws
        self.retries = retries
        self.cluster = f"tests-{next(_serial)}"
        self.ecs = self.client("ecs")
        self.logs = self.client("logs")
        self.ecs.create_cluster(clusterName=self.cluster, capacityProviders=["FARGATE", "FARGATE_SPOT"])
        groups = self.logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]
        if not groups:
            self.logs.create_log_group(logGroupName=LOG_GROUP)
        subnets = self.client("ec2").describe_subnets()["Subnets"]
        self.zones = {each["AvailabilityZone"]: each["SubnetId"] for each in subnets}

    def client(self, service, *, region=None, retries=None):
        """A client of the account."""
        retries = self.retries if retries is None else retries
        return client_of(self.aws.environment, service, region=region, retries=retries)

    def register(
        self, *command, family="worker", cpu="256", memory="512", log_group=LOG_GROUP, task=None, **container
    ):
        """A task definition for Fargate that runs a command; returns its ARN."""
        log = {"awslogs-group": log_group, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "t"}
        about = {
            "name": "main",
            "image": "image",
            "command": list(command),
            "logConfiguration": {"logDriver": "awslogs", "options": log},
            **container,
        }
        settings = {
            "family": f"{self.cluster}-{family}",
            "requiresCompatibilities": ["FARGATE"],
            "networkMode": "awsvpc",
            "cpu": cpu,
            "memory": memory,
            "executionRoleArn": "arn:aws:iam::123456789012:role/execution",
            "containerDefinitions": [about],
            **(task or {}),
        }
        return self.ecs.register_task_definition(**settings)["taskDefinition"]["taskDefinitionArn"]

    def request(self, definition, *, provider="FARGATE", zones=None, **more):
        """Parameters of RunTask."""
        subnets = [self.zones[each] for each in zones] if zones else list(self.zones.values())
        asked = {
            "cluster": self.cluster,
            "taskDefinition": definition,
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": subnets}},
            **more,
        }
        if "launchType" not in more and "capacityProviderStrategy" not in more:
            asked["capacityProviderStrategy"] = [{"capacityProvider": provider, "weight": 1}]
        return asked

    def run(self, definition, **more):
        """Start tasks, all of them or fail; returns their ids."""
        answer = self.ecs.run_task(**self.request(definition, **more))
        assert not answer["failures"], answer["failures"]
        return [each["taskArn"].rpartition("/")[2] for each in answer["tasks"]]

    def run_python(self, code, *, provider="FARGATE", **container):
        """Register and run one task of Python code; returns its id."""
        return self.run(self.register("python", "-c", code, **container), provider=provider)[0]

    def describe(self, task_id):
        answer = self.ecs.describe_tasks(cluster=self.cluster, tasks=[task_id], include=["TAGS"])
        assert not answer["failures"], answer["failures"]
        return answer["tasks"][0]

    def until(self, task_id, status, timeout_s=30):
        """Wait until a task has this status; returns its description."""
        return eventually(
            lambda: (about := self.describe(task_id))["lastStatus"] == status and about,
            timeout_s,
            every_s=0.05,
            what=f"{status} of {task_id}",
        )

    def lines(self, task_id, container="main"):
        """What it printed so far."""
        try:
            answer = self.logs.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=f"t/{container}/{task_id}", startFromHead=True
            )
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [each["message"] for each in answer["events"]]

    def until_line(self, task_id, line, timeout_s=30):
        eventually(lambda: line in self.lines(task_id), timeout_s, every_s=0.05, what=f"the line {line!r}")

    def report(self, task_id):
        """The JSON that a task printed as its only line."""
        self.until(task_id, "STOPPED")
        return json.loads("\n".join(self.lines(task_id)))

    def end(self):
        """End all tasks of the cluster; returns those that were still there."""
        left = [each for each in self.aws.tasks(cluster=self.cluster) if each.last_status != "STOPPED"]
        for each in left:
            self.aws.kill(each.task_id)
        eventually(
            lambda: all(each.last_status == "STOPPED" for each in self.aws.tasks(cluster=self.cluster)),
            what="the end of all tasks",
        )
        return left


@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    """One simulated account for the whole run, without limits of request rates."""
    with SimulatedAws(folder=str(tmp_path_factory.mktemp("aws")), rates=0) as running:
        yield running


@pytest.fixture
def account(aws):
    """The account with a cluster of its own; afterwards nothing fails any more and no task is left."""
    mine = Account(aws)
    yield mine
    aws.clear()
    mine.end()
