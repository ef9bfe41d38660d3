"""Fixtures: an AWS account over HTTP, empty before each test."""

import pytest
from cloud_server import CloudServer

from starburst.aws import capacity_provider


@pytest.fixture(scope="session")
def cloud_server():
    server = CloudServer()
    yield server
    server.stop()


@pytest.fixture
def account(cloud_server, monkeypatch, data_dir):
    """The account; the environment leads there, with the user "testing", who may do everything."""
    cloud_server.reset()
    monkeypatch.setattr(capacity_provider, "_SETTLED_S", 0.0)  # nobody else is at work
    for name, value in cloud_server.environment().items():
        monkeypatch.setenv(name, value)
    return cloud_server
