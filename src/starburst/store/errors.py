"""Failures of folders, of obstore and of the AWS SDK, mapped to starburst's own tree.

The tables below are the whole mapping. Foreign classes stand in them by name, so that nothing is imported
for a store that is not used.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starburst.errors import (
    AccessDenied,
    InvalidStoreURL,
    ObjectNotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CreateConflict", "http_status", "mapped", "store_error"]


class CreateConflict(StoreUnavailable):
    """The store has not decided between racing writers, and has surely not taken ours: try again."""


_Row = tuple[type[StoreError], str | None]

_PERMISSION = "check the permissions of that folder, or choose another store with --store"
_SPACE = "free some space there (`starburst cleanup --all-finished`), or choose another store"
_CREDENTIALS = "`aws sts get-caller-identity` shows whose credentials are used; `aws configure` sets them"
_POLICY = "the role or user needs s3:GetObject, PutObject, DeleteObject and ListBucket on this bucket"
_BUCKET = "check the name, or make it: `aws s3 mb s3://NAME`"
_REGION = "set AWS_REGION to the region of the bucket"
_LATER = "check the network and the endpoint, then try again"

BY_ERRNO: dict[int, _Row] = {
    errno.ENOENT: (ObjectNotFound, None),
    errno.ENOTDIR: (ObjectNotFound, None),
    errno.EISDIR: (ObjectNotFound, None),
    errno.EACCES: (AccessDenied, _PERMISSION),
    errno.EPERM: (
        AccessDenied,
        "use a folder you own, on a file system that has hard links (not FAT or exFAT)",
    ),
    errno.EROFS: (AccessDenied, _PERMISSION),
    errno.ENOSPC: (StoreFull, _SPACE),
    errno.EDQUOT: (StoreFull, _SPACE),
    errno.EFBIG: (StoreFull, "the file size limit was reached: see `ulimit -f`"),
    errno.ETIMEDOUT: (StoreUnavailable, _LATER),
    errno.ECONNRESET: (StoreUnavailable, _LATER),
    errno.ECONNREFUSED: (StoreUnavailable, _LATER),
    errno.ESTALE: (StoreUnavailable, _LATER),
    errno.EAGAIN: (StoreUnavailable, _LATER),
    errno.EMFILE: (StoreUnavailable, "too many open files in this process: raise `ulimit -n`"),
    errno.ENFILE: (StoreUnavailable, _LATER),
}

BY_CODE: dict[str, _Row] = {
    "NoSuchBucket": (InvalidStoreURL, _BUCKET),
    "InvalidBucketName": (InvalidStoreURL, _BUCKET),
    "PermanentRedirect": (InvalidStoreURL, _REGION),
    "AuthorizationHeaderMalformed": (InvalidStoreURL, _REGION),
    "IllegalLocationConstraintException": (InvalidStoreURL, _REGION),
    "AccessDenied": (AccessDenied, _POLICY),
    "AllAccessDisabled": (AccessDenied, _POLICY),
    "InvalidAccessKeyId": (AccessDenied, _CREDENTIALS),
    "SignatureDoesNotMatch": (AccessDenied, _CREDENTIALS),
    "InvalidToken": (AccessDenied, _CREDENTIALS),
    "ExpiredToken": (AccessDenied, "the session has expired: `aws sso login`, or renew the credentials"),
    "RequestTimeTooSkewed": (AccessDenied, "this machine's clock is wrong: set it"),
    "EntityTooLarge": (StoreError, "an object may have 5 GB at most: use smaller arguments or results"),
    "QuotaExceeded": (StoreFull, _SPACE),
    "XMinioStorageFull": (StoreFull, _SPACE),
}

BY_STATUS: dict[int, _Row] = {
    301: (InvalidStoreURL, _REGION),
    401: (AccessDenied, _CREDENTIALS),
    403: (AccessDenied, _POLICY),
    404: (ObjectNotFound, None),
    408: (StoreUnavailable, _LATER),
    409: (CreateConflict, _LATER),
    429: (StoreUnavailable, _LATER),
    507: (StoreFull, _SPACE),
}

BY_CLASS: dict[str, _Row] = {
    # obstore; a GenericError without a status is a connection that failed or timed out
    "AlreadyExistsError": (StoreError, None),
    "BaseError": (StoreUnavailable, _LATER),
    "GenericError": (StoreUnavailable, _LATER),
    "InvalidPathError": (StoreError, None),
    "JoinError": (StoreUnavailable, _LATER),
    "NotFoundError": (ObjectNotFound, None),
    "NotModifiedError": (StoreError, None),
    "NotSupportedError": (StoreError, None),
    "PermissionDeniedError": (AccessDenied, _POLICY),
    "PreconditionError": (StoreError, None),
    "UnauthenticatedError": (AccessDenied, _CREDENTIALS),
    "UnknownConfigurationKeyError": (InvalidStoreURL, None),
    # Python and the AWS SDK
    "FileNotFoundError": (ObjectNotFound, None),
    "TimeoutError": (StoreUnavailable, _LATER),
    "ValueError": (StoreError, None),
    "ProfileNotFound": (AccessDenied, "`aws configure list-profiles` lists the profiles"),
    "BotoCoreError": (AccessDenied, _CREDENTIALS),
    "ClientError": (AccessDenied, _CREDENTIALS),
    "OSError": (StoreUnavailable, _LATER),
    "Exception": (StoreError, None),
}

_STATUS = re.compile(r"status code: (\d{3})|[Ss]tatus: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_INNER = re.compile(r'(?:message|error): "([^"]+)"')


def http_status(error: BaseException) -> int | None:
    """The HTTP status that obstore's error text tells of, or None if there was no answer."""
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None


