"""What an S3 request asks for: operation, bucket, key, and what it needs permission for."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from starburst.testing.aws.iam import Access
from starburst.testing.aws.sigv4 import Query

__all__ = ["CONFIGURATION", "Asked", "read_request"]

# Subresources of a bucket: (operation for each method, action without its verb).
_SETTINGS = {
    "accelerate": ("BucketAccelerateConfiguration", "AccelerateConfiguration"),
    "acl": ("BucketAcl", "BucketAcl"),
    "cors": ("BucketCors", "BucketCORS"),
    "encryption": ("BucketEncryption", "EncryptionConfiguration"),
    "lifecycle": ("BucketLifecycleConfiguration", "LifecycleConfiguration"),
    "location": ("BucketLocation", "BucketLocation"),
    "logging": ("BucketLogging", "BucketLogging"),
    "notification": ("BucketNotificationConfiguration", "BucketNotification"),
    "object-lock": ("ObjectLockConfiguration", "BucketObjectLockConfiguration"),
    "ownershipControls": ("BucketOwnershipControls", "BucketOwnershipControls"),
    "policy": ("BucketPolicy", "BucketPolicy"),
    "policyStatus": ("BucketPolicyStatus", "BucketPolicyStatus"),
    "publicAccessBlock": ("PublicAccessBlock", "BucketPublicAccessBlock"),
    "replication": ("BucketReplication", "ReplicationConfiguration"),
    "requestPayment": ("BucketRequestPayment", "BucketRequestPayment"),
    "tagging": ("BucketTagging", "BucketTagging"),
    "versioning": ("BucketVersioning", "BucketVersioning"),
    "website": ("BucketWebsite", "BucketWebsite"),
}
CONFIGURATION = frozenset(_SETTINGS)
"""What is asked of a bucket and not of what is in it."""
_VERBS = {"GET": "Get", "PUT": "Put", "DELETE": "Delete"}
# Deleting these settings is an act of writing them.
_DELETE_IS_PUT = frozenset(_SETTINGS) - {"policy", "website"}
_LISTINGS = {
    "uploads": ("ListMultipartUploads", "ListBucketMultipartUploads"),
    "versions": ("ListObjectVersions", "ListBucketVersions"),
}
_OBJECT_PARTS = {"acl": "Acl", "tagging": "Tagging", "retention": "Retention", "legal-hold": "LegalHold"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, understood.

    Attributes:
        operation: As the API calls it, such as ``ListObjectsV2``; empty if it is none that S3 has.
        bucket: Empty for ListBuckets.
        key: Empty for requests about a bucket.
        setting: The subresource of a bucket's configuration, or empty.
        query: Decoded parameters.
        accesses: What has to be allowed; for DeleteObjects the keys are in the body.
    """

    operation: str
    bucket: str
    key: str
    setting: str
    query: Query
    accesses: tuple[Access, ...]

    @property
    def is_configuration(self) -> bool:
        """Whether it is about buckets and not about objects."""
        return bool(self.setting) or self.operation in {
            "CreateBucket",
            "DeleteBucket",
            "HeadBucket",
            "ListBuckets",
        }

    @property
    def hides_missing(self) -> bool:
        """Whether "there is no such object" is told only to those who may list the bucket."""
        return self.operation in {"GetObject", "HeadObject"}


