"""Where calls go: the region that is meant."""

import pytest

from starburst.aws.clients import Aws, Identity
from starburst.errors import CredentialsError


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_environments_region_by_either_name(monkeypatch, variable):
    monkeypatch.setenv(variable, "eu-west-3")
    assert Aws().region == "eu-west-3"
    assert Aws("us-west-2").region == "us-west-2"


def test_no_region_at_all_says_how_to_set_one():
    with pytest.raises(CredentialsError, match="no AWS region is set") as caught:
        Aws().region  # noqa: B018 - asking is the test
    assert "AWS_REGION" in caught.value.hint


def test_an_owner_is_what_a_tag_may_say():
    assert Identity("1", "arn:aws:sts::1:assumed-role/r/ann@example.org").owner == "ann@example.org"
    assert Identity("1", "arn:aws:iam::1:user/a,b").owner == "a-b"
