"""Two regions of one account, profiles, assumed roles; and no key anywhere but in the client's own files."""

import asyncio
import json
import re
import shutil

import boto3
import msgspec
import pytest
from cloud_tasks import slow_square

import starburst
from cloud import IMAGE
from helpers import eventually
from starburst.aws.deployment import load_deployments, save_deployment
from starburst.aws.people import job_policy
from starburst.aws.resource import Scope
from starburst.errors import SessionNotFound
from starburst.store import open_store

RESULTS = [i * i for i in range(20)]
HOME, ABROAD = "us-east-1", "eu-west-1"


@pytest.fixture
def regions(site, tmp_path, monkeypatch):
    """A second region, in settings of this test's own."""
    shutil.copytree(site.cloud.config_dir, tmp_path / "settings")
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "settings"))
    starburst.setup(region=ABROAD, image=IMAGE, fargate_only=True)
    return site


def submit(**options):
    session = starburst.session(workers=1, **options)
    session.map(slow_square, range(20), [0.01] * 20)
    return session


def region_of(task):
    return task.task_arn.split(":")[3]


def test_regions_side_by_side(regions):
    at_home, abroad = submit(), submit(region=ABROAD)
    assert at_home.url.startswith(f"s3://starburst-123456789012-{HOME}/")
    assert abroad.url.startswith(f"s3://starburst-123456789012-{ABROAD}/")
    assert at_home.collect(timeout=60) == abroad.collect(timeout=60) == RESULTS
    where = {task.started_by: region_of(task) for task in regions.aws.tasks()}
    assert where[at_home.session_id] == HOME
    assert where[abroad.session_id] == ABROAD

    ids = {at_home.session_id, abroad.session_id}
    assert {row.session_id for row in starburst.list_sessions()} >= ids
    assert {row.session_id for row in starburst.list_sessions(region=ABROAD)} == {abroad.session_id}
    assert at_home.session_id in {row.session_id for row in starburst.list_sessions(region=HOME)}
    assert abroad.session_id not in {row.session_id for row in starburst.list_sessions(region=HOME)}

    for session in (at_home, abroad):
        assert starburst.attach(session.session_id).collect() == RESULTS
        assert starburst.attach(session.url).collect() == RESULTS
    assert starburst.attach(abroad.session_id, region=ABROAD).collect() == RESULTS
    with pytest.raises(SessionNotFound):
        starburst.attach(abroad.session_id, region=HOME)
    for session in (at_home, abroad):
        starburst.attach(session.session_id).cleanup(force=True)
    assert starburst.list_sessions(region=ABROAD) == []


@pytest.fixture
def profiles(site, tmp_path, monkeypatch):
    """AWS configuration files with a profile that has keys, and one that takes on the role of a job person."""
    scope = Scope(
        account="123456789012", region=HOME, partition="aws", bucket=site.cloud.bucket, owner="person"
    )
    iam = boto3.client("iam")
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
        "Action": "sts:AssumeRole",
    }
    iam.create_role(
        RoleName="person",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )
    iam.put_role_policy(RoleName="person", PolicyName="jobs", PolicyDocument=json.dumps(job_policy(scope)))
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id = testing\naws_secret_access_key = testing12345\n"
    )
    (tmp_path / "config").write_text(
        f"[profile work]\nregion = {HOME}\n\n"
        f"[profile person]\nregion = {HOME}\nrole_arn = arn:aws:iam::123456789012:role/person\n"
        "source_profile = work\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    yield site
    iam.delete_role_policy(RoleName="person", PolicyName="jobs")
    iam.delete_role(RoleName="person")


@pytest.mark.parametrize(
    ("of_set_up", "of_environment"), [("work", None), ("nobody", "work")], ids=["set-up", "environment"]
)
def test_a_profile_with_keys(profiles, tmp_path, monkeypatch, of_set_up, of_environment):
    """That of the set-up is used for the account and for its bucket; AWS_PROFILE goes first."""
    shutil.copytree(profiles.cloud.config_dir, tmp_path / "settings")
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "settings"))
    [known] = load_deployments()
    save_deployment(msgspec.structs.replace(known, profile=of_set_up))
    if of_environment is not None:
        monkeypatch.setenv("AWS_PROFILE", of_environment)
    session = submit()
    assert session.collect(timeout=60) == RESULTS
    assert session.session_id in {row.session_id for row in starburst.list_sessions()}
    assert starburst.attach(session.session_id).status().workers <= 1
    session.cleanup()
    assert profiles.alive() == []


def test_an_assumed_role_has_enough_rights_and_leaves_no_key(profiles):
    before = len(profiles.aws.denials())
    session = submit(profile="person")
    [supervisor] = eventually(lambda: [one for one in profiles.supervisors() if one.pid], what="a supervisor")
    assert session.collect(timeout=60) == RESULTS
    assert profiles.aws.denials()[before:] == []
    assert supervisor.tags["starburst:owner"]

    frozen = session.provider.aws._boto_session().get_credentials().get_frozen_credentials()
    secrets = ["testing12345", frozen.access_key, frozen.secret_key, frozen.token]
    written = "\n".join(everything_written(profiles, session))
    assert session.session_id in written
    assert not [secret for secret in secrets if secret in written]
    assert not re.search(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}", written)
    session.cleanup(force=True)


def everything_written(site, session):
    """All that the account keeps, and the user's settings, as text."""
    boto = boto3.Session(profile_name="work")
    store = open_store(site.url, profile="work")
    for info in asyncio.run(store.list("")):
        yield f"{info.key}\n{bytes(asyncio.run(store.get(info.key))).decode(errors='replace')}"
    ecs, logs = boto.client("ecs"), boto.client("logs")
    for arn in ecs.list_task_definitions()["taskDefinitionArns"]:
        yield json.dumps(ecs.describe_task_definition(taskDefinition=arn), default=str)
    arns = [task.task_arn for task in site.aws.tasks(started_by=session.session_id)]
    yield json.dumps(ecs.describe_tasks(cluster="starburst-cluster", tasks=arns), default=str)
    group = "/aws/ecs/starburst-worker"
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        name = stream["logStreamName"]
        yield name
        for event in logs.get_log_events(logGroupName=group, logStreamName=name)["events"]:
            yield event["message"]
    for path in site.cloud.config_dir.rglob("*"):
        if path.is_file():
            yield path.read_text()
