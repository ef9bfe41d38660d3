"""Opening an S3 store: endpoint, region and credentials as every AWS tool finds them."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store as Bucket

from starburst.errors import AccessDenied, InvalidStoreURL, StoreError
from starburst.store.errors import mapped
from starburst.store.keys import check_key
from starburst.store.retry import RetryingStore
from starburst.store.s3 import S3Store

if TYPE_CHECKING:
    from starburst.clock import Clock

__all__ = ["open_s3"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OWN_CHAIN = (
    ("AWS_ACCESS_KEY_ID",),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE",),
)
"""With all of one line set, obstore finds the credentials by itself, and boto3's slow import is saved."""
_CREDENTIALS_TTL = timedelta(minutes=5)
"""Shorter than the ten minutes for which botocore promises that what it hands out stays valid."""
_opened_in: int | None = None
"""The process that has opened S3 stores."""


def open_s3(
    url: str, *, clock: Clock, profile: str | None, region: str | None, timeout_s: float = 20.0
) -> RetryingStore:
    """Open ``s3://bucket[/prefix]``.

    Args:
        url: The address.
        clock: What retries wait on.
        profile: The AWS profile; the environment's if None.
        region: The bucket's region; the environment's or the profile's if None.
        timeout_s: How long the server may take to answer one try.

    Raises:
        InvalidStoreURL: The address is malformed.
        AccessDenied: There are no credentials.
        StoreError: boto3 is needed and not installed.
    """
    name, prefix = _parts_of(url)
    _check_not_forked(url)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    provider = None
    if profile or not any(all(map(os.environ.get, variables)) for variables in _OWN_CHAIN):
        provider, profile_region = _boto3_provider(url, profile)
        region = region or profile_region
    elif region is None and endpoint is None:
        region = _profile_region()
    config: dict[str, Any] = {
        "region": region or "us-east-1",
        # A name with dots does not match Amazon's certificate, and other servers know paths only.
        "virtual_hosted_style_request": endpoint is None and "." not in name,
    }
    if endpoint:
        config["aws_endpoint_url_s3"] = endpoint

    def connect(whole_s: float | None) -> Bucket:
        # Without a limit for the whole, a large object takes its time as long as bytes arrive.
        stall_s = timedelta(seconds=whole_s or timeout_s)
        whole = {"timeout": stall_s} if whole_s else {"timeout": timedelta(days=1), "read_timeout": stall_s}
        return Bucket(
            name,
            config=config,  # type: ignore[arg-type]
            client_options={  # type: ignore[arg-type]
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": timedelta(seconds=5),
                **whole,
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
            credential_provider=provider,
        )

    canonical = f"s3://{name}/{prefix}" if prefix else f"s3://{name}"
    with mapped("open", name, url):
        store = S3Store(connect, url=canonical, prefix=f"{prefix}/" if prefix else "", timeout_s=timeout_s)
    return RetryingStore(store, clock=clock)


def _check_not_forked(url: str) -> None:
    """The threads of obstore do not survive a fork: the child would wait for ever."""
    global _opened_in  # noqa: PLW0603 - of this process
    if _opened_in not in (None, os.getpid()):
        raise StoreError(
            f"{url} cannot be opened here: this process was forked from one that uses S3",
            hint='start child processes with multiprocessing.get_context("spawn")',
        )
    _opened_in = os.getpid()


def _parts_of(url: str) -> tuple[str, str]:
    name, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(name):
        raise InvalidStoreURL(
            f"{url!r} does not name a bucket: {name!r} has to be 3-63 small letters, digits, dots or hyphens",
            hint="s3://bucket/prefix",
        )
    prefix = prefix.strip("/")
    if prefix:
        try:
            check_key(prefix)
        except StoreError as error:
            raise InvalidStoreURL(f"{url!r}: {error.message}", hint="s3://bucket/prefix") from error
    return name, prefix


def _boto3_provider(url: str, profile: str | None) -> tuple[Any, str | None]:
    """Credentials through boto3's chain (profile, SSO, role …), and the region of the profile."""
    try:
        import boto3  # type: ignore[import-untyped]  # slow, and an extra
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise StoreError(
            f"{url} needs AWS credentials from a profile or role, and boto3 is not installed",
            hint="pip install 'starburst-cloud[aws]', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from error
    with mapped("open the profile", profile or "default", url):
        session = boto3.Session(profile_name=profile)
        if session.get_credentials() is None:
            raise AccessDenied(
                f"no AWS credentials were found for {url}",
                hint="run `aws configure` or `aws sso login`, or set AWS_PROFILE",
            )
        return Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL), session.region_name


def _profile_region() -> str | None:
    """The region that the AWS configuration file names, if boto3 is there to read it."""
    try:
        import boto3
    except ImportError:
        return None
    region: str | None = boto3.Session().region_name
    return region
