"""A real registry behind a proxy that refuses, delays, loses and breaks."""

import json

import pytest
from breaking_proxy import PASSWORD, USER, Fault, Proxy
from registries import behind_proxy, noise

from oci_registry import OciRegistry
from starburst.environment.registry import Manifest, Registry
from starburst.environment.registry_auth import Challenge, Credentials
from starburst.environment.registry_errors import Refusal, refused, unreachable
from starburst.errors import EnvironmentBuildError

MB = 1 << 20
UPLOADS = "/v2/worker/blobs/uploads/"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def oci(tmp_path_factory):
    server = OciRegistry(tmp_path_factory.mktemp("oci") / "server")
    try:
        yield server.start()
    finally:
        server.stop()


def refusal(code, message, status=400):
    return (status, {}, json.dumps({"errors": [{"code": code, "message": message}]}).encode())


def manifest_of(config):
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest}
    about["size"] = config.size_bytes
    data = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": []}).encode()
    return Manifest(data, MANIFEST, type(config).of_bytes(data).digest)


@pytest.mark.parametrize("size", [0, 1, 1000, MB, 2 * MB, 2 * MB + 1, 3 * MB + 77])
def test_blobs_arrive_whole(oci, size, tmp_path):
    blob = noise(size)
    with Registry(oci.address, piece_bytes=MB) as registry:
        assert not registry.has_blob("worker", blob.digest)
        read = []
        registry.upload_blob("worker", blob, progress=read.append)
        assert sum(read) == size
        assert registry.has_blob("worker", blob.digest)
        registry.download_blob("worker", blob.digest, size, tmp_path / "blob")
        assert registry.mount_blob("other", blob.digest, "worker")
        assert registry.has_blob("other", blob.digest)
        assert not registry.mount_blob("third", "sha256:" + "0" * 64, "worker")
    assert (tmp_path / "blob").read_bytes() == blob.open().read()


def test_manifests(oci):
    config = noise(100)
    manifest = manifest_of(config)
    with Registry(oci.address) as registry:
        assert registry.get_manifest("nobody/knows", "latest") is None
        assert registry.digest_of("nobody/knows", "latest") is None
        with pytest.raises(EnvironmentBuildError, match="MANIFEST_BLOB_UNKNOWN"):
            registry.put_manifest("worker", "half", manifest)  # its configuration is not there
        assert registry.digest_of("worker", "half") is None
        registry.upload_blob("worker", config)
        assert registry.put_manifest("worker", "whole", manifest) == manifest.digest
        assert registry.put_manifest("worker", "whole", manifest) == manifest.digest
        assert registry.digest_of("worker", "whole") == manifest.digest
        assert registry.get_manifest("worker", manifest.digest) == manifest
        assert registry.get_manifest("worker", "whole") == manifest


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_passwords(oci, auth):
    blob, config = noise(3 * MB), noise(10)
    with behind_proxy(oci, auth=auth, username=USER, password=PASSWORD) as (proxy, registry):
        registry.upload_blob("worker", blob)
        proxy.revoke()  # tokens expire in the middle of a long build
        registry.upload_blob("worker", config)
        once = iter([proxy.revoke])  # and in the middle of a blob
        again = noise(3 * MB)
        registry.upload_blob("worker", again, progress=lambda _: next(once, int)())
        assert registry.has_blob("worker", again.digest)
        assert registry.has_blob("worker", blob.digest)
        assert registry.put_manifest("worker", auth, manifest_of(config))
        assert proxy.count("GET", "/token") == (0 if auth == "basic" else 3)
        assert proxy.waits == []
    assert PASSWORD not in repr(Credentials(USER, PASSWORD))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_wrong_password_is_an_error_at_once(oci, auth, password):
    who = {"username": USER, "password": password} if password else {}
    with behind_proxy(oci, auth=auth, **who) as (proxy, registry):
        with pytest.raises(EnvironmentBuildError, match=r"refuses .* in worker: HTTP 401") as caught:
            registry.upload_blob("worker", noise(10))
        assert "user name and password" in caught.value.hint
        assert "wrong" not in str(caught.value)
        assert len(proxy.requests) <= 2
        assert proxy.waits == []


def test_blobs_are_fetched_from_another_host_without_the_password(oci, tmp_path):
    blob = noise(3 * MB)
    with Registry(oci.address) as registry:
        registry.upload_blob("worker", blob)
    with (
        Proxy(oci.address) as other,
        behind_proxy(
            oci, auth="basic", username=USER, password=PASSWORD, redirect_blobs_to=other.address
        ) as (proxy, registry),
    ):
        registry.download_blob("worker", blob.digest, blob.size_bytes, tmp_path / "blob")
        assert any("Authorization" in headers for _, _, headers in proxy.requests)
        assert [method for method, _, headers in other.requests] == ["GET"]
        assert not any("Authorization" in headers for _, _, headers in other.requests)
    assert (tmp_path / "blob").read_bytes() == blob.open().read()


