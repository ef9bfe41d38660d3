"""AWS has no capacity: in one zone, of Spot, of hosts."""

import pytest
from cloud_tasks import slow_square

import starburst
from helpers import eventually

RESULTS = [i * i for i in range(60)]


def run(**options):
    return starburst.map(slow_square, range(60), [0.05] * 60, progress=False, **options)


def test_another_zone_is_taken(site):
    site.aws.fail("ecs:RunTask", "capacity", zone=["us-east-1a", "us-east-1b"])
    crew = site.submit("slow_square", 100, 0.05, workers=4)  # the supervisor needs room, too
    eventually(lambda: len(site.workers()) == 4, what="all workers")
    tasks = [*site.workers(), *site.supervisors()]
    assert not {task.zone for task in tasks} & {"us-east-1a", "us-east-1b"}
    assert {task.capacity_provider for task in site.workers()} == {"FARGATE_SPOT"}
    assert starburst.attach(crew.session_id).collect(timeout=30) == [i * i for i in range(100)]
    assert crew.told("workers-waiting") == []
    assert crew.told("worker-lost") == []


def test_on_demand_is_taken_where_there_is_no_spot(site):
    site.aws.fail("ecs:RunTask", "capacity", provider="FARGATE_SPOT")
    assert run(workers=2) == RESULTS
    assert {task.capacity_provider for task in site.workers()} == {"FARGATE"}
    assert len(site.workers()) == 2


def test_spot_only_waits_until_there_is_some(site):
    script = site.aws.fail("ecs:RunTask", "capacity", provider="FARGATE_SPOT")
    crew = site.submit("slow_square", 60, 0.01, workers=2, spot="only")
    [waiting] = eventually(lambda: crew.told("workers-waiting"), what="the event")
    assert waiting["missing"] == 2
    assert "Capacity is unavailable" in waiting["reason"]
    assert site.workers() == []
    site.aws.clear(script)
    assert starburst.attach(crew.session_id).collect(timeout=30) == RESULTS
    assert {task.capacity_provider for task in site.started_for(crew)} == {"FARGATE_SPOT"}
    assert crew.told("terminated") in ([], [{"reason": "idle"}])


@pytest.mark.parametrize("zone", ["us-east-1a"])
def test_hosts_come_from_another_zone(site, zone):
    site.aws.fail("ec2:RunInstances", "capacity", zone=zone)
    assert run(workers=2, launch_type="EC2", cpu=2, memory="2GB") == RESULTS
    assert zone not in {host.zone for host in site.aws.hosts() if host.state == "running"}
