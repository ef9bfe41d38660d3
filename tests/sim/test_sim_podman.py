"""Tasks in real containers: a tiny image, all that ends them, and what keeps them from starting."""

import shlex
import shutil
import subprocess

import pytest
import tiny_image

from podman import own_podman
from simulated import Account
from starburst.testing.aws import SimulatedAws

pytestmark = pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")

DRAINS = "trap 'echo drained; exit 5' TERM; echo waiting; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; echo waiting; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    with own_podman() as command:
        tiny_image.build(command, tmp_path_factory.mktemp("image"))
        yield command


@pytest.fixture(scope="module")
def containers(tmp_path_factory, podman):
    folder = str(tmp_path_factory.mktemp("aws"))
    with SimulatedAws(folder=folder, runtime="podman", podman=shlex.join(podman), rates=0) as aws:
        yield Account(aws)


def run(account, script, **container):
    settings = {"image": tiny_image.NAME, **container}
    return account.run(account.register("sh", "-c", script, **settings))[0]


def test_exit_code_lines_and_environment(containers):
    script = "echo hello; echo $ADDED $AWS_EXECUTION_ENV; id -u; exit 7"
    task_id = run(containers, script, user="65534", environment=[{"name": "ADDED", "value": "a b"}])
    about = containers.until(task_id, "STOPPED")
    assert about["containers"][0]["exitCode"] == 7
    assert about["stopCode"] == "EssentialContainerExited"
    assert containers.lines(task_id) == ["hello", "a b AWS_ECS_FARGATE", "65534"]


def test_root_that_cannot_be_written(containers):
    task_id = run(containers, "touch /file 2>&1 || echo refused", readonlyRootFilesystem=True)
    containers.until(task_id, "STOPPED")
    assert containers.lines(task_id)[-1] == "refused"


def test_stop_is_sigterm(containers):
    task_id = run(containers, DRAINS)
    containers.until_line(task_id, "waiting")
    containers.ecs.stop_task(cluster=containers.cluster, task=task_id)
    about = containers.until(task_id, "STOPPED")
    assert (about["containers"][0]["exitCode"], about["stopCode"]) == (5, "UserInitiated")
    assert containers.lines(task_id) == ["waiting", "drained"]


def test_interruption_ends_with_sigkill(containers):
    task_id = run(containers, STUBBORN, stopTimeout=1)
    containers.until_line(task_id, "waiting")
    containers.aws.interrupt(task_id)
    about = containers.until(task_id, "STOPPED")
    assert (about["containers"][0]["exitCode"], about["stopCode"]) == (137, "SpotInterruption")


def test_an_init_process_passes_signals_on(containers):
    task_id = run(containers, "echo waiting; sleep 600", linuxParameters={"initProcessEnabled": True})
    containers.until_line(task_id, "waiting")
    containers.ecs.stop_task(cluster=containers.cluster, task=task_id)
    assert containers.until(task_id, "STOPPED")["containers"][0]["exitCode"] == 143


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image": "localhost/no-such-image:1"}, "failed to resolve ref localhost/no-such-image:1"),
        (
            {"task": {"runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}}},
            "descriptor matching platform 'linux/arm64'",
        ),
    ],
)
def test_images_that_cannot_be_had(containers, settings, reason):
    about = containers.until(run(containers, "true", **settings), "STOPPED")
    assert about["stopCode"] == "TaskFailedToStart"
    assert about["stoppedReason"].startswith("CannotPullContainerError")
    assert reason in about["stoppedReason"]
    assert "exitCode" not in about["containers"][0]


def test_no_container_outlives_the_simulator(tmp_path, podman):
    with SimulatedAws(folder=str(tmp_path), runtime="podman", podman=shlex.join(podman)) as aws:
        account = Account(aws)
        task_id = run(account, STUBBORN)
        account.until_line(task_id, "waiting")
        name = aws.tasks()[0].task_id
        listing = subprocess.run([*podman, "ps"], check=True, capture_output=True, text=True).stdout
        assert name in listing
    listing = subprocess.run([*podman, "ps", "--all"], check=True, capture_output=True, text=True).stdout
    assert name not in listing
