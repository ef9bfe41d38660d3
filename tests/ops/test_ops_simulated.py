"""Teardown and sweep where tasks and hosts really run: on the simulated AWS."""

import asyncio
import json
import subprocess
import sys
import time

import boto3
import pytest

import starburst
from helpers import eventually
from starburst.aws.clients import Aws
from starburst.aws.deployment import load_deployments
from starburst.client.engine import engine
from starburst.clock import SystemClock
from starburst.errors import NotSetUp
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices
from starburst.ops.setup import documents_of
from starburst.ops.sweep import OLD_S, Sweep
from starburst.ops.tasks import cluster_tasks
from starburst.protocol.keys import Keys
from starburst.protocol.records import Environment, Manifest
from starburst.protocol.sessions import append_event, create_session
from starburst.store import open_store
from starburst.testing.aws import SimulatedAws

BUCKET = "starburst-123456789012-us-east-1"
SLEEP = ["python", "-c", "import time; time.sleep(600)"]


@pytest.fixture(scope="module")
def simulator():
    with SimulatedAws(fargate_vcpus=100, ec2_vcpus=100) as running:
        yield running


@pytest.fixture
def sim(simulator, data_dir, monkeypatch):
    """The simulator, in the environment; whatever a test leaves is taken down."""
    for name, value in simulator.environment.items():
        monkeypatch.setenv(name, value)
    yield simulator
    simulator.clear()
    for task in simulator.tasks():
        if task.last_status != "STOPPED":
            simulator.kill(task.task_id)
    eventually(lambda: all(task.last_status == "STOPPED" for task in simulator.tasks()))
    starburst.teardown(yes=True)


def ours(resources):
    """Without the roles that belong to AWS's services: they stay."""
    roles = [role for role in resources["roles"] if not role.startswith("AWSServiceRole")]
    return {**resources, "roles": roles}


class Tasks:
    """Starts tasks as sessions do, but whose session says what a test wants."""

    def __init__(self, deployment):
        self.deployment = deployment
        self.ecs = boto3.client("ecs")
        self.store = open_store(f"s3://{deployment.bucket}")

    def definition(self, family="starburst-worker-0123456789abcdef", *, ec2=False):
        made = self.ecs.register_task_definition(
            family=family,
            requiresCompatibilities=["EC2" if ec2 else "FARGATE"],
            networkMode="bridge" if ec2 else "awsvpc",
            cpu="256",
            memory="512",
            executionRoleArn=self.deployment.execution_role_arn,
            taskRoleArn=self.deployment.task_role_arn,
            containerDefinitions=[{"name": "worker", "image": "any", "command": SLEEP, "stopTimeout": 2}],
            tags=[{"key": "starburst:managed", "value": "true"}],
        )
        return made["taskDefinition"]["taskDefinitionArn"]

    def start(self, session_id, capacity="FARGATE", *, managed=True, url=None):
        ec2 = not capacity.startswith("FARGATE")
        tags = {"starburst:managed": "true", "starburst:session": session_id} if managed else {}
        network = {
            "subnets": list(self.deployment.subnets),
            "securityGroups": list(self.deployment.security_groups),
        }
        # Behind the command that sleeps, as an argument that it does not look at.
        command = [*SLEEP, url] if url else SLEEP
        answer = self.ecs.run_task(
            cluster="starburst-cluster",
            taskDefinition=self.definition(ec2=ec2),
            capacityProviderStrategy=[{"capacityProvider": capacity, "weight": 1}],
            overrides={"containerOverrides": [{"name": "worker", "command": command}]},
            tags=[{"key": key, "value": value} for key, value in tags.items() if value],
            **({} if ec2 else {"networkConfiguration": {"awsvpcConfiguration": network}}),
        )
        assert not answer["failures"]
        return answer["tasks"][0]["taskArn"].rsplit("/", 1)[-1]

    def session(self, session_id, *, ended=None, lifetime_s=3600.0, store=None):
        store = store or self.store
        manifest = Manifest(
            session_id=session_id,
            kind="session",
            created_at=time.time() - 100,
            owner="me",
            host="here",
            launch_type="FARGATE",
            workers=1,
            slots=1,
            max_attempts=3,
            lease_s=15,
            idle_timeout_s=60,
            session_timeout_s=60,
            absolute_timeout_s=lifetime_s,
            environment=Environment(),
        )
        asyncio.run(create_session(store, manifest))
        if ended:
            asyncio.run(
                append_event(store, Keys(session_id), SystemClock(), "terminated", data={"reason": ended})
            )


