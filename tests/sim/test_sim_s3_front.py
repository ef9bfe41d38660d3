"""The S3 endpoint of the simulated AWS: what it passes on, what it refuses and how it says so."""

import asyncio
import hashlib
import io
import itertools
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import boto3
import obstore
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from obstore.store import S3Store
from people import ACCOUNT, Role, allow, client, deny, document

from starburst.testing.aws import SimulatedAws

_serial = itertools.count(1)
BIG = 12 << 20


@pytest.fixture
def s3(aws):
    yield client(aws, "s3")
    aws.clear()


@pytest.fixture
def bucket(s3):
    name = f"s3-{next(_serial)}"
    s3.create_bucket(Bucket=name)
    return name


def code_of(call, **parameters):
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    return raised.value.response["Error"]["Code"], raised.value.response["ResponseMetadata"]["HTTPStatusCode"]


def in_bucket(bucket, prefix="mine/"):
    """The rights that our workers have."""
    arn = f"arn:aws:s3:::{bucket}"
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    return [
        allow(objects, f"{arn}/{prefix}*"),
        allow("s3:ListBucket", arn, StringLike={"s3:prefix": f"{prefix}*"}),
    ]


def obstore_of(aws, bucket, **keys):
    keys = keys or {"key": "testing", "secret": "testing12345", "token": None}
    config = {
        "region": "us-east-1",
        "aws_endpoint_url_s3": aws.environment["AWS_ENDPOINT_URL_S3"],
        "aws_access_key_id": keys["key"],
        "aws_secret_access_key": keys["secret"],
        "virtual_hosted_style_request": False,
    }
    if keys["token"]:
        config["aws_session_token"] = keys["token"]
    return S3Store(
        bucket, config=config, client_options={"allow_http": True}, retry_config={"max_retries": 0}
    )


def test_objects_pass_unchanged_whatever_their_names(s3, bucket):
    for key in ("plain", "a/b c+d", "ä/ö=ü&x", "per%20cent", "~tilde.-_", "q?a=b#c"):
        body = key.encode() * 100
        s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"what": "test"}, ContentType="text/x-y")
        got = s3.get_object(Bucket=bucket, Key=key)
        assert got["Body"].read() == body
        assert (got["Metadata"], got["ContentType"]) == ({"what": "test"}, "text/x-y")
        assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]] == [key]
        assert s3.get_object(Bucket=bucket, Key=key, Range="bytes=1-2")["Body"].read() == body[1:3]
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(body)
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    assert code_of(s3.get_object, Bucket=bucket, Key="missing") == ("NoSuchKey", 404)
    assert code_of(s3.head_object, Bucket=bucket, Key="missing") == ("404", 404)


def test_large_bodies_in_one_piece_and_in_parts(s3, bucket):
    body = os.urandom(BIG)
    s3.put_object(Bucket=bucket, Key="one", Body=body)
    s3.upload_fileobj(io.BytesIO(body), bucket, "parts")
    for key in ("one", "parts"):
        assert hashlib.sha256(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).digest() == (
            hashlib.sha256(body).digest()
        )


def test_a_slow_reader_does_not_hold_up_others(s3, bucket):
    s3.put_object(Bucket=bucket, Key="big", Body=os.urandom(BIG))
    slow = s3.get_object(Bucket=bucket, Key="big")["Body"]
    assert len(slow.read(1000)) == 1000
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"small/{number}", Body=b"x")
    assert len(slow.read()) == BIG - 1000


