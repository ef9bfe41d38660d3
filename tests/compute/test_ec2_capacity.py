"""EC2 capacity against moto's server: made, kept right, used by several clients at once, removed."""

import asyncio
import base64
import itertools
import logging
import urllib.request

import msgspec
import pytest
from ec2_world import (
    TAG,
    Account,
    Aws,
    CountingAws,
    RefusingAws,
    StoppedError,
    StoppingAws,
    run,
)
from moto.server import ThreadedMotoServer

from starburst.aws.autoscaling import MAX_HOSTS
from starburst.aws.capacity_provider import attach_provider
from starburst.aws.instance_types import describe_types, known_types
from starburst.aws.launch_template import latest_image
from starburst.aws.names import CLUSTER
from starburst.compute.ec2_capacity import (
    CapacityProvider,
    ensure_capacity,
    find_capacity,
    list_capacity,
    remove_capacity,
)
from starburst.compute.ec2_holds import clear, close_at, keep_warm
from starburst.errors import CloudError, CloudUnavailable, NotSetUp, OptionError
from starburst.testing.clock import ManualClock

NAME = "starburst-c7g-xlarge-spot"
TYPES = ("c7g.xlarge",)


@pytest.fixture(scope="module")
def endpoint():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(endpoint, data_dir, monkeypatch):
    """An empty account with what ``starburst setup`` makes."""
    reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    with urllib.request.urlopen(reset):
        pass
    monkeypatch.setattr("starburst.aws.rates._buckets", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing12345")
    found = Account()
    yield found
    found.close()


@pytest.fixture
def aws(account):
    return Aws()


def ensure(aws, account, types=TYPES, *, spot=True, **more):
    return run(ensure_capacity(aws, account.deployment, types, spot=spot, **more))


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
        assert group["CapacityRebalance"] is True
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


def replaced(deployment, **changes):
    return msgspec.structs.replace(deployment, **changes)


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

    def test_several_clients_at_once(self, account):
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


class TestRefused:
    def test_an_unknown_type(self, aws, account):
        with pytest.raises(
            OptionError, match=r"'c7g\.9xlarge' is not an instance type in us-east-1"
        ) as caught:
            ensure(aws, account, ("c7g.xlarge", "c7g.9xlarge"))
        assert "did you mean c7g." in caught.value.hint
        self.nothing_was_made(account)

    def test_a_type_that_is_sold_elsewhere(self, aws, account):
        offers = account.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["c7g.xlarge"]}]
        )
        sold = {offer["Location"] for offer in offers["InstanceTypeOfferings"]}
        subnets = account.ec2.describe_subnets()["Subnets"]
        elsewhere = tuple(one["SubnetId"] for one in subnets if one["AvailabilityZone"] not in sold)
        assert elsewhere, "moto's offers have no such zone any more"
        account.deployment = replaced(account.deployment, subnets=elsewhere)
        with pytest.raises(
            OptionError, match=r"c7g\.xlarge is not to be had in us-east-1.: AWS|where the workers"
        ):
            ensure(aws, account)
        self.nothing_was_made(account)

    def test_mixed_architectures(self, aws, account):
        with pytest.raises(OptionError, match=r"ARM64: c7g\.xlarge; X86_64: c7i\.xlarge"):
            ensure(aws, account, ("c7g.xlarge", "c7i.xlarge"))
        self.nothing_was_made(account)

    def test_types_with_and_without_gpus(self, aws, account):
        with pytest.raises(OptionError, match="with and without GPUs"):
            ensure(aws, account, ("g5.xlarge", "c7i.xlarge"))
        with pytest.raises(OptionError, match=r"gpus=1, but c7i\.xlarge has none"):
            ensure(aws, account, ("c7i.xlarge",), gpus=1)
        with pytest.raises(OptionError, match=r"gpus=2, but g5\.xlarge has 1"):
            ensure(aws, account, ("g5.xlarge",), gpus=2)
        with pytest.raises(OptionError, match="GPUs on ARM64"):
            ensure(aws, account, ("g5g.xlarge",))
        self.nothing_was_made(account)

    def test_set_up_for_fargate_only(self, aws, account):
        account.deployment = replaced(account.deployment, instance_profile_arn="")
        with pytest.raises(NotSetUp, match="Fargate only"):
            ensure(aws, account)
        self.nothing_was_made(account)

    def test_no_cluster(self, aws, account):
        account.deployment = replaced(account.deployment, cluster="other-cluster")
        with pytest.raises(NotSetUp, match="no ECS cluster other-cluster"):
            ensure(aws, account)

    @pytest.mark.parametrize("kind", ["template", "group", "provider"])
    def test_what_others_made_is_left_alone(self, aws, account, kind):
        make_foreign(account, kind)
        before = account.names(), account.group(NAME), account.provider(NAME)
        with pytest.raises(NotSetUp, match="did not make") as caught:
            ensure(aws, account)
        assert NAME in str(caught.value)
        with pytest.raises(NotSetUp, match="did not make"):
            run(remove_capacity(aws, account.deployment, NAME))
        after = account.names(), account.group(NAME), account.provider(NAME)
        if kind == "template":
            assert after == before
        if kind == "group":
            assert after[1] == before[1]
        if kind == "provider":
            assert after[2] == before[2]

    def nothing_was_made(self, account):
        assert account.names() == {
            "templates": set(),
            "groups": set(),
            "attached": {"FARGATE", "FARGATE_SPOT"},
        }


