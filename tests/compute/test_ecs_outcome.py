"""What became of a task, from what ECS says (texts: aws.md, from the developer guide)."""

import datetime as dt

import pytest

from starburst.compute.ecs_outcome import status_of

ARN = "arn:aws:ecs:us-east-1:123456789012:task/starburst-cluster/0123456789abcdef0123456789abcdef"


def task(
    last_status="STOPPED",
    *,
    exit_code=None,
    container_reason=None,
    definition="starburst-worker-1:1",
    **fields,
):
    container = {"name": "worker"}
    if exit_code is not None:
        container["exitCode"] = exit_code
    if container_reason is not None:
        container["reason"] = container_reason
    return {
        "taskArn": ARN,
        "taskDefinitionArn": f"arn:aws:ecs:us-east-1:123456789012:task-definition/{definition}",
        "lastStatus": last_status,
        "containers": [container],
        **fields,
    }


@pytest.mark.parametrize(
    ("last_status", "state"),
    [
        ("PROVISIONING", "starting"),
        ("PENDING", "starting"),
        ("ACTIVATING", "starting"),
        ("RUNNING", "running"),
        ("DEACTIVATING", "running"),
        ("STOPPING", "running"),
        ("DEPROVISIONING", "exited"),
        ("STOPPED", "exited"),
        ("DELETED", "exited"),
    ],
)
def test_states(last_status, state):
    assert status_of(task(last_status)).state == state


def test_a_worker_is_named_by_its_task_and_a_supervisor_by_its_family():
    assert status_of(task()).worker == "w-0123456789ab"
    assert status_of(task(definition="starburst-supervisor-9:1")).worker == "supervisor-0123456789ab"
    assert status_of(task()).log == "starburst/worker/0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("exit_code", "code", "reason"),
    [
        (0, 0, "exit code 0"),
        (3, 3, "exit code 3"),
        (137, -9, "killed by SIGKILL"),
        (139, -11, "killed by SIGSEGV"),
        (143, -15, "killed by SIGTERM"),
    ],
)
def test_exit_codes(exit_code, code, reason):
    status = status_of(
        task(
            exit_code=exit_code,
            stopCode="EssentialContainerExited",
            stoppedReason="Essential container in task exited",
        )
    )
    assert (status.exit_code, status.reason) == (code, reason)
    assert not status.taken
    assert not status.hopeless


@pytest.mark.parametrize(
    ("stop_code", "reason"),
    [
        ("SpotInterruption", "Your Spot Task was interrupted."),
        ("TaskFailedToStart", "Timeout waiting for network interface provisioning to complete."),
        ("TaskFailedToStart", "Capacity is unavailable at this time."),
        (
            "EssentialContainerExited",
            "ECS is performing maintenance on the underlying infrastructure hosting the task.",
        ),
        ("TerminationNotice", "Host EC2 (instance i-0123) terminated."),
        (
            "TaskFailedToStart",
            "TaskFailedToStart: Unexpected EC2 error while attempting to Create Network Interface",
        ),
    ],
)
def test_what_was_taken_away_is_not_held_against_the_worker(stop_code, reason):
    status = status_of(task(stopCode=stop_code, stoppedReason=reason))
    assert status.taken
    assert not status.hopeless
    assert reason in status.reason


@pytest.mark.parametrize(
    "reason",
    [
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): image not found",
        "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/arm64'",
        "ResourceInitializationError: failed to validate logger args: cannot find the log group",
        "ResourceInitializationError: unable to pull secrets or registry auth: execution role is not authorized",
        "exec /usr/local/bin/python: exec format error",
    ],
)
def test_what_the_next_one_would_meet_too_is_hopeless(reason):
    status = status_of(task(stopCode="TaskFailedToStart", stoppedReason=reason))
    assert status.hopeless
    assert not status.taken
    assert reason in status.reason


@pytest.mark.parametrize(
    "reason",
    [
        "CannotPullContainerError: ref pull has been retried 5 time(s): net/http: TLS handshake timeout",
        "CannotPullContainerError: toomanyrequests: Rate exceeded",
        "ResourceInitializationError: unable to pull registry auth: dial tcp 10.0.0.1:443: i/o timeout",
    ],
)
def test_what_passes_is_not_hopeless(reason):
    assert not status_of(task(stopCode="TaskFailedToStart", stoppedReason=reason)).hopeless


def test_out_of_memory_is_told_by_its_text_not_by_137():
    status = status_of(
        task(
            exit_code=137,
            container_reason="OutOfMemoryError: Container killed due to memory usage",
            stopCode="EssentialContainerExited",
            stoppedReason="Essential container in task exited",
        )
    )
    assert status.exit_code == -9
    assert status.reason.startswith("out of memory")
    assert "memory=" in status.reason


def test_no_exit_code_means_that_it_never_ran():
    status = status_of(task(stopCode="UserInitiated", stoppedReason="starburst: no longer needed"))
    assert status.exit_code is None
    assert status.reason == "starburst: no longer needed"
    assert not status.taken


def test_details_for_the_events():
    at = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    status = status_of(
        task(
            availabilityZone="us-east-1b",
            capacityProviderName="FARGATE_SPOT",
            stopCode="SpotInterruption",
            startedAt=at,
            stoppedAt=at,
        )
    )
    assert status.details == {
        "task": "0123456789abcdef0123456789abcdef",
        "zone": "us-east-1b",
        "capacity": "FARGATE_SPOT",
        "stop_code": "SpotInterruption",
        "started_at": "2026-11-24T00:00:00+00:00",
        "stopped_at": "2026-11-24T00:00:00+00:00",
    }


def test_what_ends_is_complete_though_its_network_is_still_there():
    at = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    status = status_of(task("DEPROVISIONING", exit_code=0, executionStoppedAt=at))
    assert status.details["stopped_at"] == "2026-11-24T00:00:00+00:00"


@pytest.mark.parametrize(
    ("last_status", "provider", "placed"),
    [
        ("PROVISIONING", "starburst-c7g-xlarge-spot", False),
        ("PENDING", "starburst-c7g-xlarge-spot", True),
        ("RUNNING", "starburst-c7g-xlarge-spot", True),
        ("STOPPED", "starburst-c7g-xlarge-spot", True),
        ("PROVISIONING", "FARGATE_SPOT", True),
        ("PROVISIONING", None, True),
    ],
)
def test_only_tasks_on_ec2_wait_for_a_host(last_status, provider, placed):
    assert status_of(task(last_status, capacityProviderName=provider)).placed == placed