def store_error(error: BaseException, *, verb: str, key: str, url: str) -> StoreError:
    """Our error for a foreign one; the foreign one should become its ``__cause__``.

    Args:
        error: What a folder, obstore or the AWS SDK raised.
        verb: What was being done: ``create``, ``get`` …
        key: To which object or prefix.
        url: In which store.
    """
    if isinstance(error, StoreError):
        return error
    (kind, hint), why = _row_for(error)
    if kind is ObjectNotFound and verb != "get":
        kind = StoreError
    if kind is ObjectNotFound:
        return ObjectNotFound(f"there is no object {key!r} in {url}")
    return kind(f"could not {verb} {key!r} in {url}: {why}", hint=hint)


@contextmanager
def mapped(verb: str, key: str, url: str) -> Iterator[None]:
    """Raise starburst's own error for whatever is raised inside."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise store_error(error, verb=verb, key=key, url=url) from error


def _row_for(error: BaseException) -> tuple[_Row, str]:
    """The row for an error and why it happened; what says most is asked first."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in BY_ERRNO:
        return BY_ERRNO[error.errno], (error.strerror or text)
    code, why = _code_and_reason(text)
    status = http_status(error)
    if code in BY_CODE:
        row = BY_CODE[code]
    elif "redirect without LOCATION" in text:
        row = BY_STATUS[301]
    elif status is not None:
        row = BY_STATUS.get(status) or ((StoreUnavailable, _LATER) if status >= 500 else (StoreError, None))
    else:
        row = next(BY_CLASS[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in BY_CLASS)
    return row, why


def _code_and_reason(text: str) -> tuple[str, str]:
    """S3's error code, and its message or obstore's without the dump of the inner error."""
    code, said = _CODE.search(text), _MESSAGE.search(text)
    if code is not None:
        return code[1], f"{code[1]}: {said[1]}" if said else code[1]
    outer, _, dump = text.partition("\n\nDebug source:")
    inner = _INNER.findall(dump)
    why = outer.strip().replace("\n", " ") or "it took too long"
    return "", f"{why} ({inner[-1]})" if inner else why