def test_a_reader_that_is_slow_to_the_end_does_not_hold_up_the_next_one(s3, bucket):
    """The store's connection, which read no faster than the reader, goes on to the next request."""
    s3.put_object(Bucket=bucket, Key="small", Body=b"x")
    for number in range(8):
        size = BIG // 2 + number * 50_000
        s3.put_object(Bucket=bucket, Key="big", Body=bytes(size))
        url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "big"})
        asked = urllib.parse.urlsplit(url)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            slow.settimeout(30)
            slow.connect((asked.hostname, asked.port))
            slow.sendall(f"GET {asked.path}?{asked.query} HTTP/1.1\r\nHost: {asked.netloc}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += slow.recv(1)
            while size:
                size -= len(slow.recv(min(size, 1 << 12)))
        assert s3.get_object(Bucket=bucket, Key="small")["Body"].read() == b"x"


def test_conditional_writes_have_one_winner(aws, bucket):
    store = obstore_of(aws, bucket)

    async def race(key):
        async def create(number):
            try:
                await obstore.put_async(store, key, f"{number}".encode(), mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return 0
            return 1

        return sum(await asyncio.gather(*(create(number) for number in range(16))))

    async def races():
        return [await race(f"raced/{number}") for number in range(20)]

    assert asyncio.run(races()) == [1] * 20


def test_settings_of_a_bucket(s3, bucket):
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    owner = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=owner)
    expiry = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 1}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [expiry]})
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    tls = deny("s3:*", [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"])
    tls |= {"Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    s3.put_bucket_policy(Bucket=bucket, Policy=document(tls))

    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == owner
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["Expiration"] == {"Days": 1}
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Suspended"
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert "SecureTransport" in s3.get_bucket_policy(Bucket=bucket)["Policy"]
    # The rule about TLS locks nobody out: the endpoint stands for one that has it.
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_bucket_policy(Bucket=bucket)
    assert code_of(s3.get_bucket_policy, Bucket=bucket) == ("NoSuchBucketPolicy", 404)


def test_a_buckets_own_policy_counts_for_everybody(s3, bucket):
    closed = deny("s3:PutObject", f"arn:aws:s3:::{bucket}/closed/*") | {"Principal": "*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=document(closed))
    assert code_of(s3.put_object, Bucket=bucket, Key="closed/a", Body=b"") == ("AccessDenied", 403)
    s3.put_object(Bucket=bucket, Key="open/a", Body=b"")


def test_buckets_come_and_go(s3):
    name = f"s3-{next(_serial)}"
    assert code_of(s3.head_bucket, Bucket=name) == ("404", 404)
    assert code_of(s3.put_object, Bucket=name, Key="k", Body=b"x") == ("NoSuchBucket", 404)
    s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)
    assert name in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    assert code_of(s3.delete_bucket, Bucket=name) == ("BucketNotEmpty", 409)
    answer = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "k"}]})
    assert [each["Key"] for each in answer["Deleted"]] == ["k"]
    s3.delete_bucket(Bucket=name)
    assert code_of(s3.head_bucket, Bucket=name) == ("404", 404)
    s3.create_bucket(Bucket=name)  # and nothing of the old one is in it
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0


def test_a_bucket_of_another_account(aws, s3):
    name = f"foreign-{next(_serial)}"
    aws.foreign_bucket(name)
    assert code_of(s3.head_bucket, Bucket=name) == ("403", 403)
    assert code_of(s3.put_object, Bucket=name, Key="k", Body=b"x") == ("AccessDenied", 403)
    assert code_of(s3.put_bucket_tagging, Bucket=name, Tagging={"TagSet": []}) == ("AccessDenied", 403)
    assert code_of(s3.create_bucket, Bucket=name) == ("BucketAlreadyExists", 409)
    assert name not in [each["Name"] for each in s3.list_buckets()["Buckets"]]


def test_the_expected_owner_is_checked(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner=ACCOUNT)
    call = {"Bucket": bucket, "Key": "k", "ExpectedBucketOwner": "111111111111"}
    assert code_of(s3.get_object, **call) == ("AccessDenied", 403)
    assert code_of(s3.put_object, **call, Body=b"y") == ("AccessDenied", 403)


def test_a_bucket_is_in_one_region(aws, s3):
    name = f"s3-{next(_serial)}"
    west = client(aws, "s3", region="eu-west-1")
    west.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    west.put_object(Bucket=name, Key="k", Body=b"x")
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    store = obstore_of(aws, name)
    with pytest.raises(obstore.exceptions.BaseError, match=r"redirect|301|region"):
        obstore.get(store, "k")
    # boto3 follows the answer to the right region by itself.
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "eu-west-1"


