"""Tasks of the simulated ECS: their states, their ends, what they see, what stays of them."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from botocore.exceptions import ClientError

from helpers import eventually
from simulated import LOG_GROUP, Account
from starburst.errors import ProviderError
from starburst.testing.aws import SimulatedAws

WAITS = "import time; print('waiting', flush=True); time.sleep(600)"
DRAINS = """
import signal, sys, time
def term(*_):
    print('drained', flush=True); sys.exit(5)
signal.signal(signal.SIGTERM, term)
print('waiting', flush=True)
time.sleep(600)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + WAITS
# A child in a session of its own, and a grandchild whose parent is gone.
BREEDS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        time.sleep(600)
    os._exit(0)
print(child.pid, int(os.read(reader, 20)), flush=True)
"""


def test_a_task_runs_to_its_end(account):
    task_id = account.run_python("print('one'); print('two', end='')")
    about = account.until(task_id, "STOPPED")
    assert len(task_id) == 32
    assert set(task_id) <= set("0123456789abcdef")
    assert about["taskArn"].endswith(f":task/{account.cluster}/{task_id}")
    assert about["stopCode"] == "EssentialContainerExited"
    assert about["stoppedReason"] == "Essential container in task exited"
    assert about["desiredStatus"] == "STOPPED"
    assert about["launchType"] == "FARGATE"
    assert about["capacityProviderName"] == "FARGATE"
    assert about["platformVersion"] == "1.4.0"
    assert (about["cpu"], about["memory"]) == ("256", "512")
    assert about["containers"][0]["exitCode"] == 0
    assert about["containers"][0]["name"] == "main"
    order = ["createdAt", "pullStartedAt", "pullStoppedAt", "startedAt", "executionStoppedAt", "stoppedAt"]
    times = [about[name] for name in order]
    assert times == sorted(times)
    assert account.lines(task_id) == ["one", "two"]
    waiter = account.ecs.get_waiter("tasks_stopped")
    waiter.wait(cluster=account.cluster, tasks=[task_id])


def test_states_take_their_time(tmp_path):
    with SimulatedAws(folder=str(tmp_path / "aws"), pull_s=1.0) as aws:
        account = Account(aws)
        definition = account.register("sleep", "600")
        answer = account.ecs.run_task(**account.request(definition))
        task = answer["tasks"][0]
        assert task["lastStatus"] == "PROVISIONING"
        assert task["containers"][0]["lastStatus"] == "PENDING"
        assert "exitCode" not in task["containers"][0]
        assert "startedAt" not in task
        task_id = task["taskArn"].rpartition("/")[2]
        account.until(task_id, "PENDING")
        about = account.until(task_id, "RUNNING")
        assert (about["startedAt"] - about["createdAt"]).total_seconds() > 0.9
        # One that is stopped before it starts has no exit code.
        task_id = account.run(definition)[0]
        account.ecs.stop_task(cluster=account.cluster, task=task_id, reason="too late")
        about = account.describe(task_id)
        assert about["lastStatus"] == "STOPPED"
        assert "exitCode" not in about["containers"][0]
        assert (about["stopCode"], about["stoppedReason"]) == ("UserInitiated", "too late")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("raise SystemExit(7)", 7),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os; os.abort()", 134),
    ],
)
def test_exit_codes(account, code, exit_code):
    about = account.until(account.run_python(code), "STOPPED")
    assert about["containers"][0]["exitCode"] == exit_code
    assert about["stopCode"] == "EssentialContainerExited"


def test_a_program_that_is_missing(account):
    about = account.until(account.run(account.register("no-such-program"))[0], "STOPPED")
    assert about["stopCode"] == "TaskFailedToStart"
    assert about["stoppedReason"].startswith("CannotStartContainerError")
    assert "exitCode" not in about["containers"][0]


def test_stop_is_sigterm(account):
    task_id = account.run_python(DRAINS)
    account.until_line(task_id, "waiting")
    answer = account.ecs.stop_task(cluster=account.cluster, task=task_id, reason="pool closed")
    assert answer["task"]["desiredStatus"] == "STOPPED"
    about = account.until(task_id, "STOPPED")
    assert about["containers"][0]["exitCode"] == 5
    assert (about["stopCode"], about["stoppedReason"]) == ("UserInitiated", "pool closed")
    assert account.lines(task_id) == ["waiting", "drained"]
    # Once more is no error, and changes nothing.
    account.ecs.stop_task(cluster=account.cluster, task=task_id, reason="again")
    assert account.describe(task_id)["stoppedReason"] == "pool closed"


def test_sigkill_after_the_stop_timeout(account):
    task_id = account.run_python(STUBBORN, stopTimeout=1)
    account.until_line(task_id, "waiting")
    account.ecs.stop_task(cluster=account.cluster, task=task_id)
    about = account.until(task_id, "STOPPED")
    assert about["containers"][0]["exitCode"] == 137
    assert about["stopCode"] == "UserInitiated"
    assert (about["stoppedAt"] - about["stoppingAt"]).total_seconds() > 0.9


@pytest.mark.parametrize(("code", "exit_code"), [(DRAINS, 5), (STUBBORN, 137)])
def test_spot_interruption(account, code, exit_code):
    task_id = account.run_python(code, provider="FARGATE_SPOT", stopTimeout=120)
    account.until_line(task_id, "waiting")
    account.aws.interrupt(task_id)
    about = account.until(task_id, "STOPPED")
    assert about["stopCode"] == "SpotInterruption"
    assert about["stoppedReason"] == "Your Spot Task was interrupted."
    assert about["containers"][0]["exitCode"] == exit_code
    assert about["capacityProviderName"] == "FARGATE_SPOT"


@pytest.mark.parametrize("out_of_memory", [False, True])
def test_a_container_that_is_killed(account, out_of_memory):
    task_id = account.run_python(WAITS)
    account.until_line(task_id, "waiting")
    account.aws.kill(task_id, out_of_memory=out_of_memory)
    about = account.until(task_id, "STOPPED")
    assert about["containers"][0]["exitCode"] == 137
    assert about["stopCode"] == "EssentialContainerExited"
    assert about["containers"][0].get("reason", "").startswith("OutOfMemoryError") == out_of_memory


def test_all_processes_end_with_the_first_one(account):
    task_id = account.run_python(BREEDS)
    account.until(task_id, "STOPPED")
    pids = [int(pid) for pid in account.lines(task_id)[0].split()]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_several_containers(account):
    side = {"name": "side", "image": "image", "command": ["sleep", "600"], "essential": False}
    main = {"name": "main", "image": "image", "command": ["python", "-c", "print(1)"]}
    definition = account.register(task={"containerDefinitions": [main, side]})
    about = account.until(account.run(definition)[0], "STOPPED")
    codes = {each["name"]: each["exitCode"] for each in about["containers"]}
    assert codes == {"main": 0, "side": 143}


def test_what_a_task_sees(account, monkeypatch):
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    definition = account.register(
        "python",
        "-c",
        code,
        environment=[{"name": "KEPT", "value": "1"}, {"name": "CHANGED", "value": "old"}],
        task={"taskRoleArn": "arn:aws:iam::123456789012:role/worker"},
    )
    change = {
        "name": "main",
        "environment": [{"name": "CHANGED", "value": "new"}, {"name": "ADDED", "value": "2"}],
    }
    seen = account.report(account.run(definition, overrides={"containerOverrides": [change]})[0])
    assert (seen["KEPT"], seen["CHANGED"], seen["ADDED"]) == ("1", "new", "2")
    assert seen["AWS_ENDPOINT_URL"] == account.aws.environment["AWS_ENDPOINT_URL"]
    assert seen["AWS_REGION"] == "us-east-1"
    assert seen["AWS_EXECUTION_ENV"] == "AWS_ECS_FARGATE"
    assert seen["ECS_CONTAINER_METADATA_URI_V4"].startswith("http://127.0.0.1:")
    assert seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"].startswith("http://127.0.0.1:")
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert "PYTEST_CURRENT_TEST" not in seen


def test_overrides_of_command_and_size(account):
    definition = account.register("python", "-c", "print('definition')")
    change = {"name": "main", "command": ["python", "-c", "print('override')"]}
    overrides = {"containerOverrides": [change], "cpu": "1024", "memory": "2048"}
    task_id = account.run(definition, overrides=overrides)[0]
    about = account.until(task_id, "STOPPED")
    assert account.lines(task_id) == ["override"]
    assert (about["cpu"], about["memory"]) == ("1024", "2048")
    assert about["overrides"]["containerOverrides"][0]["name"] == "main"


def test_metadata_and_credentials(account):
    code = """
