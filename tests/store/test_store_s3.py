"""S3's own ways to fail: 409 and 412, lost replies, refusals, redirects, stalls."""

import asyncio
import subprocess
import sys

import pytest
from scripted_s3 import DROP, LOSE_REPLY, NORMAL, STALL, ScriptedS3, s3_error

from starburst.clock import SystemClock
from starburst.errors import (
    AccessDenied,
    InvalidStoreURL,
    ObjectNotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from starburst.store import open_store
from starburst.store.s3_open import open_s3

CONFLICT = s3_error(409, "ConditionalRequestConflict")
LOST = s3_error(412, "PreconditionFailed")
SLOW_DOWN = s3_error(503, "SlowDown")


class NoWaitClock(SystemClock):
    """Pauses are noted, not waited for."""

    def __init__(self):
        self.pauses = []

    async def sleep(self, seconds):
        self.pauses.append(seconds)


@pytest.fixture
def server():
    with ScriptedS3() as running:
        yield running


@pytest.fixture
def clock():
    return NoWaitClock()


@pytest.fixture
def store(server, clock, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return open_s3("s3://bucket/p", clock=clock, profile=None, region="eu-central-1", timeout_s=0.5)


def run(work):
    return asyncio.run(work)


def test_412_at_the_first_try_is_lost_without_reading(server, store):
    server.objects["p/k"] = b"mine"
    assert run(store.create("k", b"mine")) is False
    assert server.requests == [("PUT", "p/k")]


def test_409_is_tried_again(server, store):
    server.script += [CONFLICT, CONFLICT]
    assert run(store.create("k", b"mine")) is True
    assert server.requests == [("PUT", "p/k")] * 3
    assert store.counts.retries == 2


def test_412_after_409_is_lost_without_reading(server, store):
    server.script += [CONFLICT, LOST]
    assert run(store.create("k", b"mine")) is False
    assert server.requests == [("PUT", "p/k")] * 2


def test_endless_409_is_unavailable(server, store, clock):
    server.script += [CONFLICT] * 100
    with pytest.raises(StoreUnavailable, match="ConditionalRequestConflict"):
        run(store.create("k", b"mine"))
    assert len(server.requests) == 8
    assert len(clock.pauses) == 7


@pytest.mark.parametrize(
    "failure", [LOSE_REPLY, s3_error(500, "InternalError"), STALL], ids=["lost", "500", "stall"]
)
@pytest.mark.parametrize("body", [b"mine", [b"mi", b"ne"], b""], ids=["bytes", "buffers", "empty"])
def test_own_create_is_recognised(server, store, failure, body):
    server.script += [failure]
    if failure != LOSE_REPLY:
        server.objects["p/k"] = bytes(b"".join(body)) if isinstance(body, list) else body
    assert run(store.create("k", body)) is True
    assert server.requests == [("PUT", "p/k"), ("PUT", "p/k"), ("GET", "p/k")]


@pytest.mark.parametrize("other", [b"theirs", b"min", b"mine too"])
def test_create_of_another_after_a_failure_is_lost(server, store, other):
    server.objects["p/k"] = other
    server.script += [SLOW_DOWN]
    assert run(store.create("k", b"mine")) is False
    assert server.requests == [("PUT", "p/k"), ("PUT", "p/k"), ("GET", "p/k")]


def test_lost_reply_then_failing_read_back(server, store):
    server.script += [LOSE_REPLY, NORMAL, DROP, NORMAL, SLOW_DOWN]
    assert run(store.create("k", b"mine")) is True


def test_object_that_vanishes_before_the_read_back_is_tried_again(server, store):
    server.script += [SLOW_DOWN, LOST, s3_error(404, "NoSuchKey")]
    assert run(store.create("k", b"mine")) is True
    assert server.objects == {"p/k": b"mine"}


@pytest.mark.parametrize(
    "failure",
    [DROP, STALL, SLOW_DOWN, s3_error(429, "Throttled"), s3_error(500, "InternalError")],
    ids=["drop", "stall", "503", "429", "500"],
)
def test_passing_failures_are_tried_again(server, store, failure):
    server.objects["p/k"] = b"body"
    server.script += [failure, NORMAL] * 3
    assert run(store.get("k")) == b"body"
    assert run(store.get_range("k", 1, 2)) == b"od"
    run(store.overwrite("k", b"new body"))
    assert server.objects["p/k"] == b"new body"
    assert store.counts.retries == 3
    assert (store.counts.get, store.counts.put) == (4, 2)


REFUSALS = [
    (s3_error(403, "AccessDenied"), AccessDenied, "s3:GetObject"),
    (s3_error(403, "InvalidAccessKeyId"), AccessDenied, "aws configure"),
    (s3_error(400, "ExpiredToken"), AccessDenied, "aws sso login"),
    (s3_error(401, "Unauthorized"), AccessDenied, "aws configure"),
    (s3_error(404, "NoSuchBucket"), InvalidStoreURL, "aws s3 mb"),
    (s3_error(301, "PermanentRedirect"), InvalidStoreURL, "AWS_REGION"),
    (s3_error(400, "AuthorizationHeaderMalformed"), InvalidStoreURL, "AWS_REGION"),
    (s3_error(507, "InsufficientStorage"), StoreFull, "space"),
    (s3_error(400, "EntityTooLarge"), StoreError, "5 GB"),
]


@pytest.mark.parametrize(("answer", "kind", "hint"), REFUSALS)
def test_refusals_are_explained_and_not_repeated(server, store, answer, kind, hint):
    server.script += [answer]
    with pytest.raises(kind, match="could not create 'k' in s3://bucket/p") as caught:
        run(store.create("k", b"x"))
    assert hint in caught.value.hint
    assert len(server.requests) == 1


def test_unreachable_endpoint(monkeypatch, clock):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = open_store("s3://bucket", clock=clock)
    with pytest.raises(StoreUnavailable, match="refused") as caught:
        run(store.get("k"))
    assert "endpoint" in caught.value.hint


def test_missing_bucket(s3_url):
    store = open_store("s3://no-such-bucket/x")
    for request in (
        lambda: store.create("k", b"x"),
        lambda: store.get("k"),
        lambda: store.list("k/"),
        lambda: store.list_folders(""),
    ):
        with pytest.raises(InvalidStoreURL, match="NoSuchBucket"):
            run(request())


def test_wrong_secret(s3_url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
        run(open_store(s3_url).create("k", b"x"))


def test_no_credentials(s3_url, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(AccessDenied, match="no AWS credentials") as caught:
        open_store(s3_url)
    assert "aws configure" in caught.value.hint


def test_unknown_profile(s3_url):
    with pytest.raises(AccessDenied, match="nobody") as caught:
        open_store(s3_url, profile="nobody")
    assert "list-profiles" in caught.value.hint


def test_profile_gives_credentials_and_region(s3_url, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    credentials = (
        "[profile lab]\naws_access_key_id=testing\naws_secret_access_key=testing12345\nregion=eu-west-1\n"
    )
    (tmp_path / "aws-config").write_text(credentials)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    assert run(open_store(s3_url, profile="lab").create("k", b"x"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert not run(open_store(s3_url).create("k", b"x"))


def test_credentials_that_can_no_longer_be_had(s3_url, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = "[profile lab]\nregion=eu-west-1\ncredential_process=false\n"
    (tmp_path / "aws-config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    with pytest.raises(AccessDenied, match="redential"):
        run(open_store(s3_url, profile="lab").get("k"))


def test_missing_boto3_names_the_extra(s3_url, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert run(open_store(s3_url).list("k/")) == []
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreError) as caught:
        open_store(s3_url)
    assert "pip install 'starburst-cloud[aws]'" in caught.value.hint


def test_a_process_may_end_right_after_a_request(s3_url):
    program = (
        "import sys; from starburst.store import open_store, SyncStore\n"
        "SyncStore(open_store(sys.argv[1])).overwrite('k', b'x')"
    )
    for _ in range(5):
        subprocess.run([sys.executable, "-c", program, s3_url], check=True, timeout=60)


def test_prefixes_are_apart(s3_url):
    outer, inner = open_store(s3_url), open_store(f"{s3_url}/inner/")
    assert inner.url == f"{s3_url}/inner"
    assert run(inner.create("k", b"x"))
    assert [row.key for row in run(outer.list(""))] == ["inner/k"]
    with pytest.raises(ObjectNotFound):
        run(outer.get("k"))
