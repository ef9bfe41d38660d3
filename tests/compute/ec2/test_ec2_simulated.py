"""EC2 capacity at work, on the simulated AWS: hosts come, hold what was computed, stay warm, and go without us."""

import contextlib
import time

import pytest
from ec2_world import Account, Aws, run

from helpers import eventually
from starburst.aws.autoscaling import MAX_HOSTS
from starburst.aws.instance_types import describe_types
from starburst.aws.scaling_failures import scaling_failures
from starburst.compute.ec2_capacity import ensure_capacity, remove_capacity
from starburst.compute.ec2_holds import clear, close_at, keep_warm
from starburst.compute.ec2_sizes import default_size, fits
from starburst.testing.aws import SimulatedAws

TYPES = ("c7g.xlarge",)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    with SimulatedAws(folder=str(folder), scale_in_s=1.0) as aws:
        yield aws


class Pool:
    """One capacity provider, and tasks on it."""

    def __init__(self, simulated, account, aws):
        self.simulated, self.account, self.aws = simulated, account, aws
        self.name = run(ensure_capacity(aws, account.deployment, TYPES, spot=True)).name

    def start(self, count, *, cpu=4, memory_mib=8192, seconds=600):
        size = default_size(run(describe_types(self.aws, TYPES)), cpu, memory_mib)
        made = self.account.ecs.register_task_definition(
            family="starburst-worker",
            networkMode="bridge",
            requiresCompatibilities=["EC2"],
            containerDefinitions=[
                {
                    "name": "worker",
                    "image": "worker",
                    "cpu": size.cpu_units,
                    "memory": size.memory_mib,
                    "command": ["sleep", str(seconds)],
                }
            ],
        )
        answer = self.account.ecs.run_task(
            cluster=self.account.deployment.cluster,
            taskDefinition=made["taskDefinition"]["taskDefinitionArn"],
            count=count,
            capacityProviderStrategy=[{"capacityProvider": self.name, "weight": 1}],
        )
        assert answer["failures"] == []
        return [task["taskArn"].rsplit("/", 1)[1] for task in answer["tasks"]]

    def running(self):
        return [task for task in self.simulated.tasks() if task.last_status == "RUNNING"]

    def hosts(self):
        return [host for host in self.simulated.hosts() if host.state in ("pending", "running")]

    def stop(self):
        for task in self.simulated.tasks():
            if task.last_status != "STOPPED":
                self.account.ecs.stop_task(cluster=task.cluster, task=task.task_id)
        eventually(lambda: not self.running(), what="all tasks have stopped")


@pytest.fixture
def pool(simulated, data_dir, monkeypatch):
    monkeypatch.setattr("starburst.aws.rates._buckets", {})
    for name, value in simulated.environment.items():
        monkeypatch.setenv(name, value)
    account = Account()
    aws = Aws()
    found = Pool(simulated, account, aws)
    yield found
    simulated.clear()
    found.stop()
    run(remove_capacity(Aws(), account.deployment, found.name))
    account.ecs.delete_cluster(cluster=account.deployment.cluster)
    with contextlib.suppress(account.ec2.exceptions.ClientError):
        account.ec2.delete_security_group(GroupId=account.deployment.security_groups[0])
    account.close()


def test_a_worker_of_the_default_size_gets_a_host_of_its_own(pool):
    pool.start(3)
    eventually(lambda: len(pool.running()) == 3, what="all workers run")
    assert len({task.host for task in pool.running()}) == 3
    assert {host.instance_type for host in pool.hosts()} == set(TYPES)


def test_as_many_workers_share_a_host_as_was_computed(pool):
    (one,) = run(describe_types(pool.aws, TYPES))
    size = default_size([one], 1, 2048)
    assert fits(one, size.cpu_units, size.memory_mib) == 4
    pool.start(4, cpu=1, memory_mib=2048)
    eventually(lambda: len(pool.running()) == 4, what="all workers run")
    assert max(len(host.tasks) for host in pool.hosts()) == 4


def test_hosts_go_when_nothing_runs_and_nobody_keeps_them(pool):
    pool.start(2)
    eventually(lambda: len(pool.running()) == 2, what="all workers run")
    pool.stop()
    eventually(lambda: not pool.hosts(), what="the hosts have gone")


def test_warm_hosts_outlive_their_tasks_and_their_client_but_not_their_time(pool):
    pool.start(2)
    eventually(lambda: len(pool.running()) == 2, what="all workers run")
    until = time.time() + 6
    run(keep_warm(pool.aws, pool.name, "session-a", hosts=2, until=until))
    run(clear(pool.aws, pool.name, "session-a"))
    pool.stop()
    seen = []
    eventually(
        lambda: seen.append(len(pool.hosts())) or time.time() > until - 1, what="the time is nearly over"
    )
    assert min(seen) >= 2
    eventually(lambda: not pool.hosts(), what="the hosts have gone by themselves")
    assert pool.account.group(pool.name)["MinSize"] == 0


def test_the_deadline_ends_idle_hosts_and_starts_no_more_but_a_worker_that_runs_is_not_cut(pool):
    pool.start(1)
    eventually(lambda: len(pool.running()) == 1, what="the worker runs")
    run(close_at(pool.aws, pool.name, "session-a", deadline_at=time.time() + 1, grace_s=0))
    eventually(lambda: pool.account.group(pool.name)["MaxSize"] == 0, what="the group is closed")
    assert len(pool.running()) == 1
    pool.start(1)
    pool.stop()
    eventually(lambda: not pool.hosts(), what="the hosts have gone")


def test_the_next_session_opens_what_a_deadline_closed(pool):
    run(close_at(pool.aws, pool.name, "session-a", deadline_at=time.time() + 1, grace_s=0))
    eventually(lambda: pool.account.group(pool.name)["MaxSize"] == 0, what="the group is closed")
    run(ensure_capacity(pool.aws, pool.account.deployment, TYPES, spot=True))
    assert pool.account.group(pool.name)["MaxSize"] == MAX_HOSTS
    pool.start(1)
    eventually(lambda: len(pool.running()) == 1, what="the worker runs")


def test_the_deadline_of_one_session_is_nothing_to_another(pool):
    run(close_at(pool.aws, pool.name, "session-b", deadline_at=time.time() + 600))
    run(close_at(pool.aws, pool.name, "session-a", deadline_at=time.time() + 1, grace_s=0))
    pool.start(1)
    ends = time.time() + 3
    eventually(lambda: time.time() > ends, what="the deadline of session-a has passed")
    pool.start(2)
    eventually(lambda: len(pool.running()) == 3, what="the workers of session-b run")
    assert pool.account.group(pool.name)["MaxSize"] == MAX_HOSTS


def test_the_quota_is_told(pool):
    pool.simulated.set_quota("ec2", "L-34B43A08", 4)
    try:
        began = time.time() - 60
        pool.start(3)
        failures = eventually(
            lambda: run(scaling_failures(pool.aws, pool.name, since=began)), what="a host was refused"
        )
    finally:
        pool.simulated.set_quota("ec2", "L-34B43A08", 4000)
    assert failures[0].quota
    assert not failures[0].capacity
    assert run(scaling_failures(pool.aws, pool.name, since=time.time() + 60)) == []
