"""Workers in real containers, from the image in a real registry: what processes of this machine cannot show."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import starburst
from helpers import eventually
from starburst.aws.names import REPOSITORY, SUPERVISOR_FAMILY
from starburst.client.opening import find
from starburst.errors import NotSetUp, OptionError, StarburstError, TaskFailed, WorkerLost
from worker_image import architecture, image_config

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no container has this file

REFUSED = "Read-only file system"
SUBMITS = """
import starburst, time

def slow_square(x):
    time.sleep(0.25)
    return x * x

session = starburst.session(workers=2, lease=5)
session.map(slow_square, range(40), chunksize=2)
print(session.session_id)
"""


def look_around(item):
    time.sleep(0.05)
    return item, {
        "user": (os.getuid(), os.getgid()),
        "home": os.environ["HOME"],
        "folder": str(Path.cwd()),
        "in a container": Path("/run/.containerenv").exists(),
        "written": {name: _write(name) for name in ("/file", "/usr/local/file", "/tmp/file", "file")},
        "keys": [name for name in os.environ if "SECRET" in name or "ACCESS_KEY" in name],
        "sum": float(np.arange(10.0).sum()),
    }


def _write(name):
    try:
        Path(name).write_text("x")
    except OSError as error:
        return error.strerror
    return "written"


def slow_square(x, seconds):
    time.sleep(seconds)
    return x * x


def fail(x):
    raise ValueError(f"{x} is bad")


def kill_the_container_at_4(x):
    if x == 4:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return x


def workers_of(cloud, **filters):
    """Worker tasks, the oldest first."""
    return [one for one in cloud.aws.tasks(**filters) if not one.definition.startswith(SUPERVISOR_FAMILY)]


def test_map(cloud):
    before = len(cloud.aws.tasks())
    found = starburst.map(look_around, range(40))
    assert [item for item, _ in found] == list(range(40))
    for _, seen in found:
        assert seen == {
            "user": (65532, 65532),
            "home": "/tmp",
            "folder": "/tmp",
            "in a container": True,
            "written": {
                "/file": REFUSED,
                "/usr/local/file": REFUSED,
                "/tmp/file": "written",
                "file": "written",
            },
            "keys": [],
            "sum": 45.0,
        }
    tasks = cloud.aws.tasks()[before:]
    assert len(tasks) == 2
    assert {task.launch_type for task in tasks} == {"FARGATE"}


def test_executor_and_a_stop_that_lets_tasks_finish(cloud):
    with starburst.Executor(spot=False) as pool:
        slow = [pool.submit(slow_square, x, 0.5) for x in range(12)]
        bad = pool.submit(fail, 3)
        assert slow[0].result(60) == 0
        first = workers_of(cloud, last_status="RUNNING")[0]
        cloud.client("ecs").stop_task(cluster=first.cluster, task=first.task_id, reason="a test")
        eventually(lambda: cloud.aws.tasks(task_id=first.task_id, last_status="STOPPED"), what="its end")
        assert [future.result(60) for future in slow] == [x * x for x in range(12)]
        with pytest.raises(TaskFailed, match="ValueError: 3 is bad"):
            bad.result(60)
    (stopped,) = cloud.aws.tasks(task_id=first.task_id)
    assert (stopped.stop_code, stopped.exit_code) == ("UserInitiated", 0), stopped


def test_a_session_goes_on_without_its_client(cloud, tmp_path):
    script = tmp_path / "submits.py"
    script.write_text(SUBMITS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    session_id = done.stdout.strip()
    session = find(session_id)  # unlike attach(), this only looks
    eventually(lambda: session.status().completed, 60, every_s=0.2, what="the first results")
    first = workers_of(cloud, started_by=session_id)[0]
    cloud.aws.kill(first.task_id)
    # Nobody else looks after it: the supervisor, in a container of its own, replaces what was lost.
    eventually(lambda: len(workers_of(cloud, started_by=session_id)) > 2, 60, what="another worker")
    session = starburst.attach(session_id)
    assert session.collect(timeout=60) == [x * x for x in range(40)]
    session.cleanup()
    eventually(lambda: not cloud.alive(), what="the end of all tasks")
    (killed,) = cloud.aws.tasks(task_id=first.task_id)
    assert killed.exit_code == 137
    (supervisor,) = [
        one for one in cloud.aws.tasks(started_by=session_id) if one.definition.startswith(SUPERVISOR_FAMILY)
    ]
    assert supervisor.exit_code == 0


def test_a_task_that_takes_its_container_down(cloud):
    before = len(cloud.aws.tasks())
    found = starburst.map(
        kill_the_container_at_4, range(6), chunksize=1, lease=5, max_attempts=2, on_error="return"
    )
    assert [x for x in found if not isinstance(x, Exception)] == [0, 1, 2, 3, 5]
    assert isinstance(found[4], WorkerLost)
    eventually(
        lambda: [task.exit_code for task in cloud.aws.tasks()[before:]].count(128 + signal.SIGKILL) == 2,
        what="the end of two containers",
    )


def test_an_image_that_ecr_does_not_have(cloud):
    image = f"{cloud.repository}:nothing"
    before = len(cloud.aws.tasks())
    with pytest.raises(NotSetUp, match=image):
        starburst.map(fail, [1], image=image)
    assert len(cloud.aws.tasks()) == before


def test_an_image_that_a_registry_does_not_have(cloud):
    image = f"{cloud.registry.address}/{REPOSITORY}:nothing"
    with pytest.raises(StarburstError, match=f"CannotPullContainerError.*{image}"):
        starburst.map(fail, [1], image=image)


def test_an_image_of_another_architecture(cloud):
    other = {"amd64": "arm64", "arm64": "amd64"}[architecture()]
    cloud.registry.push_image(REPOSITORY, [], image_config(), architecture=other, tag="other")
    cloud.registry.push_index(REPOSITORY, {other: "other"}, tag="others")
    wanted = {"amd64": "X86_64", "arm64": "ARM64"}[architecture()]
    image = cloud.tell_ecr("others")
    before = len(cloud.aws.tasks())
    with pytest.raises(OptionError, match=f"is built for .*, not for {wanted}"):
        starburst.map(fail, [1], image=image, architecture=wanted)
    assert len(cloud.aws.tasks()) == before
    # What the index does not tell beforehand, the container engine tells later.
    image = cloud.tell_ecr("other")
    with pytest.raises(StarburstError, match="not built for this architecture"):
        starburst.map(fail, [1], image=image, architecture=wanted)
