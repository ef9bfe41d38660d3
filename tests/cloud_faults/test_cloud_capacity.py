"""AWS has no capacity: in one zone, of Spot, of hosts."""

import asyncio

from cloud_tasks import slow_square

import starburst
from helpers import eventually
from starburst.clock import SystemClock
from starburst.compute.ec2 import Ec2Provider
from starburst.protocol.sessions import read_manifest
from starburst.store import open_store
from starburst.supervisor.loop import Supervisor

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


HOSTS = {"launch_type": "EC2", "cpu": 2, "memory": "2GB"}


def test_hosts_come_from_another_zone(site):
    site.aws.fail("ec2:RunInstances", "capacity", zone="us-east-1a")
    assert run(workers=2, **HOSTS) == RESULTS
    assert site.hosts()
    assert "us-east-1a" not in {host.zone for host in site.hosts()}


def test_hosts_of_another_type_come(site):
    site.aws.fail("ec2:RunInstances", "capacity", instance_type="c7g.xlarge")
    assert run(workers=2, **HOSTS, instance_type=["c7g.xlarge", "c8g.xlarge"]) == RESULTS
    assert "c8g.xlarge" in {host.instance_type for host in site.hosts() if host.tasks}


async def supervise(session_id, url, provider):
    """Supervise a session with this provider until it is over."""
    store = open_store(url)
    manifest = await read_manifest(store, session_id)
    provider.attach(manifest.deployment)
    supervisor = Supervisor(store, manifest, provider, SystemClock(), root_url=url)
    await asyncio.wait_for(supervisor.run(asyncio.Event()), 90)


def test_on_demand_hosts_are_taken_when_no_spot_host_comes(site):
    from crew import submit_only

    site.aws.fail("ec2:RunInstances", "capacity", spot=True)
    for host in site.hosts():  # of former tests: they would do
        site.aws.kill_host(host.instance_id)
    session = starburst.session(workers=2, **HOSTS)
    submit_only(session, slow_square, range(60), [0.01] * 60, chunksize=5)
    crew = site.crew(session.session_id)
    asyncio.run(supervise(session.session_id, site.url, Ec2Provider(spot_patience_s=1.5)))
    assert session.collect() == RESULTS

    waited = crew.told("worker-lost")
    assert [data["capacity"] for data in waited] == ["starburst-c7g-xlarge-spot"] * 2
    assert {data["reason"] for data in waited} == {"starburst: no Spot capacity came"}
    worked = [task for task in site.started_for(crew) if task.host]
    assert [task.capacity_provider for task in worked] == ["starburst-c7g-xlarge"] * 2
    assert crew.told("terminated") == [{"reason": "idle"}]
    [waiting] = [data["reason"] for data in crew.told("workers-waiting") if "on-demand" in data["reason"]]
    assert waiting.startswith("no Spot host comes")
