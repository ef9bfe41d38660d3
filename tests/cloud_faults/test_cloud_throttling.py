"""Hundreds of workers at the rates that AWS publishes, while it says "later", and while its answers get lost."""

import asyncio

import pytest

import starburst
from starburst.client.connection import Connection
from starburst.compute.base import LaunchSpec
from starburst.protocol.keys import new_worker_id

N_WORKERS = 200


@pytest.fixture
def busy(make_site):
    """An account that starts tasks, and no more: what is asked is which, and how."""
    return make_site(pull_s=3600)


async def launch(*, spot):
    """As a supervisor does it; returns the session's id and what was launched."""
    options = starburst.Options(launch_type="FARGATE", workers=N_WORKERS, cpu=0.25, memory="512MB", spot=spot)
    connection = await Connection.create(options, "session")
    spec = LaunchSpec(
        session_url=connection.url,
        session_id=connection.session_id,
        workers=tuple(new_worker_id() for _ in range(N_WORKERS)),
    )
    return connection.session_id, await connection.provider.launch(spec)


def assert_each_was_started_once(site, session_id, launched):
    assert launched.shortfall == ""
    names = [status.worker for status in launched.workers]
    assert len(names) == len(set(names)) == N_WORKERS
    tasks = site.aws.tasks(started_by=session_id)
    assert sorted(f"w-{task.task_id[:12]}" for task in tasks) == sorted(names)


def test_hundreds_of_workers_start_once_each(busy):
    assert_each_was_started_once(busy, *asyncio.run(launch(spot=True)))
    assert busy.aws.throttled() == {}  # neither calls nor the tasks that they start were too many a second
    assert busy.aws.calls()["ecs.RunTask"] == N_WORKERS / 10

    busy.aws.fail("ecs:RunTask", "throttle", times=2)
    busy.aws.fail("ecs:RunTask", "lost-reply", times=3)
    assert_each_was_started_once(busy, *asyncio.run(launch(spot=False)))
    assert busy.aws.throttled()["ecs.RunTask"] >= 2
    assert busy.aws.calls()["ecs.RunTask"] >= 2 * N_WORKERS / 10 + 2 + 3