@pytest.fixture
def tasks(sim):
    return Tasks(starburst.setup(fargate_only=True).deployment)


def running(sim):
    return sorted(task.task_id for task in sim.tasks() if task.last_status == "RUNNING")


def sweep(*, yes=False, clock=None):
    work = engine.run(Sweep.open(region=None, profile=None, clock=clock))
    plan = engine.run(work.plan())
    if yes:
        plan = engine.run(work.apply(plan))
    work.aws.close()
    return plan


def test_setup_and_teardown_leave_the_account_as_it_was(sim):
    before = ours(sim.resources())
    starburst.setup()
    assert starburst.setup().to_do == []
    assert starburst.teardown(yes=True).done
    assert ours(sim.resources()) == before


def test_two_programs_set_up_at_the_same_moment(sim):
    command = [sys.executable, "-m", "starburst.cli.main", "setup"]
    both = [
        subprocess.Popen([*command, "--yes"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], "\n".join(said)
    assert subprocess.run([*command, "--check"], check=False, timeout=60).returncode == 0


def test_teardown_stops_what_runs_first(sim, tasks):
    before = {kind: names for kind, names in ours(sim.resources()).items() if kind.startswith("tasks")}
    wanted = sorted(tasks.start("session-a") for _ in range(3))
    eventually(lambda: running(sim) == wanted)
    plan = starburst.teardown()
    assert str(plan.items[0]) == "tasks starburst-cluster (3 running, of 1 sessions)"
    assert running(sim) == wanted
    starburst.teardown(yes=True)
    assert running(sim) == []
    after = ours(sim.resources())
    assert not any(after[kind] for kind in before)
    assert after["clusters"] == after["buckets"] == after["roles"] == []
    assert load_deployments() == []


def test_teardown_ends_hosts_after_their_tasks(sim):
    before = ours(sim.resources())
    busy = Tasks(starburst.setup().deployment)
    wanted = sorted(busy.start("session-a", "starburst-c7g-xlarge") for _ in range(2))
    eventually(lambda: running(sim) == wanted)
    starburst.teardown(yes=True)
    assert ours(sim.resources()) == before
    assert {host.state for host in sim.hosts()} <= {"terminated"}


def test_teardown_touches_nothing_while_somebody_elses_task_runs_in_the_cluster(sim, tasks):
    ours_id, theirs = tasks.start("session-a"), tasks.start("", managed=False)
    eventually(lambda: running(sim) == sorted([ours_id, theirs]))
    before = sim.resources()
    with pytest.raises(NotSetUp, match=theirs):
        starburst.teardown(yes=True)
    assert sim.resources() == before


def test_sweep_stops_tasks_of_sessions_that_ended_and_no_others(sim, tasks):
    tasks.session("session-open")
    tasks.session("session-closed", ended="closed")
    tasks.session("session-late", lifetime_s=10)
    kept = tasks.start("session-open")
    over = [tasks.start(name) for name in ("session-closed", "session-late", "session-gone")]
    theirs = tasks.start("", managed=False)
    everything = sorted([kept, theirs, *over])
    eventually(lambda: running(sim) == everything)
    plan = sweep()
    assert {each.name: each.why for each in plan.leftovers} == {
        over[0]: "its session session-closed is closed",
        over[1]: "its session session-late is expired",
        over[2]: "its session session-gone is not there any more",
    }
    assert running(sim) == everything
    assert sweep(yes=True).done
    assert running(sim) == sorted([kept, theirs])
    assert sweep().leftovers == ()


def test_sweep_looks_for_a_session_where_its_task_says(sim, tasks):
    boto3.client("s3").create_bucket(Bucket="another-store")
    try:
        tasks.session("session-elsewhere", store=open_store("s3://another-store/deep"))
        task = tasks.start("session-elsewhere", url="s3://another-store/deep/sessions/session-elsewhere")
        lost = tasks.start("session-nowhere", url="s3://no-such-bucket-anywhere/sessions/session-nowhere")
        eventually(lambda: running(sim) == sorted([task, lost]))
        plan = sweep()
        assert task not in [each.name for each in plan.leftovers]
        names = [each.name for each in plan.leftovers] + [line.split()[1].rstrip(":") for line in plan.unsure]
        assert names == [lost]
    finally:
        bucket = boto3.resource("s3").Bucket("another-store")
        bucket.objects.all().delete()
        bucket.delete()


class Later(SystemClock):
    """A clock that is a month and a day ahead."""

    def time(self):
        return super().time() + OLD_S + 86400


def test_sweep_removes_old_task_definitions_that_nothing_uses(sim, tasks):
    old = tasks.definition("starburst-worker-aaaaaaaaaaaaaaaa")
    used = tasks.start("session-open")
    eventually(lambda: running(sim) == [used])
    [view] = engine.run(cluster_tasks(engine.run(Sweep.open(region=None, profile=None)).aws))
    assert sweep().leftovers[0].kind == "task", "a young definition is no leftover"
    tasks.session("session-open", lifetime_s=10 * OLD_S)
    assert sweep(clock=Later()).leftovers == (), "a session that is open may need it again"
    tasks.session("session-x")  # expires long before
    asyncio.run(
        append_event(
            tasks.store, Keys("session-open"), SystemClock(), "terminated", data={"reason": "closed"}
        )
    )
    found = sweep(clock=Later(), yes=True)
    assert [each.kind for each in found.leftovers] == ["task", "task definition"]
    assert found.leftovers[1].name == old.rsplit("/", 1)[-1]
    left = boto3.client("ecs").list_task_definitions()["taskDefinitionArns"]
    assert left == [view.definition]


@pytest.mark.parametrize("way", [[], ["--store", f"s3://{BUCKET}"]], ids=["usual places", "by name"])
def test_commands_say_what_to_do_when_the_bucket_of_the_setup_is_gone(sim, tasks, way):
    boto3.client("s3").delete_bucket(Bucket=BUCKET)
    command = [sys.executable, "-m", "starburst.cli.main"]
    for words in (["status", "session-x"], ["sessions"]):
        done = subprocess.run(
            [*command, *words, *way], capture_output=True, text=True, check=False, timeout=60
        )
        assert "the bucket of the set-up cannot be used" in done.stderr
        assert "`starburst setup --region us-east-1` makes what is missing" in done.stderr
        assert "s3 mb" not in done.stderr
        # Those of this machine are still listed.
        assert done.returncode == (0 if words == ["sessions"] and not way else 6), words
    starburst.setup()
    assert starburst.list_sessions() == []


def test_sweep_ends_hosts_on_which_nothing_runs(sim):
    deployment = starburst.setup().deployment
    scaling = boto3.client("autoscaling")
    scaling.update_auto_scaling_group(
        AutoScalingGroupName="starburst-c7g-xlarge", MinSize=1, DesiredCapacity=1
    )
    eventually(sim.hosts)
    plan = sweep()
    assert [(each.kind, each.name) for each in plan.leftovers] == [("EC2 hosts", "1 of starburst-c7g-xlarge")]
    busy = Tasks(deployment)
    busy.session("session-open")
    busy.start("session-open", "starburst-c7g-xlarge")
    eventually(lambda: running(sim))
    assert sweep().leftovers == ()
    sim.kill(running(sim)[0])
    eventually(lambda: not running(sim))
    assert sweep(yes=True).done
    assert {host.state for host in sim.hosts()} <= {"terminated"}


def test_a_bucket_name_that_is_taken_by_another_account(sim):
    sim.foreign_bucket("their-bucket")
    with pytest.raises(NotSetUp, match="their-bucket") as caught:
        starburst.setup("their-bucket", fargate_only=True)
    assert "--bucket NAME" in caught.value.hint
    assert load_deployments() == []


@pytest.mark.parametrize("new_vpc", [False, True], ids=["default-vpc", "new-vpc"])
def test_the_printed_policy_is_enough_to_set_up_and_to_take_down(sim, monkeypatch, new_vpc):
    iam = boto3.client("iam")
    user = {"UserName": "person-who-sets-up"}
    iam.create_user(**user)
    blueprint = engine.run(Blueprint.draw(Aws("us-east-1"), Choices()))
    document = json.dumps(documents_of(blueprint)["setup"])
    iam.put_user_policy(**user, PolicyName="setup", PolicyDocument=document)
    key = iam.create_access_key(**user)["AccessKey"]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        plan = starburst.setup(new_vpc=new_vpc)
        assert "person-who-sets-up" in plan.identity
        assert starburst.setup(new_vpc=new_vpc).to_do == []
        assert sweep().leftovers == ()
        assert starburst.teardown(yes=True).done
    assert sim.denials() == []
    iam.delete_access_key(**user, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(**user, PolicyName="setup")
    iam.delete_user(**user)
