"""EC2 capacity against moto's server: made, kept right, used by several clients at once."""

import asyncio
import base64
import itertools

import pytest
from ec2_world import (
    NAME,
    TYPES,
    Aws,
    CountingAws,
    RefusingAws,
    StoppedError,
    StoppingAws,
    ensure,
    replaced,
    run,
)

from starburst.aws.autoscaling import MAX_HOSTS
from starburst.aws.capacity_provider import attach_provider
from starburst.aws.launch_template import latest_image
from starburst.aws.names import CLUSTER
from starburst.compute.ec2_capacity import (
    CapacityProvider,
    ensure_capacity,
    remove_capacity,
)
from starburst.errors import CloudError, CloudUnavailable, NotSetUp
from starburst.testing.clock import ManualClock


class TestMade:
    def test_everything_is_as_it_should_be(self, aws, account):
        made = ensure(aws, account)
        assert made == CapacityProvider(name=NAME, instance_types=TYPES, spot=True, architecture="ARM64")

        data, versions = account.template(NAME)
        assert versions == 1
        assert data["ImageId"] == run(latest_image(aws, "ARM64", gpu=False))
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
        disk = data["BlockDeviceMappings"][0]["Ebs"]
        assert (disk["Encrypted"], disk["VolumeType"]) == (True, "gp3")
        assert data["IamInstanceProfile"]["Arn"] == account.deployment.instance_profile_arn
        interface = data["NetworkInterfaces"][0]
        assert tuple(interface["Groups"]) == account.deployment.security_groups
        assert interface["AssociatePublicIpAddress"] is True
        script = base64.b64decode(data["UserData"]).decode()
        assert script.startswith("#!/bin/bash\n")
        assert f"\nECS_CLUSTER={CLUSTER}\n" in script
        assert "GPU" not in script
        assert {"instance", "volume"} <= {one["ResourceType"] for one in data["TagSpecifications"]}

        group = account.group(NAME)
        assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, MAX_HOSTS, 0)
        assert group["NewInstancesProtectedFromScaleIn"] is True
        assert group["CapacityRebalance"] is False
        assert {tag["Key"] for tag in group["Tags"]} == {"starburst:managed", "AmazonECSManaged"}
        assert sorted(group["VPCZoneIdentifier"].split(",")) == list(account.deployment.subnets)
        policy = group["MixedInstancesPolicy"]
        assert policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == 0
        assert policy["InstancesDistribution"]["SpotAllocationStrategy"] == "price-capacity-optimized"

        provider = account.provider(NAME)
        assert provider["tags"] == [{"key": "starburst:managed", "value": "true"}]
        settings = provider["autoScalingGroupProvider"]
        assert settings["autoScalingGroupArn"] == group["AutoScalingGroupARN"]
        assert settings["managedScaling"]["status"] == "ENABLED"
        assert settings["managedScaling"]["targetCapacity"] == 100
        assert settings["managedTerminationProtection"] == settings["managedDraining"] == "ENABLED"
        assert account.attached() == ["FARGATE", "FARGATE_SPOT", NAME]

    def test_on_demand_is_something_else_than_spot(self, aws, account):
        spot, on_demand = ensure(aws, account), ensure(aws, account, spot=False)
        assert on_demand.name == spot.name.removesuffix("-spot")
        group = account.group(on_demand.name)
        assert group["CapacityRebalance"] is False
        distribution = group["MixedInstancesPolicy"]["InstancesDistribution"]
        assert distribution["OnDemandPercentageAboveBaseCapacity"] == 100
        assert set(account.attached()) == {"FARGATE", "FARGATE_SPOT", spot.name, on_demand.name}

    def test_several_types_keep_their_order(self, aws, account):
        types = ("m7g.xlarge", "c7g.xlarge", "r7g.xlarge")
        made = ensure(aws, account, types)
        overrides = account.group(made.name)["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
        assert tuple(one["InstanceType"] for one in overrides) == types
        assert ensure(aws, account, types[::-1]).name != made.name

    def test_gpu_hosts_have_the_image_with_drivers(self, aws, account):
        made = ensure(aws, account, ("g5.xlarge",), gpus=1)
        assert made.architecture == "X86_64"
        data, _ = account.template(made.name)
        gpu_image = run(latest_image(aws, "X86_64", gpu=True))
        assert data["ImageId"] == gpu_image != run(latest_image(aws, "X86_64", gpu=False))
        assert "ECS_ENABLE_GPU_SUPPORT=true" in base64.b64decode(data["UserData"]).decode()

    def test_private_subnets_get_no_address(self, aws, account):
        account.deployment = replaced(account.deployment, assign_public_ip=False)
        ensure(aws, account)
        data, _ = account.template(NAME)
        assert data["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False


class TestAgain:
    def test_a_second_call_of_a_process_looks_once(self, account):
        aws = CountingAws()
        ensure(aws, account)
        before = len(aws.calls)
        ensure(aws, account)
        assert aws.calls[before:] == ["describe_auto_scaling_groups"]

    def test_another_process_changes_nothing(self, aws, account):
        ensure(aws, account)
        other = CountingAws()
        ensure(other, account)
        assert not [one for one in other.calls if not one.startswith(("describe", "get"))]
        assert account.template(NAME)[1] == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"instance_profile_arn": "arn:aws:iam::123456789012:instance-profile/other"},
            {"assign_public_ip": False},
            {"cluster": CLUSTER, "security_groups": ("sg-0123456789abcdef0",)},
        ],
    )
    def test_what_has_changed_makes_a_new_version_of_the_template(self, aws, account, change):
        ensure(aws, account)
        account.deployment = replaced(account.deployment, **change)
        ensure(aws, account)
        assert account.template(NAME)[1] == 2
        ensure(Aws(), account)
        assert account.template(NAME)[1] == 2

    def test_a_newer_image_makes_a_new_version_of_the_template(self, account):
        class Newer(Aws):
            async def call(self, service, operation, /, **parameters):
                answer = await super().call(service, operation, **parameters)
                if operation == "get_parameter":
                    answer["Parameter"]["Value"] = "ami-00000000000000001"
                return answer

        ensure(Aws(), account)
        ensure(Newer(), account)
        data, versions = account.template(NAME)
        assert (data["ImageId"], versions) == ("ami-00000000000000001", 2)

    def test_other_subnets_go_into_the_group(self, aws, account):
        ensure(aws, account)
        account.deployment = replaced(account.deployment, subnets=account.deployment.subnets[:2])
        ensure(aws, account)
        assert account.group(NAME)["VPCZoneIdentifier"].split(",") == list(account.deployment.subnets)

    def test_desired_capacity_is_ecs_s_business(self, aws, account):
        ensure(aws, account)
        account.autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=3)
        account.deployment = replaced(account.deployment, subnets=account.deployment.subnets[:2])
        ensure(Aws(), account)
        assert account.group(NAME)["DesiredCapacity"] == 3

    def test_a_limit_that_the_user_set_stays_and_a_closed_group_opens(self, aws, account):
        ensure(aws, account)
        for limit, expected in ((7, 7), (0, MAX_HOSTS)):
            account.autoscaling.update_auto_scaling_group(AutoScalingGroupName=NAME, MaxSize=limit)
            ensure(aws, account)
            assert account.group(NAME)["MaxSize"] == expected
            account.autoscaling.update_auto_scaling_group(AutoScalingGroupName=NAME, MaxSize=limit)
            ensure(Aws(), account)
            assert account.group(NAME)["MaxSize"] == expected

    def test_settings_of_the_provider_are_put_right(self, aws, account):
        ensure(aws, account)
        account.ecs.update_capacity_provider(
            name=NAME,
            autoScalingGroupProvider={
                "managedScaling": {"status": "DISABLED", "targetCapacity": 50},
                "managedTerminationProtection": "DISABLED",
            },
        )
        ensure(Aws(), account)
        settings = account.provider(NAME)["autoScalingGroupProvider"]
        assert settings["managedScaling"]["status"] == settings["managedTerminationProtection"] == "ENABLED"
        assert settings["managedScaling"]["targetCapacity"] == 100

    def test_a_group_that_was_removed_by_hand_comes_back(self, aws, account):
        ensure(aws, account)
        account.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=NAME, ForceDelete=True)
        ensure(aws, account)
        settings = account.provider(NAME)["autoScalingGroupProvider"]
        assert settings["autoScalingGroupArn"] == account.group(NAME)["AutoScalingGroupARN"]
        assert account.attached().count(NAME) == 1

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_client_that_is_killed_anywhere_leaves_what_the_next_one_completes(self, account, after):
        for at in itertools.count():
            aws = StoppingAws(at, after=after)
            try:
                ensure(aws, account)
            except StoppedError:
                ensure(Aws(), account)
                assert account.template(NAME)[1] == 1
                assert account.provider(NAME)["status"] == "ACTIVE"
                assert account.attached().count(NAME) == 1
                assert run(remove_capacity(Aws(), account.deployment, NAME))
            else:
                assert at == 4, "template, group, provider, cluster"
                return

    def test_several_clients_at_once(self, account, monkeypatch):
        monkeypatch.setattr("starburst.aws.capacity_provider._SETTLED_S", 2.0)

        async def all_at_once():
            makers = [ensure_capacity(Aws(), account.deployment, TYPES, spot=True) for _ in range(6)]
            others = [
                ensure_capacity(Aws(), account.deployment, (one,), spot=True)
                for one in ("m7g.large", "c7i.large", "r7g.large")
            ]
            return await asyncio.gather(*makers, *others)

        made = run(all_at_once())
        assert set(account.attached()) == {"FARGATE", "FARGATE_SPOT", *(one.name for one in made)}
        assert account.template(NAME)[1] == 1

    @pytest.mark.parametrize("code", ["UpdateInProgressException", "ResourceInUseException"])
    def test_a_cluster_that_is_being_changed_is_waited_for(self, account, code):
        aws = RefusingAws("put_cluster_capacity_providers", code, times=3)
        clock = ManualClock()
        clock.run(ensure_capacity(aws, account.deployment, TYPES, spot=True, clock=clock))
        assert NAME in account.attached()

    def test_a_cluster_that_is_being_changed_for_ever(self, account):
        aws = RefusingAws("put_cluster_capacity_providers", "UpdateInProgressException", times=-1)
        clock = ManualClock()
        with pytest.raises(CloudUnavailable, match="in vain"):
            clock.run(ensure_capacity(aws, account.deployment, TYPES, spot=True, clock=clock))

    def test_a_new_profile_is_waited_for(self, account):
        message = "Value for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN"
        clock = ManualClock()
        aws = RefusingAws("create_auto_scaling_group", "ValidationError", message, times=4)
        clock.run(ensure_capacity(aws, account.deployment, TYPES, spot=True, clock=clock))
        run(remove_capacity(aws, account.deployment, NAME))
        aws = RefusingAws("create_auto_scaling_group", "ValidationError", message, times=-1)
        with pytest.raises(NotSetUp, match="instance profile"):
            clock.run(ensure_capacity(aws, account.deployment, TYPES, spot=True, clock=clock))

    def test_the_default_strategy_of_the_cluster_survives(self, aws, account):
        strategy = [{"capacityProvider": "FARGATE", "weight": 1, "base": 0}]
        account.ecs.put_cluster_capacity_providers(
            cluster=CLUSTER, capacityProviders=["FARGATE", "mine"], defaultCapacityProviderStrategy=strategy
        )
        ensure(aws, account)
        run(remove_capacity(aws, account.deployment, NAME))
        found = account.ecs.describe_clusters(clusters=[CLUSTER])["clusters"][0]
        assert found["capacityProviders"] == ["FARGATE", "mine"]
        assert found["defaultCapacityProviderStrategy"] == strategy


def test_an_error_that_is_not_about_being_busy_is_not_repeated(account):
    aws = RefusingAws("put_cluster_capacity_providers", "AccessDeniedException", times=-1)
    clock = ManualClock()
    with pytest.raises(CloudError):
        run(attach_provider(aws, CLUSTER, "x", clock=clock))
