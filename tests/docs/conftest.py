"""Fixtures of the documents' tests: an AWS account for blocks that need one."""

import pytest

import starburst
from starburst.aws.deployment import load_deployments
from starburst.testing.aws import SimulatedAws


@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    """One simulated account for all documents; it is started when a document first needs it."""
    with SimulatedAws(folder=str(tmp_path_factory.mktemp("aws"))) as running:
        yield running


@pytest.fixture
def account(request):
    """Gives the variables that lead to the account, and an image; what a document sets up is torn down at its end."""
    used = {}

    def environment():
        used.update(request.getfixturevalue("aws").environment)
        return used | {"IMAGE": "registry.example/worker:1"}  # of processes: nobody looks at it

    yield environment
    if used:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in used.items():
                patch.setenv(name, value)
            for region in [each.region for each in load_deployments()]:
                starburst.teardown(region, yes=True)
