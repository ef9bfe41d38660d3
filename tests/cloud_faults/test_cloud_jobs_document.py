"""The printed document for people who run jobs is enough for that, and for nothing more."""

import json
import subprocess
import sys

import boto3
import pytest

from helpers import eventually
from starburst.aws.clients import Aws
from starburst.client.engine import engine
from starburst.ops.blueprint import Blueprint
from starburst.ops.choices import Choices
from starburst.ops.setup import documents_of


@pytest.fixture
def person(site, monkeypatch):
    """Somebody who has the document, in the environment of programs that are started."""
    iam, user = boto3.client("iam"), {"UserName": "person-who-runs-jobs"}
    document = json.dumps(documents_of(engine.run(Blueprint.draw(Aws("us-east-1"), Choices())))["jobs"])
    iam.create_user(**user)
    iam.put_user_policy(**user, PolicyName="jobs", PolicyDocument=document)
    key = iam.create_access_key(**user)["AccessKey"]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield
    iam.delete_access_key(**user, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(**user, PolicyName="jobs")
    iam.delete_user(**user)


def test_the_document_is_enough_to_run_jobs(site, person):
    before = len(site.aws.denials())
    client = site.start("client_with_job_rights.py")
    printed, _ = client.communicate(timeout=110)
    assert client.returncode == 0
    command = [sys.executable, "-m", "starburst.cli.main"]
    for words in (["sessions"], ["status"], ["logs"], ["cleanup", "--force"]):
        named = words if words == ["sessions"] else [words[0], printed.strip(), *words[1:]]
        done = subprocess.run([*command, *named], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    assert site.aws.denials()[before:] == []
    eventually(lambda: not site.alive(), 60, what="the end of all tasks")
