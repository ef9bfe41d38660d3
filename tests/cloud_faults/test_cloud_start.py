"""Tasks that take their time to start, refusals in the middle of a launch: nothing is started twice or forgotten."""

import asyncio
import time

import pytest
from cloud_tasks import slow_square

import starburst
from cloud import Cloud
from starburst.aws.autoscaling import describe_group
from starburst.aws.clients import Aws
from starburst.client.pool import close_all
from starburst.compute import LaunchSpec
from starburst.compute.ec2 import Ec2Provider
from starburst.compute.ecs import FargateProvider
from starburst.errors import CloudError, PermissionDenied
from starburst.options import Options

SMALL = {"cpu": 0.25, "memory": "512MB"}


class RefusingAws(Aws):
    """AWS that refuses one call of an operation, the n-th (from 0), before or after it has done it."""

    def __init__(self, error, *, operation, at, after=False):
        super().__init__("us-east-1")
        self.error, self.operation, self.at, self.after = error, operation, at, after
        self.calls = []

    async def call(self, service, operation, /, **parameters):
        self.calls.append(operation)
        if operation != self.operation:
            return await super().call(service, operation, **parameters)
        self.at -= 1
        if self.at == -1:
            if self.after:
                await super().call(service, operation, **parameters)
            raise self.error
        return await super().call(service, operation, **parameters)


@pytest.fixture(scope="module")
def slow_cloud(tmp_path_factory):
    """An account in which a task takes seconds to start."""
    cloud = Cloud(tmp_path_factory.mktemp("slow"), pull_s=7.0).start()
    yield cloud
    cloud.aws.stop()


@pytest.fixture(autouse=True)
def used(slow_cloud, monkeypatch):
    slow_cloud.use(monkeypatch, "FARGATE")
    yield slow_cloud
    close_all()
    slow_cloud.clean()


def test_a_supervisor_that_takes_long_to_start_is_waited_for(used, monkeypatch):
    monkeypatch.setenv("STARBURST_LEASE", "2")
    session = starburst.session(workers=1, **SMALL)
    session.map(slow_square, range(4), [0.0] * 4)
    assert session.collect(timeout=60) == [0, 1, 4, 9]
    started = [task for task in used.aws.tasks() if task.definition.startswith("starburst-supervisor")]
    assert len(started) == 1
    session.cleanup(stop_workers=True, force=True)


def test_tasks_that_were_started_before_a_refusal_are_told(used):
    async def launch():
        provider = FargateProvider()
        place = await provider.prepare(
            Options(launch_type="FARGATE", workers=3, spot=True, on_demand_base=1, **SMALL)
        )
        provider._aws = RefusingAws(PermissionDenied("no more"), operation="run_task", at=1)
        names = ("w-1", "w-2", "w-3")
        spec = LaunchSpec(session_url=f"{place.store}/sessions/told", session_id="told", workers=names)
        launched = await provider.launch(spec)
        await provider.stop("told", wait=False)
        return launched

    launched = asyncio.run(launch())
    assert len(launched.workers) == 1
    assert "no more" in launched.shortfall


