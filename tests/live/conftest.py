"""Tests against a real AWS account: they cost money, so they run only for who asks for them in so many words.

    STARBURST_LIVE_MAX_USD=0.50 STARBURST_LIVE_IMAGE=<image with starburst> AWS_PROFILE=… pytest tests/live

They set up the region of the profile, run a few small workers, and tear everything down again, whatever happens.
"""

import os

import pytest

import starburst

MAX_USD = os.environ.get("STARBURST_LIVE_MAX_USD", "")
collect_ignore_glob = [] if MAX_USD else ["test_*.py"]

_VCPU_HOUR_USD, _GB_HOUR_USD, _ADDRESS_HOUR_USD = 0.04048, 0.004445, 0.005  # aws.md, us-east-1, on-demand


class Budget:
    """What may be spent; every session says before it starts what it can cost at the most."""

    def __init__(self, max_usd):
        self.left_usd = max_usd

    def session(self, *, workers, minutes, **options):
        """Options of a session that cannot cost more than is left.

        Workers of a quarter of a vCPU and half a GB each, and a supervisor like them, until the deadline.
        """
        hour_usd = 0.25 * _VCPU_HOUR_USD + 0.5 * _GB_HOUR_USD + _ADDRESS_HOUR_USD
        usd = (workers + 1) * hour_usd * minutes / 60
        assert usd <= self.left_usd, f"${usd:.3f} is more than the ${self.left_usd:.3f} that are left"
        self.left_usd -= usd
        return {
            "launch_type": "FARGATE",
            "workers": workers,
            "cpu": 0.25,
            "memory": "512MB",
            "absolute_timeout": f"{minutes}m",
            "idle_timeout": 30,
            **options,
        }


@pytest.fixture(autouse=True)
def data_dir():
    """In place of the fixture for all tests: here the user's own credentials and settings are wanted."""


@pytest.fixture(autouse=True)
def nothing_left():
    """In place of the fixture for all tests: the account below is torn down."""


@pytest.fixture(scope="session")
def budget(tmp_path_factory):
    """The account, set up for the time of the tests, and what they may spend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARBURST_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        patch.setenv("STARBURST_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        plan = starburst.setup(fargate_only=True, image=os.environ["STARBURST_LIVE_IMAGE"])
        assert not plan.foreign
        try:
            yield Budget(float(MAX_USD))
        finally:
            starburst.teardown(yes=True)
