import logging
import urllib.request

import pytest
from ec2_world import Account, Aws
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def endpoint():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(endpoint, data_dir, monkeypatch):
    """An empty account with what ``starburst setup`` makes."""
    reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    with urllib.request.urlopen(reset):
        pass
    monkeypatch.setattr("starburst.aws.rates._buckets", {})
    monkeypatch.setattr("starburst.aws.capacity_provider._SETTLED_S", 0.0)  # nobody else is at work
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing12345")
    found = Account()
    yield found
    found.close()


@pytest.fixture
def aws(account):
    return Aws()
