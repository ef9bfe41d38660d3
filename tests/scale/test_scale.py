"""Hundreds of workers on the simulated account, light-weight ones: real agents, tasks in their own process."""

import sys
import time

import pytest

import starburst
from cloud import Cloud
from helpers import eventually
from starburst.client import pool as pools

WORKERS = 500
TASKS = 40 * WORKERS


def point(i):
    """A short task."""
    return i * i % 97


@pytest.fixture
def account(tmp_path):
    cloud = Cloud(tmp_path, runtime="light", rates=1.0)
    try:
        yield cloud.start(fargate_only=True)
    finally:
        cloud.aws.stop()


@pytest.mark.timeout(600)  # 500 agents share two cores with the S3 server
def test_hundreds_of_workers_and_thousands_of_short_tasks(account, monkeypatch, capsys):
    account.use(monkeypatch, "FARGATE")
    before = account.aws.calls()
    began = time.monotonic()
    session = starburst.session(
        workers=WORKERS,
        cpu=0.25,
        memory="512MB",
        spot=False,
        idle_timeout=20,
        lease=60,
        absolute_timeout="20m",
    )
    session.map(point, range(TASKS))
    assert session.collect(timeout=480) == [point(i) for i in range(TASKS)]
    seconds = time.monotonic() - began
    status = session.status()
    assert (status.completed, status.failed) == (TASKS, 0)
    workers = [task for task in account.aws.tasks() if task.definition.startswith("starburst-worker")]
    assert len({task.task_id for task in workers}) == len(workers) <= WORKERS
    calls = account.aws.calls()
    control = {
        name: count - before.get(name, 0) for name, count in calls.items() if count > before.get(name, 0)
    }
    objects = account.aws.s3_calls()
    lost = objects.pop("s3.PutObject 412", 0)
    puts = objects.get("s3.PutObject", 0)
    assert control["ecs.RunTask"] <= WORKERS // 10 + 5
    assert account.aws.throttled() == {}
    assert account.aws.denials() == []
    lines = [
        f"{WORKERS} workers asked for, {len(workers)} started, {TASKS} tasks in {seconds:.1f} s",
        *(f"  {name:40} {count:>7}" for name, count in sorted(control.items())),
        *(f"  {name:40} {n:>7}   {n / TASKS:.2f} per task" for name, n in sorted(objects.items())),
        f"  creates that another one had won         {lost:>7}   {lost / max(1, puts):.1%} of writes",
    ]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    session.cleanup(force=True)
    eventually(lambda: not account.alive(), timeout_s=60, what="the end of all tasks")
    pools.close_all()
