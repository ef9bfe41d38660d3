"""What the S3 endpoint knows of the account: who holds a key, whose a bucket is. Asked once, forgotten on any change.

The simulator's process counts its changes in a few shared bytes, so that looking whether something has changed costs
nothing, and what was answered before a change is never used after it.
"""

from __future__ import annotations

import json
import mmap
import struct
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starburst.testing.aws.iam import Access, Decision, Grants, Policy, decide
from starburst.testing.aws.s3_upstream import Address, ask

__all__ = ["Bucket", "Caller", "Changes", "Facts"]


class Changes:
    """A counter in a file that two processes have mapped."""

    _NUMBER = struct.Struct("=Q")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self._NUMBER.size))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), self._NUMBER.size)

    def count(self) -> int:
        """How many changes there were."""
        number: int = self._NUMBER.unpack_from(self._bytes)[0]
        return number

    def bump(self) -> None:
        """One more; the caller holds the world's lock."""
        self._NUMBER.pack_into(self._bytes, 0, self.count() + 1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds an access key.

    Attributes:
        secret: The secret that belongs to it.
        token: The session token that belongs to it; empty for keys of users.
        arn: The principal.
        name: Of the role or user.
        grants: What it may do; None for everything.
    """

    secret: str
    token: str
    arn: str
    name: str
    grants: Grants | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of any account.

    Attributes:
        account: Its owner.
        region: Where it is.
        policy: Its own document.
    """

    account: str
    region: str
    policy: Policy | None

    def decide(self, caller: Caller, access: Access) -> Decision:
        """What the caller's and the bucket's documents say together; for callers of the owner's account."""
        of_bucket = Decision.UNMENTIONED
        if self.policy is not None:
            of_bucket = decide([self.policy], access, principal=caller.arn)
        if of_bucket is Decision.DENIED:
            return of_bucket
        own = caller.grants.decide(access) if caller.grants else Decision.ALLOWED
        return of_bucket if own is Decision.UNMENTIONED else own


class Facts:
    """Answers of the simulator's process.

    Attributes:
        control: Address of its control server.
        store: Address of the object store.
        configuration: Address of what answers about buckets.
        scripted: Whether failures are asked for that S3 could show.
    """

    def __init__(self, control: Address, changes: Changes) -> None:
        self.control = control
        self.store: Address = ("127.0.0.1", 0)
        self.configuration: Address = ("127.0.0.1", 0)
        self.scripted = False
        self._changes = changes
        self._seen = -1
        self._callers: dict[str, Caller] = {}
        self._buckets: dict[str, Bucket] = {}

    def known(self, access_key: str, bucket: str) -> tuple[Caller, Bucket | None] | None:
        """Caller and bucket, if nothing has to be asked."""
        count = self._changes.count()
        if count != self._seen:
            self._seen = count
            self._callers.clear()
            self._buckets.clear()
        caller = self._callers.get(access_key)
        found = self._buckets.get(bucket)
        return None if caller is None or (bucket and found is None) else (caller, found)

    async def find(self, access_key: str, bucket: str) -> tuple[Caller | None, Bucket | None]:
        """Caller and bucket; None for what does not exist."""
        known = self.known(access_key, bucket)
        if known is not None:
            return known
        found = await self.tell("facts", {"key": access_key, "bucket": bucket})
        self.store = _address(found["store"])
        self.configuration = _address(found["configuration"])
        self.scripted = found["scripted"]
        caller = _caller(found["caller"]) if found["caller"] else None
        place = _bucket(found["bucket"]) if found["bucket"] else None
        # What was asked before a change is good for this request, and for no later one.
        if found["changes"] == self._seen == self._changes.count():
            if caller is not None:
                self._callers[access_key] = caller
            if place is not None:
                self._buckets[bucket] = place
        return caller, place

    async def tell(self, verb: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Ask the simulator's process, or tell it something."""
        body = json.dumps(parameters).encode()
        head = f"POST /s3/{verb} HTTP/1.1\r\nHost: {self.control[0]}\r\nContent-Length: {len(body)}\r\n\r\n"
        reply = await ask(self.control, head.encode(), body)
        if reply.status != 200:
            raise RuntimeError(f"the simulator answered {reply.status} to {verb}: {reply.body[:500]!r}")
        answer: dict[str, Any] = json.loads(reply.body)
        return answer


def _caller(found: dict[str, Any]) -> Caller:
    grants = None if found["documents"] is None else Grants.parse(found["documents"])
    return Caller(found["secret"], found["token"], found["arn"], found["name"], grants)


def _bucket(found: dict[str, Any]) -> Bucket:
    policy = Policy.parse(found["policy"]) if found["policy"] else None
    return Bucket(found["account"], found["region"], policy)


def _address(endpoint: str) -> Address:
    parts = urllib.parse.urlsplit(endpoint)
    return parts.hostname or "", parts.port or 0
