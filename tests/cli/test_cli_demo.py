"""The demo's workloads and its judgement; that all of it runs is tested with the commands."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from starburst.cli.demo_workloads import Workload, american_put, mapped_workloads, portfolio_year, search_grid


def judge(*arguments, **options):
    from starburst.cli.demo_suite import difference

    return difference(*arguments, **options)


def test_equal_results():
    values = [1.0, (2.0, 3.0), np.arange(3.0)]
    assert judge(values, list(values), rtol=0) == ""
    assert judge([1.0], [1.0 + 1e-13], rtol=1e-12) == ""


@pytest.mark.parametrize(
    ("got", "words"),
    [
        ([1.0], "1 results instead of 2"),
        ([1.0, 2.0 + 1e-9], "task 1: 2.000000001 instead of 2.0"),
        ([1.0, np.zeros(2)], "task 1: float64(2,) instead of float64()"),
        ([1, 2.0], "task 0: int64() instead of float64()"),
        ([1.0, ValueError("broken")], "task 1 failed: broken"),
        ([1.0, float("nan")], "task 1: nan"),
    ],
)
def test_a_difference_is_found_and_named(got, words):
    assert judge([1.0, 2.0], got, rtol=0).startswith(words)


def test_workloads_can_be_sent_and_repeated():
    for workload in mapped_workloads(quick=True):
        assert pickle.loads(pickle.dumps(workload.function)) is workload.function
        call = workload.calls()[1]
        first, second = workload.function(*call), workload.function(*call)
        assert judge([first], [second], rtol=0) == ""
    assert len(mapped_workloads(quick=False)[0].calls()) == 10_000
    assert [len(each.calls()) for each in mapped_workloads(quick=False)] == [10_000, 10_000, 300, 30]
    assert len(search_grid(quick=False)) == 36


def test_the_put_is_priced_as_in_the_books():
    # At the money, 20% volatility, one year at 3%: the European put is worth 6.46 (Black and Scholes), the
    # American one a little more; far in the money it is worth what exercising brings.
    assert 6.46 < american_put(100.0, 0.2, steps=400) < 6.95
    assert american_put(200.0, 0.1) == pytest.approx(100.0)
    assert american_put(50.0, 0.1) == pytest.approx(0.0, abs=1e-6)


def test_a_portfolio_depends_on_its_seed_alone():
    assert portfolio_year(5) == portfolio_year(5)
    assert portfolio_year(5) != portfolio_year(6)


def test_calls_need_equal_lengths():
    with pytest.raises(ValueError, match="shorter"):
        Workload(name="x", function=max, columns=([1, 2], [1])).calls()