def read_request(method: str, target: str, headers: Mapping[str, str], *, partition: str) -> Asked:
    """Understand one request that names its bucket in the path.

    Args:
        method: GET, PUT …
        target: Path and query, as on the wire.
        headers: Names in lower case.
        partition: ``aws``, or another for ARNs.
    """
    raw_path, _, raw_query = target.partition("?")
    bucket, _, key = urllib.parse.unquote(raw_path.lstrip("/")).partition("/")
    query = urllib.parse.parse_qsl(raw_query, keep_blank_values=True) if raw_query else []
    names = dict(query)
    arn = f"arn:{partition}:s3:::{bucket}"
    if key:
        operation, actions = _of_object(method, names, headers)
        accesses = [Access(action, f"{arn}/{key}", _COMMON) for action in actions]
        source = urllib.parse.unquote(headers.get("x-amz-copy-source", "")).partition("?")[0].lstrip("/")
        if source:
            accesses.append(Access("s3:GetObject", f"arn:{partition}:s3:::{source}", _COMMON))
        return Asked(operation, bucket, key, "", query, tuple(accesses))
    if not bucket:
        listing = (Access("s3:ListAllMyBuckets", "*", _COMMON),)
        return Asked("ListBuckets" if method == "GET" else "", "", "", "", query, listing)
    setting = next((name for name in names if name in CONFIGURATION), "")
    operation, action = _of_bucket(method, names, setting)
    accesses = [Access(action, arn, _list_context(names) if action.startswith("s3:List") else _COMMON)]
    return Asked(operation, bucket, "", setting, query, tuple(accesses) if action else ())


# The simulated endpoint has no TLS; it plays the part of one that has.
_COMMON = {"aws:SecureTransport": "true"}


def _list_context(names: Mapping[str, str]) -> dict[str, str]:
    # A listing of everything has the empty prefix, which only conditions that allow it let pass.
    context = {**_COMMON, "s3:prefix": names.get("prefix", "")}
    for name in ("delimiter", "max-keys"):
        if name in names:
            context[f"s3:{name}"] = names[name]
    return context


def _of_bucket(  # noqa: PLR0911 - one per kind of request
    method: str, names: Mapping[str, str], setting: str
) -> tuple[str, str]:
    """Operation and action."""
    if setting and method in _VERBS:
        operation, action = _SETTINGS[setting]
        verb = "Put" if method == "DELETE" and setting in _DELETE_IS_PUT else _VERBS[method]
        operation = operation.removesuffix("Configuration") if method == "DELETE" else operation
        return _VERBS[method] + operation, f"s3:{verb}{action}"
    for name, (operation, action) in _LISTINGS.items():
        if name in names and method == "GET":
            return operation, f"s3:{action}"
    match method:
        case "GET":
            return ("ListObjectsV2" if names.get("list-type") == "2" else "ListObjects"), "s3:ListBucket"
        case "HEAD":
            return "HeadBucket", "s3:ListBucket"
        case "PUT":
            return "CreateBucket", "s3:CreateBucket"
        case "DELETE":
            return "DeleteBucket", "s3:DeleteBucket"
        case "POST" if "delete" in names:
            return "DeleteObjects", ""
    return "", ""


def _of_object(  # noqa: PLR0911 - one per kind of request
    method: str, names: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Operation and actions."""
    version = "Version" if "versionId" in names else ""
    for name, what in _OBJECT_PARTS.items():
        if name in names and method in _VERBS:
            return f"{_VERBS[method]}Object{what}", (f"s3:{_VERBS[method]}Object{version}{what}",)
    match method:
        case "GET" if "uploadId" in names:
            return "ListParts", ("s3:ListMultipartUploadParts",)
        case "GET" if "attributes" in names:
            return "GetObjectAttributes", (f"s3:GetObject{version}Attributes", f"s3:GetObject{version}")
        case "GET" | "HEAD":
            return f"{method.title()}Object", (f"s3:GetObject{version}",)
        case "PUT" if "uploadId" in names:
            return ("UploadPartCopy" if "x-amz-copy-source" in headers else "UploadPart"), ("s3:PutObject",)
        case "PUT":
            operation = "CopyObject" if "x-amz-copy-source" in headers else "PutObject"
            both = "if-match" in headers  # which tells something about what is there
            return operation, ("s3:PutObject", "s3:GetObject") if both else ("s3:PutObject",)
        case "POST" if "uploads" in names:
            return "CreateMultipartUpload", ("s3:PutObject",)
        case "POST" if "uploadId" in names:
            return "CompleteMultipartUpload", ("s3:PutObject",)
        case "DELETE" if "uploadId" in names:
            return "AbortMultipartUpload", ("s3:AbortMultipartUpload",)
        case "DELETE":
            return "DeleteObject", (f"s3:DeleteObject{version}",)
    return "", ()