def make_foreign(account, kind):
    tags = [{"Key": "starburst:managed", "Value": "no"}]
    if kind == "template":
        account.ec2.create_launch_template(
            LaunchTemplateName=NAME, LaunchTemplateData={"InstanceType": "t3.nano"}
        )
        return
    template = "mine"
    account.ec2.create_launch_template(
        LaunchTemplateName=template, LaunchTemplateData={"InstanceType": "t3.nano"}
    )
    name = NAME if kind == "group" else "mine"
    account.autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchTemplate={"LaunchTemplateName": template},
        MinSize=0,
        MaxSize=1,
        VPCZoneIdentifier=account.deployment.subnets[0],
        Tags=tags,
    )
    if kind == "provider":
        arn = account.group("mine")["AutoScalingGroupARN"]
        account.ecs.create_capacity_provider(name=NAME, autoScalingGroupProvider={"autoScalingGroupArn": arn})


class TestFound:
    def test_a_supervisor_finds_what_a_client_made_with_one_call(self, aws, account):
        made = ensure(aws, account)
        supervisor = CountingAws()
        assert run(find_capacity(supervisor, TYPES, spot=True)) == made
        assert supervisor.calls == ["describe_auto_scaling_groups"]

    def test_a_supervisor_does_not_make_it(self, aws, account):
        with pytest.raises(NotSetUp, match="not in us-east-1 any more"):
            run(find_capacity(aws, TYPES, spot=True))

    def test_all_that_is_ours_is_listed_even_parts(self, aws, account):
        ensure(aws, account)
        ensure(aws, account, ("m7g.large",), spot=False)
        make_foreign(account, "provider")
        account.ec2.create_launch_template(
            LaunchTemplateName="starburst-c7i-large",
            LaunchTemplateData={"InstanceType": "c7i.large"},
            TagSpecifications=[{"ResourceType": "launch-template", "Tags": TAG}],
        )
        found = run(list_capacity(aws, account.deployment))
        assert [(one.name, one.instance_types, one.spot) for one in found] == [
            (NAME, TYPES, True),
            ("starburst-c7i-large", (), False),
            ("starburst-m7g-large", ("m7g.large",), False),
        ]


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


