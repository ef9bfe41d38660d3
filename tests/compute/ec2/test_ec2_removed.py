"""EC2 capacity is removed: all of it, in order, wherever an earlier removal was cut."""

import itertools

import pytest
from ec2_world import NAME, Aws, CountingAws, StoppedError, StoppingAws, ensure, run

from starburst.aws.names import CLUSTER
from starburst.compute.ec2_capacity import remove_capacity
from starburst.errors import CloudUnavailable
from starburst.testing.clock import ManualClock


class TestRemoved:
    def test_all_of_it_goes_and_nothing_else(self, aws, account):
        ensure(aws, account)
        kept = ensure(aws, account, ("m7g.large",))
        account.autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=3)
        assert run(remove_capacity(aws, account.deployment, NAME))
        assert account.names() == {
            "templates": {kept.name},
            "groups": {kept.name},
            "attached": {"FARGATE", "FARGATE_SPOT", kept.name},
        }
        assert account.provider(NAME) is None
        states = [
            instance["State"]["Name"]
            for reservation in account.ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
        ]
        assert states == ["terminated"] * 3
        assert not run(remove_capacity(aws, account.deployment, NAME))

    def test_it_is_made_anew_in_the_same_process(self, aws, account):
        ensure(aws, account)
        run(remove_capacity(aws, account.deployment, NAME))
        ensure(aws, account)
        assert NAME in account.attached()

    def test_hosts_go_before_the_group(self, account):
        aws = CountingAws()
        ensure(aws, account)
        run(remove_capacity(aws, account.deployment, NAME))
        changes = [one for one in aws.calls if not one.startswith(("describe", "get"))]
        assert changes[4:] == [
            "update_auto_scaling_group",
            "put_cluster_capacity_providers",
            "delete_capacity_provider",
            "update_auto_scaling_group",
            "delete_auto_scaling_group",
            "delete_launch_template",
        ]

    def test_hosts_that_do_not_go_are_not_waited_for_for_ever(self, account):
        class Stuck(Aws):
            async def call(self, service, operation, /, **parameters):
                answer = await super().call(service, operation, **parameters)
                if operation == "describe_auto_scaling_groups":
                    for group in answer["AutoScalingGroups"]:
                        group["Instances"] = [{"InstanceId": "i-1", "ProtectedFromScaleIn": False}]
                return answer

        ensure(Aws(), account)
        clock = ManualClock()
        with pytest.raises(CloudUnavailable, match="the EC2 hosts of starburst-c7g-xlarge-spot"):
            clock.run(remove_capacity(Stuck(), account.deployment, NAME, clock=clock))
        assert account.group(NAME)["MaxSize"] == 0

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_removal_that_is_interrupted_anywhere_is_completed_by_the_next(self, account, after):
        for at in itertools.count():
            ensure(Aws(), account)
            try:
                run(remove_capacity(StoppingAws(at, after=after), account.deployment, NAME))
            except StoppedError:
                run(remove_capacity(Aws(), account.deployment, NAME))
            else:
                assert at > 4
                return
            finally:
                assert account.names()["groups"] == account.names()["templates"] == set()
                assert account.provider(NAME) is None
                assert NAME not in account.attached()

    def test_without_a_cluster(self, aws, account):
        ensure(aws, account)
        account.ecs.delete_cluster(cluster=CLUSTER)
        assert run(remove_capacity(aws, account.deployment, NAME))
        assert account.provider(NAME) is None