def test_two_clients_that_register_the_same_definition_at_once(used):
    async def prepare():
        provider = FargateProvider()
        refusal = CloudError(
            "ecs:RegisterTaskDefinition failed (ClientException): Too many concurrent attempts to create a new "
            "revision of the specified family.",
            code="ClientException",
        )
        aws = RefusingAws(refusal, operation="register_task_definition", at=0, after=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("starburst.compute.ecs_prepare.Aws", lambda *_: aws)
            return await provider.prepare(Options(launch_type="FARGATE", cpu=0.5, memory="2GB"))

    place = asyncio.run(prepare())
    assert "starburst-worker-" in place.deployment["definition"]


def test_many_stops_at_once_look_no_more_often_than_one(used):
    async def scenario():
        provider = FargateProvider()
        place = await provider.prepare(Options(launch_type="FARGATE", **SMALL))
        provider._aws = aws = RefusingAws(CloudError("never"), operation="none", at=0)
        names = tuple(f"w-{i}" for i in range(8))
        spec = LaunchSpec(session_url=f"{place.store}/sessions/none", session_id="many", workers=names)
        launched = [status.worker for status in (await provider.launch(spec)).workers]
        await asyncio.gather(*(provider.stop("many", [one]) for one in launched))
        assert not [status for status in await provider.describe("many") if status.alive]
        return aws.calls.count("list_tasks")

    assert asyncio.run(scenario()) < 8


def test_describing_only_looks(used):
    """Whoever asks for a status must not act in place of the supervisor that leads."""

    async def scenario():
        provider = Ec2Provider(look_every_s=0.0, host_within_s=0.0, spot_patience_s=0.0)
        place = await provider.prepare(Options(launch_type="EC2", spot=True, warm_pool_timeout=1))
        spec = LaunchSpec(session_url=f"{place.store}/sessions/none", session_id="looks", workers=("w-1",))
        await provider.launch(spec)
        provider._aws = aws = RefusingAws(CloudError("never"), operation="none", at=0)
        provider._sessions.clear()
        for _ in range(3):
            await provider.describe("looks")
        looked = set(aws.calls)
        await provider.tend("looks")
        acted = set(aws.calls) - looked
        await provider.stop("looks", wait=False)
        return looked, acted

    looked, acted = asyncio.run(scenario())
    assert looked == {"list_tasks", "describe_tasks"}
    assert {"stop_task", "describe_scaling_activities", "create_or_update_tags"} <= acted


def test_why_no_host_comes_is_told(used):
    async def waits_for():
        provider = Ec2Provider(host_within_s=1.0)
        place = await provider.prepare(Options(launch_type="EC2", spot=False))
        spec = LaunchSpec(session_url=f"{place.store}/sessions/none", session_id="hosts", workers=("w-1",))
        await provider.launch(spec)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            [status] = await provider.describe("hosts")
            assert not status.placed
            await provider.tend("hosts")
            if status.waits_for:
                break
            await asyncio.sleep(0.1)
        await provider.stop("hosts", wait=False)
        return status.waits_for

    used.aws.set_quota("ec2", "L-1216C47A", 0)
    try:
        reason = asyncio.run(waits_for())
    finally:
        used.aws.set_quota("ec2", "L-1216C47A", 4000)
    assert "no EC2 host comes" in reason
    assert "vCPU" in reason


def test_hosts_stay_though_only_the_supervisor_is_left(used):
    async def scenario():
        provider = Ec2Provider()
        options = Options(launch_type="EC2", spot=False, warm_pool_timeout=8)  # told every two seconds
        place = await provider.prepare(options)
        group = {"AutoScalingGroupNames": [place.deployment["on_demand_provider"]]}

        async def holds():
            await provider.describe("warm")
            await provider.tend("warm")
            answer = await provider.aws.call("autoscaling", "describe_auto_scaling_groups", **group)
            keys = [tag["Key"] for tag in answer["AutoScalingGroups"][0]["Tags"]]
            return {key.split(":")[1] for key in keys if key.endswith(":warm")}

        async def until(wanted, seconds):
            for _ in range(round(seconds / 0.2)):
                if (found := await holds()) == wanted:
                    break
                await asyncio.sleep(0.2)
            return found

        url = f"{place.store}/sessions/warm"
        spec = LaunchSpec(
            session_url=url, session_id="warm", workers=("w-1",), deadline_at=time.time() + 3600
        )
        [worker] = (await provider.launch(spec)).workers
        assert await until({"open", "warm"}, 20) == {"open", "warm"}
        await provider.launch_supervisor(url, "warm")
        await provider.stop("warm", [worker.worker])
        assert await until({"warm"}, 5) == {"warm"}
        assert await until(set(), 3) == {"warm"}
        await provider.stop("warm", wait=False)

    asyncio.run(scenario())


def test_workers_that_are_launched_while_hosts_are_let_go_keep_the_group_open(used):
    class Launching(RefusingAws):
        async def call(self, service, operation, /, **parameters):
            if operation == "delete_tags" and len(launches) < 2:
                await launch()
            return await super().call(service, operation, **parameters)

    async def launch():
        launches.append(await provider.launch(spec))

    async def scenario():
        place = await provider.prepare(Options(launch_type="EC2", spot=False, warm_pool_timeout=1))
        provider._aws = aws = Launching(CloudError("never"), operation="none", at=0)
        nonlocal spec
        spec = LaunchSpec(
            session_url=f"{place.store}/sessions/none",
            session_id="race",
            workers=("w-1",),
            deadline_at=time.time() + 3600,
        )
        await launch()
        await provider.stop("race", [launches[0].workers[0].worker])
        await provider.tend("race")
        assert len(launches) == 2
        group = await describe_group(aws, place.deployment["on_demand_provider"])
        await provider.stop("race", wait=False)
        return group.tags

    spec, launches, provider = None, [], Ec2Provider()
    assert "starburst:open:race" in asyncio.run(scenario())