def test_credentials_are_checked(aws, bucket):
    stranger = client(aws, "s3", key="AKIASTRANGER", secret="x")
    assert code_of(stranger.list_objects_v2, Bucket=bucket) == ("InvalidAccessKeyId", 403)
    liar = client(aws, "s3", secret="wrong")
    assert code_of(liar.list_objects_v2, Bucket=bucket) == ("SignatureDoesNotMatch", 403)
    keys = Role(aws, allow("*")).keys()
    assert code_of(client(aws, "s3", **keys | {"token": "stale"}).list_buckets) == ("InvalidToken", 400)
    assert code_of(client(aws, "s3", **keys | {"secret": "wrong"}).list_buckets) == (
        "SignatureDoesNotMatch",
        403,
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{aws.environment['AWS_ENDPOINT_URL_S3']}/{bucket}/k")


def test_presigned_addresses(s3, bucket):
    target = {"Bucket": bucket, "Key": "a b/c"}
    put = urllib.request.Request(s3.generate_presigned_url("put_object", target), b"body", method="PUT")
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 200
    url = s3.generate_presigned_url("get_object", target)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"body"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(s3.generate_presigned_url("get_object", target, ExpiresIn=0))


def test_a_role_is_kept_within_its_prefix(aws, s3, bucket):
    s3.put_object(Bucket=bucket, Key="other/secret", Body=b"x")
    role = Role(aws, *in_bucket(bucket))
    mine = role.client("s3")
    mine.put_object(Bucket=bucket, Key="mine/a", Body=b"x")
    assert mine.get_object(Bucket=bucket, Key="mine/a")["Body"].read() == b"x"
    assert mine.list_objects_v2(Bucket=bucket, Prefix="mine/")["KeyCount"] == 1
    mine.upload_fileobj(io.BytesIO(os.urandom(BIG)), bucket, "mine/parts")
    mine.copy_object(Bucket=bucket, Key="mine/copy", CopySource={"Bucket": bucket, "Key": "mine/a"})
    assert code_of(mine.get_object, Bucket=bucket, Key="mine/missing") == ("NoSuchKey", 404)
    mine.delete_object(Bucket=bucket, Key="mine/copy")

    before = len(aws.denials())
    refused = ("AccessDenied", 403)
    assert code_of(mine.get_object, Bucket=bucket, Key="other/secret") == refused
    assert code_of(mine.put_object, Bucket=bucket, Key="other/mine", Body=b"x" * BIG) == refused
    assert code_of(mine.delete_object, Bucket=bucket, Key="other/secret") == refused
    assert code_of(mine.list_objects_v2, Bucket=bucket) == refused
    assert code_of(mine.list_objects_v2, Bucket=bucket, Prefix="other/") == refused
    stolen = {"Bucket": bucket, "Key": "other/secret"}
    assert code_of(mine.copy_object, Bucket=bucket, Key="mine/stolen", CopySource=stolen) == refused
    assert code_of(mine.delete_bucket, Bucket=bucket) == refused
    assert code_of(mine.put_bucket_policy, Bucket=bucket, Policy=document(allow("*"))) == refused
    assert code_of(mine.list_buckets) == refused
    assert aws.denials()[before:][:2] == [
        (role.name, "s3:GetObject", f"arn:aws:s3:::{bucket}/other/secret"),
        (role.name, "s3:PutObject", f"arn:aws:s3:::{bucket}/other/mine"),
    ]
    # The connection is still good after a refused body.
    mine.put_object(Bucket=bucket, Key="mine/b", Body=b"x")

    answer = mine.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "mine/b"}, {"Key": "other/secret"}, {"Key": "mine/parts"}]}
    )
    assert sorted(each["Key"] for each in answer["Deleted"]) == ["mine/b", "mine/parts"]
    assert [(each["Key"], each["Code"]) for each in answer["Errors"]] == [("other/secret", "AccessDenied")]
    assert s3.get_object(Bucket=bucket, Key="other/secret")["Body"].read() == b"x"


