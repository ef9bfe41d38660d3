"""The deadline holds when nobody is left to enforce it, and when tasks cannot be asked to stop."""

import time

import boto3
import psutil
import pytest
from cloud_tasks import slow_square

import starburst
from helpers import eventually

LIMIT_S = 30.0
DEADLINE_S = 20


@pytest.mark.parametrize("launch_type", ["FARGATE", "EC2"])
def test_nothing_runs_after_the_deadline(site, launch_type):
    began = time.time()
    ec2 = {"cpu": 1, "memory": "2GB"} if launch_type == "EC2" else {}
    crew = site.submit(
        "sleep_in_c",
        800,
        0.2,
        workers=2,
        launch_type=launch_type,
        absolute_timeout=DEADLINE_S,
        **ec2,
    )
    eventually(lambda: crew.claimed() >= 2 and crew.flushed(), 20, what="work")
    site.kill(site.supervisors())
    processes = site.cloud.processes()
    assert [task.launch_type for task in site.workers()] == [launch_type] * 2
    assert time.time() < began + DEADLINE_S, "the machine is too slow for this test"

    left_s = began + DEADLINE_S + LIMIT_S - time.time()
    eventually(lambda: not site.alive(), left_s, what="the end of all tasks")
    assert psutil.wait_procs(processes, timeout=1)[1] == []
    assert crew.done() < 800
    if launch_type == "EC2":
        eventually(lambda: not site.hosts(), LIMIT_S, what="the end of all hosts")


def closing_at():
    """When AWS closes the capacity, the last of its groups."""
    actions = boto3.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    return max(
        (action["StartTime"].timestamp() for action in actions if action.get("MaxSize") == 0), default=0.0
    )


def test_extending_a_session_moves_the_closing_of_its_hosts(site):
    session = starburst.session(launch_type="EC2", workers=1, absolute_timeout="30m")
    session.map(slow_square, [3], [0.01])
    assert session.collect(timeout=60) == [9]
    before = closing_at()
    assert before > 0
    session.extend("5h")
    assert closing_at() >= before + 5 * 3600 - 1
    session.cleanup(force=True)
