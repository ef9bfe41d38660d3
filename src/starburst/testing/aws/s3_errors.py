"""Errors as S3 writes them."""

from __future__ import annotations

import xml.sax.saxutils

from starburst.testing.aws.s3_request import Asked
from starburst.testing.aws.s3_upstream import Reply

__all__ = ["error"]

_ERRORS = {
    "AccessDenied": (403, "Access Denied"),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "ConditionalRequestConflict": (
        409,
        "The conditional request cannot succeed due to a conflicting operation",
    ),
    "ExpiredToken": (400, "The provided token has expired."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented"),
    "PermanentRedirect": (
        301,
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    ),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
}


def error(code: str, asked: Asked, message: str = "") -> Reply:
    """The answer to a request that is refused."""
    status, text = _ERRORS[code]
    escape = xml.sax.saxutils.escape
    resource = escape(f"/{asked.bucket}/{asked.key}" if asked.key else f"/{asked.bucket}")
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{escape(message or text)}</Message><Resource>{resource}</Resource>"
        f"<RequestId>SIMULATED0000000</RequestId><BucketName>{escape(asked.bucket)}</BucketName></Error>"
    )
    return Reply(status, body.encode(), (("Content-Type", "application/xml"),))
