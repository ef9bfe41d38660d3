"""What EC2 capacity is refused for, and what of it is found again."""

import pytest
from ec2_world import NAME, TAG, TYPES, CountingAws, ensure, make_foreign, replaced, run

from starburst.compute.ec2_capacity import find_capacity, list_capacity, remove_capacity
from starburst.errors import NotSetUp, OptionError


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
