"""Light-weight workers: many real agents in a few processes."""

import pytest

import starburst
from cloud import Cloud
from helpers import eventually
from starburst.client import pool as pools


@pytest.fixture
def account(tmp_path, monkeypatch):
    cloud = Cloud(tmp_path, runtime="light")
    try:
        cloud.start(fargate_only=True)
        cloud.use(monkeypatch, "FARGATE")
        yield cloud
    finally:
        cloud.aws.stop()


def test_light_workers_run_tasks_stop_when_asked_and_can_be_killed(account):
    session = starburst.session(workers=20, cpu=0.25, memory="512MB", spot=False, idle_timeout=60, lease=5)
    session.map(divmod, range(400), [7] * 400, chunksize=1)
    assert session.collect(timeout=90) == [divmod(i, 7) for i in range(400)]
    workers = [task for task in account.alive() if task.definition.startswith("starburst-worker")]
    assert 0 < len(workers) <= 20
    assert len({task.pid for task in workers}) <= 2
    first, *others = workers
    account.aws.kill(first.task_id)
    eventually(lambda: account.aws.tasks(task_id=first.task_id)[0].last_status == "STOPPED", timeout_s=20)
    [killed] = account.aws.tasks(task_id=first.task_id)
    assert killed.exit_code == 137
    assert all(account.aws.tasks(task_id=task.task_id)[0].last_status != "STOPPED" for task in others)
    session.cleanup(force=True)
    eventually(lambda: not account.alive(), timeout_s=60, what="the end of all tasks")
    pools.close_all()
