"""Verification of AWS's request signatures (version 4), in headers and in presigned addresses."""

from __future__ import annotations

import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

__all__ = ["Signature", "read_signature"]

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/(\d{8})/([^/,]*)/([^/,]+)/aws4_request\s*,"
    r"\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-f]+)"
)
_CREDENTIAL = re.compile(r"([^/]+)/(\d{8})/([^/]*)/([^/]+)/aws4_request")
_UNRESERVED = "-_.~"
_SPACES = re.compile(r"\s+")

Query = list[tuple[str, str]]
"""Decoded names and values."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed a request, and for what.

    Attributes:
        access_key: Whose key.
        day: YYYYMMDD.
        region: That it was signed for.
        service: That it was signed for.
        signed_headers: Their names, in lower case.
        value: The signature itself.
        moment: When it was signed, as it stands in the request.
        token: The session token; empty for keys of users.
        expires_s: How long a presigned address is good; None for headers.
    """

    access_key: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    value: str
    moment: str
    token: str
    expires_s: int | None = None

    def matches(
        self,
        secret: str,
        *,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        payload_sha256: str,
    ) -> bool:
        """Whether it was made with this secret, for this request.

        Args:
            secret: The secret key.
            method: GET, PUT …
            path: As it was signed: for S3 as on the wire, for other services percent-encoded once more.
            query: All parameters of the address.
            headers: Names in lower case.
            payload_sha256: The body's hash in hexadecimal digits, or what stands for it.
        """
        pairs = sorted((_quoted(name), _quoted(value)) for name, value in query if name != "X-Amz-Signature")
        canonical = "\n".join(
            (
                method,
                path or "/",
                "&".join(f"{name}={value}" for name, value in pairs),
                *(
                    f"{name}:{_SPACES.sub(' ', headers.get(name, '')).strip()}"
                    for name in self.signed_headers
                ),
                "",
                ";".join(self.signed_headers),
                payload_sha256,
            )
        )
        digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
        scope = f"{self.day}/{self.region}/{self.service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{self.moment}\n{scope}\n{digest}"
        key = _signing_key(secret, self.day, self.region, self.service)
        return hmac.compare_digest(_hmac(key, text).hex(), self.value)

    def expired(self, now: datetime) -> bool:
        """Whether a presigned address is not good any more."""
        if self.expires_s is None:
            return False
        signed = datetime.strptime(self.moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return now >= signed + timedelta(seconds=self.expires_s)


def read_signature(headers: Mapping[str, str], query: Query) -> Signature | None:
    """The signature of a request; None if there is none."""
    found = _AUTHORIZATION.match(headers.get("authorization", ""))
    if found:
        key, day, region, service, names, value = found.groups()
        moment = headers.get("x-amz-date") or headers.get("date", "")
        token = headers.get("x-amz-security-token", "")
        return Signature(key, day, region, service, tuple(names.split(";")), value, moment, token)
    given = dict(query)
    credential = _CREDENTIAL.fullmatch(given.get("X-Amz-Credential", ""))
    if credential is None:
        return None
    key, day, region, service = credential.groups()
    return Signature(
        key,
        day,
        region,
        service,
        tuple(given.get("X-Amz-SignedHeaders", "host").split(";")),
        given.get("X-Amz-Signature", ""),
        given.get("X-Amz-Date", ""),
        given.get("X-Amz-Security-Token", ""),
        int(given.get("X-Amz-Expires", "0")),
    )


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe=_UNRESERVED)


@lru_cache(maxsize=256)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
