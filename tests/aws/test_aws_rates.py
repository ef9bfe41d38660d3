"""Pace of calls."""

import pytest

from starburst.aws.rates import TokenBucket, bucket_of


def test_a_burst_is_free_and_then_calls_come_at_the_refill():
    bucket = TokenBucket(burst=3, refill_per_s=2)
    assert [bucket.reserve(0.0) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]


def test_tokens_come_back_up_to_the_burst():
    bucket = TokenBucket(burst=2, refill_per_s=1)
    assert [bucket.reserve(0.0) for _ in range(3)] == [0, 0, 1.0]
    assert bucket.reserve(2.0) == 0
    assert [bucket.reserve(1000.0) for _ in range(3)] == [0, 0, 1.0]


def test_a_thousand_launches_of_ten_stay_within_what_aws_publishes():
    """RunTask on Fargate: 20 calls a second (aws.md); so the n-th call beyond the burst starts n/20 s later."""
    buckets = bucket_of("rates-test us-east-1", "ecs", "run_task")
    starts = [max(bucket.reserve(0.0) for bucket in buckets) for _ in range(100)]
    for at_s in range(5):
        assert sum(at_s <= start < at_s + 1 for start in starts) <= (20 + 20 if at_s == 0 else 20)


@pytest.mark.parametrize(("service", "operation"), [("s3", "create_bucket"), ("ecs", "describe_nothing")])
def test_other_calls_need_no_pacing(service, operation):
    assert bucket_of("here", service, operation) == ()


def test_regions_and_accounts_do_not_share():
    first, second = (bucket_of(place, "ecs", "stop_task")[0] for place in ("a us-east-1", "a us-west-2"))
    assert first is not second
    assert bucket_of("a us-east-1", "ecs", "stop_task")[0] is first
    assert bucket_of("a us-east-1", "ecs", "run_task")[0] is first
