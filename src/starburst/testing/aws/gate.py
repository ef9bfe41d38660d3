"""Who may do what in the control plane: credentials, signatures, policies; and the parts that belong to it.

The account's owner (the access key of ``SimulatedAws.environment``) may do everything. Roles, also through STS, and
users with access keys may do what their documents in IAM allow. ``fail(OPERATION, "expired")`` makes credentials look
expired, with ``caller=NAME`` only those of one role or user.
"""

from __future__ import annotations

import hashlib
import urllib.parse
from typing import TYPE_CHECKING

from starburst.testing.aws.control import Reply
from starburst.testing.aws.iam import Access, Decision, Policy, PolicyError, decide
from starburst.testing.aws.identities import Identities, Identity
from starburst.testing.aws.permissions import accesses
from starburst.testing.aws.s3 import S3
from starburst.testing.aws.sigv4 import read_signature

if TYPE_CHECKING:
    from starburst.testing.aws.front import Answer, Call
    from starburst.testing.aws.world import World

__all__ = ["install"]

_ALWAYS = {"sts:GetCallerIdentity", "sts:GetSessionToken"}


def install(world: World) -> None:
    """Start S3, and check everything that reaches the control plane."""
    identities = Identities(world)
    s3 = S3(world, identities)
    world.credentials_for = identities.credentials_for
    # What is not allowed is refused before anything else looks at it.
    world.front.filters.insert(0, _Gate(world, identities, s3.denials))
    world.control.route("/verbs/denials", lambda _request: Reply(s3.denials))


class _Gate:
    def __init__(self, world: World, identities: Identities, denials: list[tuple[str, str, str]]) -> None:
        self._world = world
        self._identities = identities
        self._denials = denials

    def __call__(self, call: Call) -> Answer | None:
        if not call.access_key or call.service == "s3":
            return None  # S3 has an endpoint of its own, which has checked it
        identity = self._identities.find(call.access_key)
        if identity is None:
            return _unknown(call)
        try:
            return self._authenticate(call, identity) or self._check(call, identity)
        except PolicyError as error:
            return call.error("AccessDenied", f"The policies of {identity.arn}: {error}", status=403)

    def _authenticate(self, call: Call, identity: Identity) -> Answer | None:
        environ = call.environ
        headers = {
            name[5:].lower().replace("_", "-"): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        headers["content-length"] = environ.get("CONTENT_LENGTH", "")
        raw_path, _, raw_query = str(environ.get("RAW_URI", "/")).partition("?")
        query = urllib.parse.parse_qsl(raw_query, keep_blank_values=True)
        signature = read_signature(headers, query)
        if signature is None:
            return None
        if signature.token != identity.token:
            return _unknown(call)
        good = signature.matches(
            identity.secret,
            method=environ["REQUEST_METHOD"],
            path=urllib.parse.quote(raw_path, safe="/-_.~"),
            query=query,
            headers=headers,
            payload_sha256=hashlib.sha256(call.body).hexdigest(),
        )
        if not good:
            return _mismatch(call)
        expired = self._world.scripts.take(call.action, "expired", caller=identity.name)
        return _expired(call) if expired else None

    def _check(self, call: Call, identity: Identity) -> Answer | None:
        grants = self._identities.grants(identity)
        if grants is not None and call.action not in _ALWAYS:
            for access in accesses(call, identity, self._identities.partition):
                decision = grants.decide(access)
                if decision is not Decision.ALLOWED:
                    return self._deny(call, identity, access, decision)
        if call.action == "sts:AssumeRole":
            return self._check_trust(call, identity)
        return None

    def _check_trust(self, call: Call, identity: Identity) -> Answer | None:
        """A role's own document says who may take it on."""
        arn = str(call.parameters.get("RoleArn", ""))
        given = call.parameters.get("ExternalId")
        access = Access("sts:AssumeRole", arn, {"sts:ExternalId": str(given)} if given else {})
        role = self._identities.role(arn)
        if role is not None:
            trust = Policy.parse(role.assume_role_policy_document)
            if decide([trust], access, principal=identity.arn) is Decision.ALLOWED:
                return None
        return self._deny(call, identity, access, Decision.UNMENTIONED, of="resource-based")

    def _deny(
        self,
        call: Call,
        identity: Identity,
        access: Access,
        decision: Decision,
        *,
        of: str = "identity-based",
    ) -> Answer:
        self._denials.append((identity.name, access.action, access.resource))
        because = f"with an explicit deny in an {of} policy"
        if decision is Decision.UNMENTIONED:
            because = f"because no {of} policy allows the {access.action} action"
        resource = "" if access.resource == "*" else access.resource
        return call.denied(identity.arn, resource, action=access.action, because=because)


_NOT_VALIDATED = "AWS was not able to validate the provided access credentials"


def _unknown(call: Call) -> Answer:
    return call.refused(
        ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"),
        "The security token included in the request is invalid.",
        ec2_message=_NOT_VALIDATED,
        ec2_status=401,
    )


def _expired(call: Call) -> Answer:
    return call.refused(
        ("RequestExpired", "ExpiredToken", "ExpiredTokenException"),
        "The security token included in the request is expired",
        ec2_message="Request has expired.",
    )


def _mismatch(call: Call) -> Answer:
    return call.refused(
        ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"),
        "The request signature we calculated does not match the signature you provided.",
        ec2_message=_NOT_VALIDATED,
        ec2_status=401,
    )
