"""The provider over an ECS that a test tells what to answer: what is launched where, and what is only looked at."""

import pytest
from ecs_told import DEPLOYMENT, Ecs

from starburst.compute import LaunchSpec
from starburst.compute.ec2 import Ec2Provider
from starburst.compute.ecs import FargateProvider
from starburst.compute.ecs_spot import SPOT_PAUSE_S
from starburst.errors import CloudUnavailable
from starburst.testing.clock import ManualClock


class World:
    """A provider for one session, and what it launches on."""

    def __init__(self, kind=FargateProvider, **deployment):
        self.clock = ManualClock()
        self.kind = kind
        self.aws = Ecs(self.clock)
        self.deployment = {**DEPLOYMENT, **deployment}
        self.provider = self.another()

    def another(self):
        """As another supervisor has it."""
        provider = self.kind(clock=self.clock)
        provider.attach(self.deployment)
        provider._aws = self.aws
        return provider

    async def launch(self, count=3):
        """Launch; returns where, and why there."""
        await self.clock.sleep(5.0)
        await self.provider.describe("s")
        spec = LaunchSpec(session_url="s3://b/sessions/s", session_id="s", workers=("w",) * count)
        launched = await self.provider.launch(spec)
        [where] = {status.details["capacity"] for status in launched.workers}
        return where, launched.fallback

    async def lose(self, rounds, **how):
        """So many launches, all of whose workers are taken."""
        for _ in range(rounds):
            assert await self.launch() == ("FARGATE_SPOT", "")
            await self.clock.sleep(1.0)
            self.aws.end(**how)


def run(scenario, **deployment):
    world = World(**deployment)
    return world.clock.run(scenario(world))


@pytest.mark.parametrize("ran_s", [None, 20.0])
def test_after_three_rounds_that_spot_took_before_they_worked_on_demand_is_used_for_a_while(ran_s):
    async def scenario(world):
        await world.lose(3, ran_s=ran_s)
        where, why = await world.launch()
        assert where == "FARGATE"
        assert "3 times in a row" in why
        assert "on-demand" in why
        world.aws.end(
            stop_code="EssentialContainerExited", reason="Essential container in task exited", ran_s=60
        )
        assert await world.launch() == ("FARGATE", why)
        world.provider = world.another()  # a supervisor that follows knows it, too
        assert await world.launch() == ("FARGATE", why)
        await world.clock.sleep(SPOT_PAUSE_S)
        await world.lose(1, ran_s=ran_s)
        where, why = await world.launch()  # one try is enough to know that nothing has changed
        assert (where, "4 times" in why) == ("FARGATE", True)

    run(scenario, spot="prefer")


def test_spot_only_never_falls_back():
    async def scenario(world):
        await world.lose(6)

    run(scenario, spot="only", on_demand_provider="")


@pytest.mark.parametrize(
    "how",
    [
        {"ran_s": 40.0},  # it had worked
        {"stop_code": "TaskFailedToStart", "reason": "Timeout waiting for network interface provisioning"},
        {"stop_code": "UserInitiated", "reason": "starburst: no longer needed"},
        {
            "stop_code": "EssentialContainerExited",
            "reason": "Essential container in task exited",
            "ran_s": 2.0,
        },
    ],
)
def test_what_on_demand_would_not_be_spared_is_no_reason_to_pay_more(how):
    async def scenario(world):
        await world.lose(2)
        await world.lose(5, **how)

    run(scenario, spot="prefer")


def test_spot_that_lets_others_work_is_not_left():
    async def scenario(world):
        await world.lose(2)
        await world.launch()
        one = world.aws.alive()[0]
        one.update(lastStatus="RUNNING", startedAt=world.aws.now())
        assert await world.launch() == ("FARGATE_SPOT", "")
        await world.clock.sleep(60.0)
        world.aws.end()
        assert await world.launch() == ("FARGATE_SPOT", "")

    run(scenario, spot="prefer")


def test_run_task_is_not_repeated_for_ever():
    async def scenario(world):
        world.aws.silent_s = 600.0  # as long as all the tries of one call may take
        with pytest.raises(CloudUnavailable):
            await world.launch()
        assert world.aws.tried == 1
        world.aws.silent_s = 5.0
        with pytest.raises(CloudUnavailable):
            await world.launch()
        assert world.aws.tried == 4

    run(scenario, spot="no")


def test_so_many_hosts_stay_warm_as_worked_though_workers_leave_one_by_one():
    async def scenario(world):
        async def warm():
            await world.provider.describe("s")
            await world.provider.tend("s")
            hosts, until = world.aws.tags["starburst:warm:s"].split()
            assert int(until) == pytest.approx(world.clock.time() + 3600, abs=60)
            return int(hosts)

        world.aws.hosts = 4
        await world.launch(4)
        for task in world.aws.alive():
            task.update(lastStatus="RUNNING", startedAt=world.aws.now())
        assert await warm() == 4
        for task in world.aws.alive()[1:]:
            task.update(lastStatus="STOPPED", stopCode="EssentialContainerExited", stoppingAt=world.aws.now())
            await world.clock.sleep(61.0)
            assert await warm() == 4
        await world.clock.sleep(600.0)  # one worker goes on: the others' hosts are not kept for its sake
        assert await warm() == 1
        world.aws.end()
        await world.clock.sleep(61.0)
        await world.provider.describe("s")
        await world.provider.tend("s")
        assert world.aws.tags["starburst:warm:s"].startswith("1 ")
        assert "starburst:open:s" not in world.aws.tags

    ec2 = {
        "launch_type": "EC2",
        "spot_provider": "",
        "on_demand_provider": "starburst-c7g-xlarge",
        "warm_pool_timeout_s": 3600.0,
        "instance_types": ["c7g.xlarge"],
    }
    run(scenario, kind=Ec2Provider, spot="no", **ec2)
