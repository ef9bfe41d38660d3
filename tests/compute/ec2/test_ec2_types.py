"""Instance types as AWS describes them, against the table and the rule that need no AWS."""

import itertools

import pytest
from ec2_world import CountingAws, run

from starburst.aws.instance_types import architecture_of, describe_types, known_types
from starburst.errors import OptionError


class TestTypes:
    def test_the_built_in_table_says_what_aws_says(self, aws, account):
        table = known_types()
        for start in range(0, len(table), 80):
            part = table[start : start + 80]
            assert run(describe_types(aws, [one.name for one in part])) == part

    def test_the_name_rule_holds_for_every_type_there_is(self, account):

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
