"""The instance metadata service of hosts (IMDSv2), for tasks on them: who the host is, and whether Spot takes it.

Tasks find it through ``AWS_EC2_METADATA_SERVICE_ENDPOINT``, one address for each host.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.control import Reply, Request

if TYPE_CHECKING:
    from starburst.testing.aws.fleet import Fleet
    from starburst.testing.aws.hosts import Host
    from starburst.testing.aws.world import World

__all__ = ["install"]

_TTL = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "x-aws-ec2-metadata-token"  # noqa: S105 - the name of a header
_MAX_TTL_S = 21_600
_CREDENTIALS_S = 6 * 3600


class _Metadata:
    def __init__(self, world: World, fleet: Fleet) -> None:
        self._world = world
        self._fleet = fleet
        self._tokens: dict[str, tuple[str, float]] = {}

    def answer(self, request: Request) -> Reply:
        instance_id, _, path = request.path.partition("/")
        with self._world.lock:
            host = self._fleet.groups.hosts.get(instance_id)
            if host is None or host.terminated:
                return Reply("", 404)
            if request.method == "PUT" and path == "latest/api/token":
                return self._token(host, request)
            if not self._may_ask(host, request):
                return Reply("", 401)
            value = _values(host).get(path.removeprefix("latest/").rstrip("/"))
            if value is None:
                return self._credentials(host, path)
            found = value()
            return Reply("", 404) if found is None else Reply(found)

    def _token(self, host: Host, request: Request) -> Reply:
        ttl = request.headers.get(_TTL, "")
        if not ttl.isdigit() or not 1 <= int(ttl) <= _MAX_TTL_S:
            return Reply("", 400)
        token = uuid.uuid4().hex
        self._tokens[token] = (host.id, time.monotonic() + int(ttl))
        return Reply(token, headers={_TTL: ttl})

    def _may_ask(self, host: Host, request: Request) -> bool:
        token = request.headers.get(_TOKEN)
        if token is None:
            return bool(host.instance.metadata_options.http_tokens != "required")
        owner, until = self._tokens.get(token, ("", 0.0))
        return owner == host.id and time.monotonic() < until

    def _credentials(self, host: Host, path: str) -> Reply:
        """The keys of the instance's role."""
        prefix = "latest/meta-data/iam/security-credentials"
        role = _role_of(host, self._world.options.account)
        if not path.startswith(prefix) or role is None:
            return Reply("", 404)
        if path.removeprefix(prefix).strip("/") != role.name:
            return Reply(str(role.name))
        key, secret, token = self._world.credentials_for(role.arn)
        now = datetime.now(UTC)
        return Reply(
            {
                "Code": "Success",
                "LastUpdated": _stamp(now.timestamp()),
                "Type": "AWS-HMAC",
                "AccessKeyId": key,
                "SecretAccessKey": secret,
                "Token": token,
                "Expiration": _stamp(now.timestamp() + _CREDENTIALS_S),
            }
        )


def _values(host: Host) -> dict[str, Callable[[], str | None]]:
    instance = host.instance
    identity = {
        "accountId": instance.owner_id,
        "architecture": host.shape.architecture,
        "availabilityZone": host.zone,
        "imageId": instance.image_id,
        "instanceId": host.id,
        "instanceType": host.instance_type,
        "privateIp": instance.private_ip,
        "region": host.region,
        "version": "2017-09-30",
    }
    return {
        "meta-data/instance-id": lambda: host.id,
        "meta-data/instance-type": lambda: host.instance_type,
        "meta-data/instance-life-cycle": lambda: "spot" if host.spot else "on-demand",
        "meta-data/ami-id": lambda: str(instance.image_id),
        "meta-data/local-ipv4": lambda: str(instance.private_ip),
        "meta-data/placement/availability-zone": lambda: host.zone,
        "meta-data/placement/region": lambda: host.region,
        "meta-data/spot/instance-action": lambda: _action(host),
        "meta-data/spot/termination-time": lambda: _stamp(host.notice_at) if host.notice_at else None,
        "dynamic/instance-identity/document": lambda: json.dumps(identity),
    }


def _action(host: Host) -> str | None:
    if host.notice_at is None:
        return None
    return json.dumps({"action": "terminate", "time": _stamp(host.notice_at)})


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _role_of(host: Host, account: str) -> Any:
    from moto.iam.models import iam_backends

    given = host.instance.iam_instance_profile or {}
    name = given.get("Name") or str(given.get("Arn", "")).rpartition("/")[2]
    for profile in iam_backends[account]["aws"].instance_profiles.values():
        if profile.name == name and profile.roles:
            return profile.roles[0]
    return None


def install(world: World, fleet: Fleet) -> None:
    """Answer under ``/imds/``."""
    world.control.route("/imds/", _Metadata(world, fleet).answer)