import boto3, json, os, urllib.request
with urllib.request.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4'] + '/task') as answer:
    task = json.load(answer)
with urllib.request.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4']) as answer:
    container = json.load(answer)
session = boto3.Session()
sts = session.client('sts')
method = session.get_credentials().method
print(json.dumps([task, container, method, sts.get_caller_identity()['Account']]))
"""
    role = account.client("iam").create_role(
        RoleName=account.cluster,
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}),
    )["Role"]["Arn"]
    definition = account.register("python", "-W", "ignore", "-c", code, task={"taskRoleArn": role})
    task_id = account.run(definition)[0]
    task, container, method, number = account.report(task_id)
    assert task["TaskARN"].endswith(task_id)
    assert task["Family"] == f"{account.cluster}-worker"
    assert task["AvailabilityZone"] in account.zones
    assert container["Name"] == "main"
    assert method == "container-role"
    assert number == "123456789012"


def test_log_group_that_is_missing(account):
    task_id = account.run(account.register("true", log_group="/no/such/group"))[0]
    about = account.until(task_id, "STOPPED")
    assert about["stopCode"] == "TaskFailedToStart"
    assert about["stoppedReason"].startswith("ResourceInitializationError")
    assert "log group does not exist" in about["stoppedReason"]
    assert "exitCode" not in about["containers"][0]


def test_many_lines_are_all_kept(account):
    task_id = account.run_python("print('\\n'.join(map(str, range(5000))))")
    account.until(task_id, "STOPPED")
    pages = account.logs.get_paginator("filter_log_events")
    found = [
        each["message"]
        for page in pages.paginate(logGroupName=LOG_GROUP, logStreamNames=[f"t/main/{task_id}"])
        for each in page["events"]
    ]
    assert found == [str(number) for number in range(5000)]


def test_tags_and_who_started_it(account):
    definition = account.register("true", task={"tags": [{"key": "from", "value": "definition"}]})
    tags = [{"key": "session", "value": "s-1"}]
    task_id = account.run(definition, tags=tags, propagateTags="TASK_DEFINITION", startedBy="s-1")[0]
    about = account.describe(task_id)
    assert {each["key"]: each["value"] for each in about["tags"]} == {"from": "definition", "session": "s-1"}
    assert about["startedBy"] == "s-1"
    info = account.aws.tasks(started_by="s-1", cluster=account.cluster)
    assert [(each.task_id, each.tags["session"]) for each in info] == [(task_id, "s-1")]
    account.ecs.tag_resource(resourceArn=about["taskArn"], tags=[{"key": "more", "value": "1"}])
    listed = account.ecs.list_tags_for_resource(resourceArn=about["taskArn"])["tags"]
    assert {"key": "more", "value": "1"} in listed


def test_reads_of_tasks_that_are_not_there(account):
    answer = account.ecs.describe_tasks(cluster=account.cluster, tasks=["0" * 32])
    assert answer["tasks"] == []
    assert answer["failures"][0]["reason"] == "MISSING"
    with pytest.raises(ClientError, match=r"InvalidParameterException.*The referenced task was not found"):
        account.ecs.stop_task(cluster=account.cluster, task="0" * 32)
    with pytest.raises(ClientError, match="ClusterNotFoundException"):
        account.ecs.list_tasks(cluster="no-such-cluster")


def test_250_tasks_are_listed_in_pages(account):
    definition = account.register("sleep", "600")
    started = [each for _ in range(25) for each in account.run(definition, count=10, startedBy="many")]
    page = account.ecs.list_tasks(cluster=account.cluster)
    assert len(page["taskArns"]) == 100
    pages = account.ecs.get_paginator("list_tasks").paginate(cluster=account.cluster, startedBy="many")
    found = [arn.rpartition("/")[2] for page in pages for arn in page["taskArns"]]
    assert found == started
    eventually(
        lambda: len(account.aws.tasks(cluster=account.cluster, last_status="RUNNING")) == 250,
        what="all tasks",
    )
    for arn in started[:3]:
        account.ecs.stop_task(cluster=account.cluster, task=arn)
    assert len(account.ecs.list_tasks(cluster=account.cluster, desiredStatus="STOPPED")["taskArns"]) == 3
    with pytest.raises(ClientError, match="InvalidParameterException"):
        account.ecs.describe_tasks(cluster=account.cluster, tasks=started[:101])
    assert len(account.ecs.describe_tasks(cluster=account.cluster, tasks=started[:100])["tasks"]) == 100


def test_nothing_outlives_a_parent_that_is_killed(tmp_path):
    code = f"""