def test_redirects_that_do_not_end(oci, tmp_path):
    with behind_proxy(oci) as (proxy, registry):
        proxy.faults = [
            Fault("GET", "blobs/sha", times=100, answer=(307, {"Location": "/v2/a/blobs/sha256:1"}, b""))
        ]
        with pytest.raises(EnvironmentBuildError, match="they do not end"):
            registry.download_blob("worker", "sha256:" + "0" * 64, 10, tmp_path / "blob")
        assert len(proxy.requests) < 10


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_registry_is_asked_again(oci, status, tmp_path):
    blob = noise(3 * MB)
    later = (status, {"Retry-After": "7"}, b"busy")
    with behind_proxy(oci) as (proxy, registry):
        proxy.faults = [
            Fault(method, path, answer=later)
            for method, path in [
                ("HEAD", "blobs/sha"),
                ("POST", UPLOADS),
                ("PATCH", UPLOADS),
                ("PUT", UPLOADS),
            ]
        ]
        proxy.faults.append(Fault("GET", "blobs/sha", answer=later))
        assert not registry.has_blob("worker", blob.digest)
        registry.upload_blob("worker", blob)
        registry.download_blob("worker", blob.digest, blob.size_bytes, tmp_path / "blob")
        assert len(proxy.waits) == 5
        assert all(wait >= 7 for wait in proxy.waits)
        assert proxy.count("POST", UPLOADS) == 2  # one upload: it was taken up where it was
        proxy.faults = [Fault("HEAD", "blobs/sha", times=100, answer=later)]
        with pytest.raises(EnvironmentBuildError, match=f"HTTP {status}") as caught:
            registry.has_blob("worker", blob.digest)
        assert caught.value.hint
        assert len(proxy.waits) == 10


def test_an_upload_goes_on_where_it_broke_off(oci):
    blob = noise(8 * MB)
    with behind_proxy(oci) as (proxy, registry):
        # The registry hears nothing of these pieces.
        proxy.faults = [
            Fault("PATCH", UPLOADS, cut=0),
            Fault("PATCH", UPLOADS, cut=1000),
            Fault("PUT", UPLOADS, cut=99),
        ]
        registry.upload_blob("worker", blob)
        assert registry.has_blob("worker", blob.digest)
        assert proxy.count("POST", UPLOADS) == 1
        assert proxy.received < blob.size_bytes + 3 * MB
        assert len(proxy.waits) == 3


def test_an_upload_that_the_registry_has_lost_begins_anew(oci):
    blob = noise(4 * MB)
    with behind_proxy(oci) as (proxy, registry):
        # Distribution forgets an upload that broke within a piece that it had begun to store.
        proxy.faults = [Fault("PUT", UPLOADS, cut=500_000, hand_on=True)]
        registry.upload_blob("worker", blob)
        assert registry.has_blob("worker", blob.digest)
        assert proxy.count("POST", UPLOADS) == 2
        assert len(proxy.waits) == 1


def test_a_lost_answer_sends_nothing_again(oci):
    blob = noise(3 * MB)
    with behind_proxy(oci) as (proxy, registry):
        proxy.faults = [Fault("PUT", UPLOADS, lose_answer=True)]
        registry.upload_blob("worker", blob)
        assert proxy.count("PUT", UPLOADS) == 1
        assert proxy.received == blob.size_bytes


def test_a_registry_that_names_the_first_piece_for_ever(oci):
    """ECR says 201 to pieces and never moves the end in Range; what counts is what it took."""
    blob = noise(4 * MB)
    with behind_proxy(oci) as (proxy, registry):
        stale = Fault("GET", UPLOADS, answer=(204, {"Range": f"0-{MB - 1}"}, b""))
        proxy.faults = [Fault("PUT", UPLOADS, cut=10), stale]
        registry.upload_blob("worker", blob)
        assert registry.has_blob("worker", blob.digest)
        assert stale.times == 0
        assert proxy.count("POST", UPLOADS) == 1


def test_a_connection_that_always_breaks_is_an_error(oci):
    with behind_proxy(oci) as (proxy, registry):
        proxy.faults = [Fault("PUT", UPLOADS, times=100, cut=10)]
        with pytest.raises(EnvironmentBuildError, match="to send a layer") as caught:
            registry.upload_blob("worker", noise(3 * MB))
        assert "not sent again" in caught.value.hint
        assert proxy.count("PUT", UPLOADS) == 6


