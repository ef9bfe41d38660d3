"""Sweep after programs that were killed: their sessions are closed, their hosts end, what others use stays."""

import json
import subprocess
import sys

import boto3
import pytest

import starburst
from helpers import eventually
from starburst.aws.clients import Aws
from starburst.client.engine import engine
from starburst.clock import SystemClock
from starburst.compute.ec2_holds import holds_of
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices
from starburst.ops.setup import documents_of
from starburst.ops.sweep import Sweep
from starburst.testing.aws import SimulatedAws

GROUP = "starburst-c7g-xlarge-spot"
OPTIONS = "launch_type='EC2', workers=1, cpu=0.25, memory='256MB', lease=2, idle_timeout=2"
MAPS = f"import starburst, time; starburst.map(time.sleep, [0.2] * 20, progress=False, {OPTIONS})"
SESSION = f"import starburst, time; starburst.session({OPTIONS}).map(time.sleep, [0.2] * 10_000)"


@pytest.fixture(scope="module")
def simulator():
    with SimulatedAws(fargate_vcpus=100, ec2_vcpus=100) as running:
        yield running


@pytest.fixture
def sim(simulator, data_dir, monkeypatch):
    for name, value in simulator.environment.items():
        monkeypatch.setenv(name, value)
    starburst.setup(image="starburst-worker:under-test")
    yield simulator
    starburst.teardown(yes=True)


def alive(sim):
    return [task for task in sim.tasks() if task.last_status != "STOPPED"]


def kept_warm():
    [group] = boto3.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])[
        "AutoScalingGroups"
    ]
    tags = {tag["Key"]: tag["Value"] for tag in group["Tags"]}
    return [hold for hold in holds_of(tags) if hold.hosts], group


def killed_map(sim):
    """A program that maps on EC2 is killed; its workers end what they have and leave. The session's row."""
    program = subprocess.Popen([sys.executable, "-c", MAPS])
    try:
        # A host is kept for it before the session is written down.
        eventually(
            lambda: kept_warm()[0] and any(session.completed for session in starburst.list_sessions()),
            60,
            what="a warm host",
        )
    finally:
        program.kill()
        program.wait()
    eventually(lambda: not alive(sim), 60, what="the end of all tasks")
    return eventually(
        lambda: [row for row in starburst.list_sessions() if row.abandoned], 30, what="an abandoned session"
    )[0]


class Later(SystemClock):
    """A clock that is half an hour ahead."""

    def time(self):
        return super().time() + 1800


@pytest.fixture
def administrator(sim):
    """The keys of somebody who has the printed document for whoever sets up, and no other right."""
    iam, user = boto3.client("iam"), {"UserName": "administrator"}
    blueprint = engine.run(Blueprint.draw(Aws("us-east-1"), Choices()))
    document = json.dumps(documents_of(blueprint)["setup"])
    iam.create_user(**user)
    iam.put_user_policy(**user, PolicyName="setup", PolicyDocument=document)
    key = iam.create_access_key(**user)["AccessKey"]
    yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    iam.delete_access_key(**user, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(**user, PolicyName="setup")
    iam.delete_user(**user)


def sweep(*, yes=False, clock=None):
    work = engine.run(Sweep.open(region=None, profile=None, clock=clock))
    plan = engine.run(work.plan())
    if yes:
        plan = engine.run(work.apply(plan))
    work.aws.close()
    return plan


def test_what_a_killed_map_leaves_is_found_and_removed(sim, administrator, monkeypatch):
    row = killed_map(sim)
    denied = len(sim.denials())
    assert row.state == "open"
    plan = sweep()
    assert [(each.kind, each.name) for each in plan.leftovers] == [
        ("session", row.session_id),
        ("EC2 hosts", f"1 of {GROUP}"),
    ]
    assert "its program is gone" in plan.leftovers[0].why
    assert "kept warm until" in plan.leftovers[1].why
    assert kept_warm()[0], "a list changes nothing"

    with monkeypatch.context() as patch:
        for name, value in administrator.items():
            patch.setenv(name, value)
        assert sweep(yes=True).done
    assert sim.denials()[denied:] == []
    assert {host.state for host in sim.hosts()} <= {"terminated"}
    holds, group = kept_warm()
    assert holds == [], "nothing brings the hosts back"
    assert (group["MinSize"], group["DesiredCapacity"]) == (0, 0)
    assert group["MaxSize"] > 0, "others may start hosts at once"
    assert group["NewInstancesProtectedFromScaleIn"]
    assert sweep().leftovers == ()
    found = starburst.attach(row.session_id)
    assert found.status().state == "closed"
    assert found.collect(wait=False) == [None] * row.completed
    assert starburst.map(abs, [-1], launch_type="EC2", cpu=0.25, memory="256MB", progress=False) == [1]


def test_hosts_that_a_session_has_come_to_use_since_the_list_was_made_stay(sim):
    killed_map(sim)
    work = engine.run(Sweep.open(region=None, profile=None))
    plan = engine.run(work.plan())
    [hosts] = [host.instance_id for host in sim.hosts() if host.state != "terminated"]
    program = subprocess.Popen([sys.executable, "-c", MAPS])
    try:
        eventually(lambda: alive(sim), 60, what="work")
        engine.run(work.apply(plan))
        assert hosts in [host.instance_id for host in sim.hosts() if host.state != "terminated"]
        assert program.wait(timeout=60) == 0
    finally:
        program.kill()
        program.wait()
        work.aws.close()


def test_a_detached_session_without_a_supervisor_is_told_and_stays(sim):
    subprocess.run([sys.executable, "-c", SESSION], check=True, timeout=60)
    [row] = starburst.list_sessions()
    eventually(lambda: starburst.list_sessions()[0].completed, 60, what="work")
    for task in alive(sim):
        sim.kill(task.task_id)
    eventually(lambda: not alive(sim), what="the end of all tasks")
    assert not starburst.list_sessions()[0].abandoned, "its supervisor was there a moment ago"
    assert sweep().unsure == ()
    plan = sweep(yes=True, clock=Later())
    assert [each.kind for each in plan.leftovers if each.kind == "session"] == []
    assert any(row.session_id in line and "starburst collect" in line for line in plan.unsure)
    assert starburst.list_sessions()[0].state == "open"
    starburst.attach(row.session_id).cleanup(force=True)