import sys, time
sys.path[:0] = {[path for path in sys.path if path]!r}
from simulated import Account
from starburst.errors import ProviderError
from starburst.testing.aws import SimulatedAws
aws = SimulatedAws(folder={str(tmp_path / "aws")!r}).start()
account = Account(aws)
account.until_line(account.run_python({STUBBORN!r}), 'waiting')
print(aws.tasks()[0].pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        task = psutil.Process(int(parent.stdout.readline()))
        family = [task, *psutil.Process(parent.pid).children(recursive=True)]
        assert len(family) >= 4  # the simulator, its store, a warden, the task
        os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not [each for each in family if each.is_running() and each.status() != "zombie"], 30)


def test_no_task_outlives_a_simulator_that_is_killed(tmp_path):
    aws = SimulatedAws(folder=str(tmp_path / "aws")).start()
    account = Account(aws)
    done, waiting = account.run_python("print('done')"), account.run_python(STUBBORN)
    account.until_line(waiting, "waiting")
    account.until(done, "STOPPED")
    task = psutil.Process(aws.tasks(task_id=waiting)[0].pid)
    simulator = task.parent()
    family = simulator.children(recursive=True)
    assert task in family
    simulator.kill()
    eventually(lambda: not [each for each in family if each.is_running() and each.status() != "zombie"])
    with pytest.raises(ProviderError, match="does not answer"):
        aws.tasks()
    aws.stop()
