"""Fixtures: an AWS account over HTTP, empty before each test."""

import pytest
from cloud_server import CloudServer


@pytest.fixture(scope="session")
def cloud_server():
    server = CloudServer()
    yield server
    server.stop()


@pytest.fixture
def account(cloud_server, monkeypatch, data_dir):
    """The account; the environment leads there, with the user "testing", who may do everything."""
    cloud_server.reset()
    for name, value in cloud_server.environment().items():
        monkeypatch.setenv(name, value)
    return cloud_server
