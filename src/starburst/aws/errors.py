"""The one place where AWS's errors become ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from starburst.errors import (
    CloudError,
    CloudUnavailable,
    CredentialsError,
    NotSetUp,
    PermissionDenied,
    QuotaExceeded,
)

__all__ = ["mapped", "to_cloud_error"]

_LOGIN = "run `aws sso login` or `aws configure`, or set AWS_PROFILE; `aws sts get-caller-identity` shows who you are"

_KINDS: dict[type[CloudError], tuple[str, ...]] = {
    CredentialsError: (
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "AuthFailure",
        "IncompleteSignature",
        "MissingAuthenticationToken",
    ),
    PermissionDenied: (
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "Forbidden",
        "403",
        "NotAuthorized",
    ),
    QuotaExceeded: (
        "LimitExceeded",
        "LimitExceededException",
        "VcpuLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "TooManyBuckets",
        "ServiceQuotaExceededException",
        "VpcLimitExceeded",
        "SecurityGroupLimitExceeded",
    ),
    CloudUnavailable: (
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "RequestThrottled",
        "SlowDown",
        "ServerException",
        "InternalFailure",
        "InternalError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "500",
        "502",
        "503",
        "504",
        "ConcurrentModification",
        "OperationAborted",
        "UpdateInProgressException",
        "ResourceInUseException",
        "ResourceContention",
        "ResourceContentionFault",
        "ResourceInUse",
        "ScalingActivityInProgress",
        "PendingVerification",
    ),
    NotSetUp: ("ClusterNotFoundException", "RepositoryNotFoundException", "NoSuchBucket"),
}
_BY_CODE = {code: kind for kind, codes in _KINDS.items() for code in codes}

_BLOCKED = (
    "AWS has blocked this account",
    (
        "AWS wrote why to the account's e-mail address; see the console: Billing, and Support Center. `aws sts "
        "get-caller-identity` shows which account it is"
    ),
)
_UNFINISHED = (
    "this AWS account is not activated for that service yet",
    (
        "finish the sign-up (payment method, telephone, support plan): https://portal.aws.amazon.com/billing/signup; "
        "a new account takes up to a day. `aws ec2 describe-regions` works when it is ready"
    ),
)
_VERIFIED = (
    "AWS is still verifying this account in that region",
    (
        "wait, and try the same again: it takes minutes, at most four hours, and AWS writes an e-mail; another "
        "region may work meanwhile"
    ),
)
_ACCOUNT: dict[str, tuple[str, str]] = {
    "AccountProblem": _BLOCKED,
    "Blocked": _BLOCKED,
    "BlockedException": _BLOCKED,
    "NotSignedUp": _UNFINISHED,
    "OptInRequired": _UNFINISHED,
    "SubscriptionRequiredException": _UNFINISHED,
    "PendingVerification": _VERIFIED,
}
"""Codes that tell of the account as a whole, often in its first days: what it means, and what to do."""

_HINTS: dict[type[CloudError], str] = {
    CredentialsError: _LOGIN,
    QuotaExceeded: "ask for fewer workers, or raise the quota: AWS console → Service Quotas",
    CloudUnavailable: "try again in a minute; https://health.aws.amazon.com shows whether AWS has trouble",
    NotSetUp: "starburst setup",
}


@contextmanager
def mapped(service: str, operation: str) -> Iterator[None]:
    """Let nothing of botocore pass: its errors become :class:`~starburst.errors.CloudError` or a child of it."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise to_cloud_error(error, service, operation) from error


def to_cloud_error(error: Exception, service: str, operation: str) -> CloudError:
    """Our error for one of botocore's.

    Args:
        error: A ``ClientError`` or ``BotoCoreError``.
        service: A name of boto3.
        operation: The client's method or the API's operation.
    """
    action = f"{service}:{_pascal(operation)}"
    answer = getattr(error, "response", None)
    if answer is None:
        return _no_answer(error, action)
    code = str(answer.get("Error", {}).get("Code", ""))
    text = str(answer.get("Error", {}).get("Message", "")).strip() or code
    if code not in _BY_CODE:
        code_from_status = str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        kind = _BY_CODE.get(code_from_status, CloudError) if code_from_status >= "500" else CloudError
    else:
        kind = _BY_CODE[code]
    if code in _ACCOUNT:
        what, hint = _ACCOUNT[code]
        return kind(f"{action} failed: {what} ({code}): {text}", hint=hint, code=code, operation=action)
    if kind is PermissionDenied:
        return kind(
            f"AWS does not permit {action}: {text}",
            hint=f"the credentials need {_needed(text, action)}; `starburst setup --print-policies` prints the "
            "policy to ask for",
            code=code,
            operation=action,
        )
    if kind is CredentialsError:
        return kind(f"AWS refuses the credentials ({code}): {text}", hint=_LOGIN, code=code, operation=action)
    return kind(f"{action} failed ({code}): {text}", hint=_HINTS.get(kind), code=code, operation=action)


def _no_answer(error: Exception, action: str) -> CloudError:
    name = type(error).__name__
    text = str(error)
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return CredentialsError(f"there are no AWS credentials: {text}", hint=_LOGIN, operation=action)
    if "SSO" in name or "Token" in name or name == "LoginRefreshRequired":
        return CredentialsError(f"the AWS sign-in has expired: {text}", hint=_LOGIN, operation=action)
    if name == "ProfileNotFound":
        return CredentialsError(
            f"{text}",
            hint="`aws configure list-profiles` lists them; set AWS_PROFILE or profile=",
            operation=action,
        )
    if name in ("NoRegionError", "InvalidRegionError"):
        return CredentialsError(
            f"no AWS region is set: {text}",
            hint='set AWS_REGION, region="us-east-1", or `starburst config set region us-east-1`',
            operation=action,
        )
    if name == "EndpointConnectionError" or "Timeout" in name or "Connection" in name:
        return CloudUnavailable(
            f"{action}: AWS does not answer: {text}",
            hint="check the network and the region's name; AWS_ENDPOINT_URL, if set, must be reachable",
            operation=action,
        )
    return CloudError(f"{action} failed: {text}", operation=action)


def _needed(text: str, action: str) -> str:
    """The permission that AWS names in "User … is not authorized to perform: ACTION on resource: …"."""
    found = re.search(r"not authorized to perform:? ([\w-]+:[\w*]+)(?: on resource:? (\S+))?", text)
    if not found:
        return action
    return f"{found[1]} on {found[2]}" if found[2] else found[1]


def _pascal(operation: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in operation.split("_"))
