"""The handle of the simulated account, and ``starburst simulate``."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from simulated import Account, client_of
from starburst.errors import OptionError, ProviderError
from starburst.testing.aws import SimulatedAws

STARBURST = [sys.executable, "-m", "starburst.cli.main"]


def test_an_option_that_is_unknown():
    with pytest.raises(OptionError, match="no_such_option"):
        SimulatedAws(no_such_option=1)


def test_a_simulator_that_does_not_run(tmp_path):
    aws = SimulatedAws(folder=str(tmp_path))
    with pytest.raises(ProviderError, match="not running"):
        aws.tasks()
    aws.stop()


def test_a_task_or_verb_that_is_unknown(aws):
    with pytest.raises(ProviderError, match="no-such-task"):
        aws.interrupt("no-such-task")


def test_the_folder_is_removed_at_the_end():
    with SimulatedAws() as aws:
        folder = Path(aws.options.folder)
        assert folder.is_dir()
        assert Account(aws).cluster
    assert not folder.exists()


def test_resources_are_everything_that_is_made(account, aws):
    before = aws.resources()
    account.register("true")
    account.client("s3").create_bucket(Bucket=f"bucket-{account.cluster}")
    iam = account.client("iam")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    iam.create_role(RoleName=f"role-{account.cluster}", AssumeRolePolicyDocument=trust)
    account.client("ecr").create_repository(repositoryName=f"repo-{account.cluster}")
    account.client("ecr", region="eu-west-1").create_repository(repositoryName=f"repo-{account.cluster}")
    account.client("ec2").create_security_group(GroupName=f"group-{account.cluster}", Description="d")
    after = aws.resources()
    new = {kind: sorted(set(names) - set(before[kind])) for kind, names in after.items()}
    assert new == {kind: [] for kind in after} | {
        "buckets": [f"bucket-{account.cluster}"],
        "repositories": [f"eu-west-1/repo-{account.cluster}", f"us-east-1/repo-{account.cluster}"],
        "roles": [f"role-{account.cluster}"],
        "security groups": [f"us-east-1/group-{account.cluster}"],
        "task definitions": [f"us-east-1/{account.cluster}-worker:1"],
    }


def test_clusters_are_stricter_than_motos(account):
    definition = account.register("sleep", "600")
    task_id = account.run(definition)[0]
    with pytest.raises(account.ecs.exceptions.ClusterContainsTasksException):
        account.ecs.delete_cluster(cluster=account.cluster)
    about = account.ecs.describe_clusters(clusters=[account.cluster])["clusters"][0]
    assert about["runningTasksCount"] + about["pendingTasksCount"] == 1
    again = account.ecs.create_cluster(clusterName=account.cluster)["cluster"]
    assert again["capacityProviders"] == ["FARGATE", "FARGATE_SPOT"]
    account.aws.kill(task_id)
    account.until(task_id, "STOPPED")
    account.ecs.delete_cluster(cluster=account.cluster)
    assert not [each for each in account.ecs.list_clusters()["clusterArns"] if each.endswith(account.cluster)]
    with pytest.raises(account.ecs.exceptions.ClusterNotFoundException):
        account.ecs.list_tasks(cluster=account.cluster)
    providers = account.ecs.describe_capacity_providers()["capacityProviders"]
    assert {"FARGATE", "FARGATE_SPOT"} <= {each["name"] for each in providers}


def test_another_region_is_another_place(account):
    there = account.client("ecs", region="eu-west-1")
    assert there.list_clusters()["clusterArns"] == []
    assert account.client("ec2", region="eu-west-1").describe_subnets()["Subnets"]


def test_many_clients_at_once(account):
    definition = account.register("sleep", "600")
    task_id = account.run(definition)[0]
    clients = [account.client("ecs") for _ in range(8)]
    before = account.aws.calls()["ecs.DescribeTasks"]

    def ask(number):
        return clients[number % 8].describe_tasks(cluster=account.cluster, tasks=[task_id])["tasks"][0][
            "taskArn"
        ]

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(400)))
    assert len(answers) == 1
    assert account.aws.calls()["ecs.DescribeTasks"] == before + 400


def test_simulate_runs_a_command():
    code = (
        "import boto3, sys; boto3.client('ecs').create_cluster(clusterName='c');"
        "print(boto3.client('ecs').list_clusters()['clusterArns']); sys.exit(9)"
    )
    result = subprocess.run(
        [*STARBURST, "simulate", "--", sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "AWS_PROFILE": "no-such-profile"},
    )
    assert result.returncode == 9, result.stderr
    assert "cluster/c" in result.stdout


def test_simulate_runs_no_command_that_is_missing():
    result = subprocess.run(
        [*STARBURST, "simulate", "--", "no-such-program"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 2
    assert "no-such-program" in result.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None])
def test_simulate_prints_what_to_export(end):
    stdin = subprocess.PIPE if end is None else subprocess.DEVNULL
    with subprocess.Popen(
        [*STARBURST, "simulate"], stdin=stdin, stdout=subprocess.PIPE, text=True
    ) as process:
        exported = {}
        while "AWS_EC2_METADATA_DISABLED" not in exported:
            name, _, value = process.stdout.readline().removeprefix("export ").strip().partition("=")
            exported[name] = value
        sts = client_of(exported, "sts")
        assert sts.get_caller_identity()["Account"] == "123456789012"
        if end is None:
            process.stdin.close()
        else:
            process.send_signal(end)
        assert process.wait(60) == 0


def test_simulate_passes_sigterm_on_to_its_command():
    run = [*STARBURST, "simulate", "--", "sh", "-c", "echo here; exec sleep 300"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_simulate_as_json():
    with subprocess.Popen(
        [*STARBURST, "simulate", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        environment = json.loads(process.stdout.readline())["environment"]
        assert environment["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
        process.stdin.close()
        assert process.wait(60) == 0
