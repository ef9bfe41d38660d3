"""Where sessions are looked for, and how they are called so that another program finds them."""

import pytest

import starburst
from starburst.aws.deployment import Deployment, save_deployment
from starburst.client.address import address
from starburst.client.places import usual_places


def set_up(region):
    names = dict.fromkeys(
        ("cluster", "repository", "execution_role_arn", "task_role_arn", "supervisor_role_arn", "log_group"),
        "x",
    )
    save_deployment(
        Deployment(
            account="1", region=region, bucket=f"b-{region}", subnets=("s",), security_groups=("g",), **names
        )
    )


def test_the_usual_store_then_the_buckets_of_all_regions():
    set_up("us-west-2")
    set_up("us-east-1")
    usual, *buckets = usual_places()
    assert usual.url.startswith("file:")
    assert [(place.url, place.region) for place in buckets] == [
        ("s3://b-us-east-1", "us-east-1"),
        ("s3://b-us-west-2", "us-west-2"),
    ]
    assert [place.url for place in usual_places(region="us-west-2")] == ["s3://b-us-west-2"]
    assert [place.region for place in usual_places("s3://b-us-west-2/x")] == ["us-west-2"]


@pytest.mark.parametrize("look", [starburst.attach, lambda _, region: starburst.list_sessions(region=region)])
def test_a_region_that_is_not_set_up_is_told(look):
    set_up("us-east-1")
    with pytest.raises(starburst.NotSetUp, match="eu-west-1") as caught:
        look("session-1", region="eu-west-1")
    assert caught.value.hint == "starburst setup --region eu-west-1"


def test_a_session_in_a_store_that_only_this_program_plans_to_use_is_called_by_its_url(tmp_path):
    planned = (tmp_path / "planned").as_uri()
    with starburst.plan(store=planned):
        assert address(planned, "session-1") == f"{planned}/sessions/session-1"
    set_up("us-east-1")
    assert address("s3://b-us-east-1", "session-1") == "session-1"