def test_content_that_does_not_fit_its_digest_is_refused(oci):
    blob = noise(3 * MB)
    other = noise(3 * MB)
    with behind_proxy(oci) as (proxy, registry):
        wrong = type(blob)(blob.digest, blob.size_bytes, other.open)
        with pytest.raises(EnvironmentBuildError, match="DIGEST_INVALID"):
            registry.upload_blob("worker", wrong)
        assert not registry.has_blob("worker", blob.digest)
        assert proxy.count("POST", UPLOADS) <= 6


def test_a_damaged_download_is_refused(oci, tmp_path):
    blob = noise(1000)
    with behind_proxy(oci) as (proxy, registry):
        registry.upload_blob("worker", blob)
        proxy.faults = [Fault("GET", "blobs/sha", answer=(200, {}, b"x" * 1000))]
        with pytest.raises(EnvironmentBuildError, match="is not what that digest names"):
            registry.download_blob("worker", blob.digest, 1000, tmp_path / "blob")
        with pytest.raises(EnvironmentBuildError, match="HTTP 404"):
            registry.download_blob("worker", "sha256:" + "0" * 64, 1000, tmp_path / "blob")
    assert not list(tmp_path.glob("blob*"))
    assert not list(tmp_path.glob("tmp*"))


def test_nobody_listens():
    with Proxy("127.0.0.1:1") as proxy:
        address = proxy.address
    with Registry(address, sleep=lambda _: None) as registry:
        with pytest.raises(EnvironmentBuildError, match=f"{address}.*refused") as caught:
            registry.has_blob("worker", "sha256:" + "0" * 64)
        assert "check the network" in caught.value.hint


def test_a_tag_that_may_not_be_moved(oci):
    taken = "The image tag 'x' already exists in the 'worker' repository and cannot be overwritten "
    taken += "because the tag is immutable."
    config = noise(50)
    manifest = manifest_of(config)
    with behind_proxy(oci) as (proxy, registry):
        registry.upload_blob("worker", config)
        registry.put_manifest("worker", "x", manifest)
        proxy.faults = [Fault("PUT", "manifests/x", times=2, answer=refusal("TAG_INVALID", taken))]
        assert registry.put_manifest("worker", "x", manifest) == manifest.digest
        # Somebody else pushed first: the tag names what went in, so theirs does the same.
        other = noise(60)
        registry.upload_blob("worker", other)
        assert registry.put_manifest("worker", "x", manifest_of(other)) == manifest.digest
        proxy.faults = [Fault("PUT", "manifests/y", answer=refusal("TAG_INVALID", "a bad tag"))]
        with pytest.raises(EnvironmentBuildError, match="TAG_INVALID: a bad tag"):
            registry.put_manifest("worker", "y", manifest)


ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("host", "answer", "hint"),
    [
        (ECR, (401, b"Not Authorized"), "aws sts get-caller-identity"),
        (
            ECR,
            refusal("DENIED", "Your authorization token has expired.", 403)[::2],
            "aws sts",
        ),
        (
            ECR,
            refusal("DENIED", "User: x is not authorized to perform: ecr:PutImage", 403)[::2],
            "lack a permission",
        ),
        (
            ECR,
            refusal("NAME_UNKNOWN", "The repository with name 'worker' does not exist", 404)[::2],
            "starburst setup",
        ),
        (
            ECR,
            refusal("LIMIT_EXCEEDED", "The repository has the maximum of images", 400)[::2],
            "starburst env prune",
        ),
        (ECR, (418, b"\xff<html>"), "try again"),
        (
            "ghcr.io",
            refusal("UNAUTHORIZED", "authentication required", 401)[::2],
            "user name and password for ghcr.io",
        ),
        ("ghcr.io", refusal("NAME_UNKNOWN", "unknown", 404)[::2], "check the image's name"),
        ("ghcr.io", refusal("DENIED", "denied", 403)[::2], "may do that"),
    ],
)
def test_refusals_say_what_to_do(host, answer, hint):
    error = refused(host, "worker", "to store the image", Refusal.of(*answer))
    assert hint in error.hint
    assert host in error.message
    assert "worker" in error.message


def test_no_answer_says_what_to_do():
    assert "without such a limit" in unreachable("a", "b", "HTTP 429, TOOMANYREQUESTS: pull rate limit").hint
    assert "SSL_CERT_FILE" in unreachable("a", "b", "certificate verify failed").hint
    assert "HTTPS_PROXY" in unreachable("a", "b", "name resolution").hint


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Bearer realm="https://a/t",service="b",scope="x:y:pull,push"', "bearer", 3),
        ("Basic realm=simple", "basic", 1),
        ("Negotiate", "negotiate", 0),
        ("", "", 0),
    ],
)
def test_challenges(header, scheme, parameters):
    challenge = Challenge.parse(header)
    assert (challenge.scheme, len(challenge.parameters)) == (scheme, parameters)