class TestHolds:
    NOW = 2_000_000_000

    @pytest.fixture
    def clock(self):
        return ManualClock(wall_s=self.NOW)

    @pytest.fixture
    def group(self, aws, account):
        return ensure(aws, account).name

    def test_the_deadline_closes_the_group(self, aws, account, group, clock):
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 100, clock=clock))
        nothing = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
        assert list(account.actions(group).values()) == [(self.NOW + 221, nothing)]

    def test_extending_moves_it_and_the_end_of_the_session_removes_it(self, aws, account, group, clock):
        for seconds in (100, 5000):
            run(close_at(aws, group, "session-a", deadline_at=self.NOW + seconds, grace_s=0, clock=clock))
            assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + seconds + 1]
        run(clear(aws, group, "session-a", clock=clock))
        assert account.actions(group) == {}
        assert account.holds(group) == {}

    def test_a_session_never_shortens_another(self, aws, account, group, clock):
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 5000, grace_s=0, clock=clock))
        run(close_at(aws, group, "session-b", deadline_at=self.NOW + 100, grace_s=0, clock=clock))
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 5001]
        run(clear(aws, group, "session-a", clock=clock))
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 101]

    @pytest.fixture
    def hosts(self, account, group):
        account.autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=3)

    def test_no_host_is_started_to_be_kept(self, aws, account, group, clock):
        run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
        assert account.group(group)["MinSize"] == account.group(group)["DesiredCapacity"] == 0
        assert account.holds(group) == {}

    def test_warm_hosts_stay_and_go_by_themselves(self, aws, account, group, hosts, clock):
        run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
        assert account.group(group)["MinSize"] == 2
        assert list(account.actions(group).values()) == [
            (self.NOW + 600, {"MinSize": 0, "DesiredCapacity": 0})
        ]
        run(clear(aws, group, "session-a", clock=clock))
        assert account.group(group)["MinSize"] == 2, "they stay for the next session"
        run(clear(aws, group, "session-a", warm=True, clock=clock))
        assert account.group(group)["MinSize"] == 0
        assert account.actions(group) == {}

    def test_a_wish_for_no_hosts_takes_the_former_back(self, aws, account, group, hosts, clock):
        run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
        run(keep_warm(aws, group, "session-a", hosts=0, until=self.NOW + 600, clock=clock))
        assert (account.group(group)["MinSize"], account.actions(group)) == (0, {})

    def test_the_same_again_changes_nothing(self, account, group, hosts, clock):
        aws = CountingAws()
        for _ in range(2):
            aws.calls.clear()
            run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
            run(close_at(aws, group, "session-a", deadline_at=self.NOW + 900, clock=clock))
        assert {one for one in aws.calls if not one.startswith("describe")} == set()

    def test_a_closed_group_is_opened_by_the_next_session(self, aws, account, group, clock):
        account.autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=0)
        run(close_at(aws, group, "session-b", deadline_at=self.NOW + 900, clock=clock))
        assert account.group(group)["MaxSize"] == MAX_HOSTS

    def test_what_died_sessions_left_is_removed_by_others(self, aws, account, group, clock):
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 10, grace_s=0, clock=clock))
        clock.advance(4000)
        run(close_at(aws, group, "session-b", deadline_at=self.NOW + 9000, grace_s=0, clock=clock))
        assert set(account.holds(group)) == {"starburst:open:session-b"}
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 9001]

    def test_actions_of_the_user_stay(self, aws, account, group, clock):
        account.autoscaling.put_scheduled_update_group_action(
            AutoScalingGroupName=group, ScheduledActionName="nightly", Recurrence="0 3 * * *", MaxSize=50
        )
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 100, clock=clock))
        run(clear(aws, group, "session-a", clock=clock))
        assert set(account.actions(group)) == {"nightly"}

    def test_many_sessions_at_once_agree_on_the_latest(self, account, group, clock):
        async def all_at_once():
            await asyncio.gather(
                *(
                    close_at(
                        Aws(), group, f"session-{n}", deadline_at=self.NOW + 100 * n, grace_s=0, clock=clock
                    )
                    for n in range(1, 9)
                )
            )

        run(all_at_once())
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 801]

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_client_that_is_killed_never_leaves_a_close_that_is_too_early(
        self, account, group, clock, after
    ):
        for at in itertools.count():
            run(close_at(Aws(), group, "session-a", deadline_at=self.NOW + 100, grace_s=0, clock=clock))
            try:
                run(
                    close_at(
                        StoppingAws(at, after=after),
                        group,
                        "session-b",
                        deadline_at=self.NOW + 9000,
                        grace_s=0,
                        clock=clock,
                    )
                )
            except StoppedError:
                if "starburst:open:session-b" in account.holds(group):
                    run(
                        close_at(
                            Aws(), group, "session-a", deadline_at=self.NOW + 100, grace_s=0, clock=clock
                        )
                    )
                    assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 9001]
                run(clear(Aws(), group, "session-b", clock=clock))
            else:
                assert at == 3
                return

    def test_without_a_group(self, aws, account, clock):
        with pytest.raises(NotSetUp, match="no EC2 capacity"):
            run(close_at(aws, "starburst-nothing", "session-a", deadline_at=self.NOW + 1, clock=clock))
        run(clear(aws, "starburst-nothing", "session-a", clock=clock))


class TestTypes:
    def test_the_built_in_table_says_what_aws_says(self, aws, account):
        table = known_types()
        for start in range(0, len(table), 80):
            part = table[start : start + 80]
            assert run(describe_types(aws, [one.name for one in part])) == part

    def test_the_name_rule_holds_for_every_type_there_is(self, account):
        from starburst.aws.instance_types import architecture_of

        pages = account.ec2.get_paginator("describe_instance_types").paginate()
        words = {"arm64": "ARM64", "x86_64": "X86_64"}
        for one in itertools.chain.from_iterable(page["InstanceTypes"] for page in pages):
            said = {words[word] for word in one["ProcessorInfo"]["SupportedArchitectures"] if word in words}
            if said:
                assert {architecture_of(one["InstanceType"])} == said, one["InstanceType"]

    def test_a_type_is_asked_for_once(self, account):
        aws = CountingAws()
        first = run(describe_types(aws, ["m6g.12xlarge", "m6g.16xlarge", "m6g.12xlarge"]))
        assert [one.name for one in first] == ["m6g.12xlarge", "m6g.16xlarge"]
        assert run(describe_types(aws, ["m6g.16xlarge"])) == first[1:]
        assert aws.calls.count("describe_instance_types") <= 1

    def test_a_mac_runs_no_workers(self, aws, account):
        with pytest.raises(OptionError, match="cannot run Linux containers"):
            run(describe_types(aws, ["mac2.metal"]))


def test_an_error_that_is_not_about_being_busy_is_not_repeated(account):
    aws = RefusingAws("put_cluster_capacity_providers", "AccessDeniedException", times=-1)
    clock = ManualClock()
    with pytest.raises(CloudError):
        run(attach_provider(aws, CLUSTER, "x", clock=clock))
