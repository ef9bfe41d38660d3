"""What a registry's refusals mean, and what to do about them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from starburst.errors import EnvironmentBuildError

__all__ = ["Refusal", "refused", "unreachable"]

_AGAIN = "try again; what has been sent is not sent again"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not what was asked for.

    Attributes:
        status: HTTP's number.
        code: The registry's own, such as ``NAME_UNKNOWN``; empty if it gives none.
        message: Its words.
    """

    status: int
    code: str = ""
    message: str = ""

    @classmethod
    def of(cls, status: int, data: bytes) -> Refusal:
        """Read the answer's body, if it is one that the distribution API specifies."""
        try:
            first = json.loads(data)["errors"][0]
            return cls(status, str(first.get("code", "")), str(first.get("message", "")))
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls(status, "", data[:200].decode(errors="replace").strip())

    @property
    def tag_is_taken(self) -> bool:
        """Whether the tag exists and may not be moved."""
        text = f"{self.code} {self.message}".lower()
        return self.status in (400, 403, 409) and ("immutable" in text or "already exists" in text)

    def __str__(self) -> str:
        said = f"{self.code}: {self.message}".strip(": ")
        return f"HTTP {self.status}{f', {said}' if said else ''}"


def refused(host: str, repository: str, doing: str, refusal: Refusal) -> EnvironmentBuildError:
    """The error for an answer that trying again does not mend."""
    return EnvironmentBuildError(
        f"the registry {host} refuses {doing} in {repository}: {refusal}", hint=_way_out(host, refusal)
    )


def unreachable(host: str, doing: str, reason: str) -> EnvironmentBuildError:
    """The error for no answer, or for too many that said "later"."""
    if "429" in reason or "TOOMANYREQUESTS" in reason:
        hint = "wait some minutes, or take a base image from a registry without such a limit"
    elif "certificate" in reason.lower():
        hint = "if a proxy of your network signs its own certificates, name its authority: SSL_CERT_FILE"
    elif "HTTP 5" in reason:
        hint = _AGAIN
    else:
        hint = f"check the network, HTTPS_PROXY and the registry's name, then {_AGAIN}"
    return EnvironmentBuildError(f"the registry {host} could not be asked {doing}: {reason}", hint=hint)


def _way_out(host: str, refusal: Refusal) -> str:
    text = f"{refusal.code} {refusal.message}".lower()
    if refusal.status == 401 or "expired" in text:
        ecr = "its token is refused or has expired: check `aws sts get-caller-identity`, then try again"
        other = f"check the user name and password for {host}; a token may have expired"
    elif refusal.status == 404 or refusal.code in ("NAME_UNKNOWN", "NAME_INVALID"):
        ecr = "make the repository: starburst setup"
        other = "check the image's name, and that these credentials may see it"
    elif refusal.status == 429 or any(word in text for word in ("limit", "quota", "toomanyrequests")):
        ecr = other = "remove images that are not needed any more: starburst env prune"
    elif refusal.status == 403 or refusal.code == "DENIED":
        ecr = "the credentials lack a permission for this repository: see docs/aws.md"
        other = f"check that this user of {host} may do that"
    else:
        ecr = other = _AGAIN
    return ecr if ".dkr.ecr." in host else other
