"""Addresses of stores."""

import asyncio
import subprocess
import sys

import pytest

from starburst.config import set_value
from starburst.errors import AccessDenied, InvalidStoreURL
from starburst.store import open_store


def run(work):
    return asyncio.run(work)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no scheme"),
        ("/some/folder", "no scheme"),
        ("folder", "no scheme"),
        ("C:\\folder", "no scheme"),
        ("s3:/bucket", "no scheme"),
        ("gs://bucket", "unknown kind"),
        ("S3://bucket", "unknown kind"),
        ("file://folder", "three slashes"),
        ("file://~/folder", "three slashes"),
        ("file://", "not the address of a folder"),
        ("file:///a?b", "not the address of a folder"),
        ("file:///a#b", "not the address of a folder"),
        ("file:///a%00b", "not the address of a folder"),
        ("memory://a/b", "has a path"),
        ("s3://", "does not name a bucket"),
        ("s3:///prefix", "does not name a bucket"),
        ("s3://ab", "does not name a bucket"),
        ("s3://Bucket", "does not name a bucket"),
        ("s3://bucket_1", "does not name a bucket"),
        ("s3://" + "x" * 64, "does not name a bucket"),
        ("s3://bucket/../other", "cannot be an object's key"),
        ("s3://bucket/a//b", "cannot be an object's key"),
    ],
)
def test_wrong_addresses(url, says):
    with pytest.raises(InvalidStoreURL, match=says) as caught:
        open_store(url)
    assert caught.value.hint


def test_a_path_gets_the_right_address_as_hint(tmp_path):
    with pytest.raises(InvalidStoreURL) as caught:
        open_store(str(tmp_path / "a b"))
    assert (tmp_path / "a b").as_uri() in caught.value.hint


def test_folder_is_made_and_its_address_is_canonical(tmp_path):
    store = open_store(f"file://localhost{tmp_path}/new%20folder/x/../deep/")
    assert store.url == (tmp_path / "new folder" / "deep").as_uri()
    assert run(store.create("a/k", b"x"))
    assert (tmp_path / "new folder" / "deep" / "a" / "k").read_bytes() == b"x"
    assert run(open_store(store.url).get("a/k")) == b"x"


def test_memory_stores_of_one_name_are_one():
    first, second, other = (
        open_store("memory://shared"),
        open_store("memory://shared"),
        open_store("memory://"),
    )
    run(first.create("k", b"x"))
    assert run(second.get("k")) == b"x"
    assert run(other.list("")) == []
    assert second.counts.put == 0
    run(other.create("k", b"y"))
    assert run(open_store(other.url).get("k")) == b"y"


def test_s3_addresses_are_canonical(s3_url):
    assert open_store("s3://my.bucket-1").url == "s3://my.bucket-1"
    assert open_store("s3://bucket/").url == "s3://bucket"
    assert open_store("s3://bucket/a b/c/").url == "s3://bucket/a b/c"


def test_import_and_folders_load_nothing_heavy(folder_url):
    program = (
        "import sys; from starburst.store import open_store; open_store(sys.argv[1])\n"
        "print(sorted({'boto3', 'botocore', 'numpy', 'obstore', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder_url], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_s3_with_keys_in_the_environment_loads_no_boto3(s3_url):
    program = (
        "import sys; from starburst.store import open_store; open_store(sys.argv[1])\n"
        "print(sorted({'boto3', 'botocore', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, s3_url], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_profile_of_the_settings_is_used():
    set_value("profile", "nobody-has-this")
    with pytest.raises(AccessDenied, match="nobody-has-this"):
        open_store("s3://bucket")