def test_what_is_missing_is_told_only_to_those_who_may_list(aws, bucket):
    role = Role(aws, allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*"))
    mine = role.client("s3")
    assert code_of(mine.get_object, Bucket=bucket, Key="missing") == ("AccessDenied", 403)
    assert code_of(mine.head_object, Bucket=bucket, Key="missing") == ("403", 403)
    role.may(*in_bucket(bucket, ""))
    assert code_of(mine.get_object, Bucket=bucket, Key="missing") == ("NoSuchKey", 404)


def test_a_change_of_a_document_counts_from_the_next_request_on(aws, bucket):
    role = Role(aws)
    mine = role.client("s3")
    for _ in range(10):
        assert code_of(mine.put_object, Bucket=bucket, Key="k", Body=b"x") == ("AccessDenied", 403)
        role.may(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/*"))
        mine.put_object(Bucket=bucket, Key="k", Body=b"x")
        role.may()


def test_obstore_with_the_credentials_of_a_role(aws, bucket):
    store = obstore_of(aws, bucket, **Role(aws, *in_bucket(bucket)).keys())
    obstore.put(store, "mine/a", b"x" * BIG, use_multipart=True)
    obstore.put(store, "mine/b", b"y", mode="create")
    assert len(obstore.get(store, "mine/a").bytes()) == BIG
    assert {each["path"] for each in obstore.list(store, "mine").collect()} == {"mine/a", "mine/b"}
    obstore.delete(store, ["mine/a", "mine/b"])
    with pytest.raises(obstore.exceptions.PermissionDeniedError):
        obstore.put(store, "other", b"x")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("denied", ("AccessDenied", 403)),
        ("expired", ("ExpiredToken", 400)),
        ("throttle", ("SlowDown", 503)),
        ("conflict", ("ConditionalRequestConflict", 409)),
        ("server-error", ("InternalError", 500)),
    ],
)
def test_failures_on_request(aws, s3, bucket, kind, code):
    aws.fail("s3:PutObject", kind, times=2, bucket=bucket)
    for _ in range(2):
        assert code_of(s3.put_object, Bucket=bucket, Key="k", Body=b"x" * 100_000) == code
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    script = aws.fail("s3:*", kind)
    assert code_of(s3.list_objects_v2, Bucket=bucket) == code
    aws.clear(script)
    s3.list_objects_v2(Bucket=bucket)


def test_failures_on_request_for_one_caller_or_one_key(aws, s3, bucket):
    role = Role(aws, *in_bucket(bucket))
    mine = role.client("s3")
    aws.fail("s3:*", "expired", caller=role.name)
    assert code_of(mine.put_object, Bucket=bucket, Key="mine/k", Body=b"x") == ("ExpiredToken", 400)
    s3.put_object(Bucket=bucket, Key="mine/k", Body=b"x")
    aws.fail("s3:GetObject", "denied", key="mine/k")
    assert code_of(s3.get_object, Bucket=bucket, Key="mine/k") == ("AccessDenied", 403)
    aws.fail("s3:HeadObject", "hide-missing")
    assert code_of(s3.head_object, Bucket=bucket, Key="missing") == ("403", 403)


def test_lost_requests_and_lost_replies(aws, s3, bucket):
    aws.fail("s3:PutObject", "lost-request", times=1)
    with pytest.raises(BotoCoreError):
        s3.put_object(Bucket=bucket, Key="not-done", Body=b"x")
    assert code_of(s3.head_object, Bucket=bucket, Key="not-done") == ("404", 404)
    aws.fail("s3:PutObject", "lost-reply", times=1)
    with pytest.raises(BotoCoreError):
        s3.put_object(Bucket=bucket, Key="done", Body=b"x")
    assert s3.get_object(Bucket=bucket, Key="done")["Body"].read() == b"x"
    name = f"s3-{next(_serial)}"
    aws.fail("s3:CreateBucket", "lost-reply", times=1)
    with pytest.raises(BotoCoreError):
        s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)


def test_requests_are_counted(aws, s3, bucket):
    before = aws.s3_calls()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.list_objects_v2(Bucket=bucket)
    s3.list_objects_v2(Bucket=bucket)
    after = aws.s3_calls()
    assert after["s3.PutObject"] == before.get("s3.PutObject", 0) + 1
    assert after["s3.ListObjectsV2"] == before.get("s3.ListObjectsV2", 0) + 2


def test_many_clients_at_once(aws, bucket):
    store = obstore_of(aws, bucket)

    async def work(client_number):
        for number in range(20):
            key = f"many/{client_number}/{number}"
            await obstore.put_async(store, key, key.encode() * 50)
            assert bytes(await (await obstore.get_async(store, key)).bytes_async()) == key.encode() * 50

    async def all_of_them():
        await asyncio.gather(*(work(number) for number in range(40)))

    asyncio.run(all_of_them())


def test_it_ends_with_the_simulator(tmp_path):
    with SimulatedAws(folder=str(tmp_path / "aws")) as own:
        endpoint = own.environment["AWS_ENDPOINT_URL_S3"]
        client(own, "s3").create_bucket(Bucket="some-bucket")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(endpoint, timeout=5)
    assert not [each.name for each in threading.enumerate() if each.name == "control"]


def test_aws_settings_of_the_environment_are_enough(aws, bucket, monkeypatch):
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    boto3.Session().client("s3").put_object(Bucket=bucket, Key="k", Body=b"x")
