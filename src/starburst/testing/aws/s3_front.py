"""The simulated S3: checks who asks for what, then lets SeaweedFS (objects) or moto (settings of buckets) answer.

A process of its own, so that object traffic and the control plane do not wait for each other:
``python -m starburst.testing.aws.s3_front CONFIGURATION``. It prints its port, and ends with its standard input.
What it knows of the account it asks of the simulator's process (see :mod:`.s3_facts`).

Failures on request (``SimulatedAws.fail("s3:PutObject", KIND)``): ``denied``, ``expired``, ``throttle`` (503 SlowDown),
``conflict`` (409), ``server-error`` (500), ``lost-request`` (nothing is done, the connection is reset), ``lost-reply``
(it is done, the connection is reset), ``hide-missing`` (a missing object is answered as if the caller could not list).
"""

from __future__ import annotations

import asyncio
import http
import re
import resource
import sys
import threading
import urllib.parse
import xml.sax.saxutils
from collections import Counter, deque
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from starburst.testing.aws.iam import Access, Decision
from starburst.testing.aws.s3_errors import error
from starburst.testing.aws.s3_facts import Bucket, Caller, Changes, Facts
from starburst.testing.aws.s3_http import Client, Cut, Forward, Request, Serve, Verdict
from starburst.testing.aws.s3_request import Asked, read_request
from starburst.testing.aws.s3_upstream import Address, Reply, Upstream, ask
from starburst.testing.aws.sigv4 import Signature, read_signature

__all__ = ["COUNTS", "KINDS", "Configuration", "S3Front"]

COUNTS = "/_counts"
"""Where the front tells how many requests it has passed on; no bucket can have this name."""
LOST = "PutObject 412"
"""Counts the conditional writes that another one had won."""

_SCRIPTED = {
    "denied": "AccessDenied",
    "expired": "ExpiredToken",
    "throttle": "SlowDown",
    "conflict": "ConditionalRequestConflict",
    "server-error": "InternalError",
}
KINDS = (*_SCRIPTED, "lost-request", "lost-reply", "hide-missing")
"""Of failures on request."""
_CONDITIONS = frozenset({"if-match", "if-none-match"})
_READS = {"GET", "HEAD"}
_AWS_CHUNKED = re.compile(r"\s*aws-chunked\s*,?\s*")
_SIGNED_CHUNKS = "STREAMING-AWS4-"
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_OBJECT = re.compile(rb"<Object>.*?</Object>", re.DOTALL)
_SIZES = frozenset({"content-length", "content-md5"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the front is started with.

    Attributes:
        account: Its number.
        partition: ``aws``, or another for ARNs.
        control_host: Of the simulator's control server.
        control_port: Of the simulator's control server.
        changes: The file of :class:`Changes`.
    """

    account: str
    partition: str
    control_host: str
    control_port: int
    changes: str


class S3Front:
    """Judges requests."""

    def __init__(self, configuration: Configuration, facts: Facts, upstream: Upstream) -> None:
        self._account = configuration.account
        self._partition = configuration.partition
        self._facts = facts
        self._upstream = upstream
        self._counts: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def judge(self, request: Request) -> Verdict | Awaitable[Verdict]:
        """What becomes of a request; at once if nothing has to be asked."""
        if request.target == COUNTS:
            return Reply(200, msgspec.json.encode(self._counts))
        asked = read_request(request.method, request.target, request.headers, partition=self._partition)
        signature = read_signature(request.headers, asked.query)
        if signature is None:
            return error("AccessDenied", asked)
        if asked.operation and not asked.is_configuration:
            self._counts[asked.operation] += 1  # the control plane counts the others
        known = self._facts.known(signature.access_key, asked.bucket)
        if known is None or self._facts.scripted:
            return self._judge_later(request, asked, signature)
        refusal = self._judge(request, asked, signature, *known)
        return refusal or self._in_turn(request, asked, self._pass(request, asked, *known))

    async def _judge_later(self, request: Request, asked: Asked, signature: Signature) -> Verdict:
        caller, bucket = await self._facts.find(signature.access_key, asked.bucket)
        self._upstream.address = self._facts.store
        if caller is None:
            return error("InvalidAccessKeyId", asked)
        refusal = self._judge(request, asked, signature, caller, bucket)
        if refusal is not None:
            return refusal if isinstance(refusal, Reply) else await refusal
        verdict = self._pass(request, asked, caller, bucket)
        if self._facts.scripted:
            where = {"caller": caller.name, "bucket": asked.bucket, "key": asked.key}
            said = await self._facts.tell("script", {"operation": asked.operation, **where})
            verdict = _scripted(said["kind"], asked, verdict)
        found = self._in_turn(request, asked, verdict)
        return found if isinstance(found, Reply | Forward | Serve | Cut) else await found

    def _in_turn(self, request: Request, asked: Asked, verdict: Verdict) -> Verdict | Awaitable[Verdict]:
        """Conditional writes of one object go to the store one after the other.

        It decides them rightly by itself, but lets those that meet each other wait for whole seconds.
        """
        if (
            not isinstance(verdict, Forward)
            or _CONDITIONS.isdisjoint(request.headers)
            or request.method == "GET"
        ):
            return verdict
        place = f"{asked.bucket}/{asked.key}"
        waiting = self._waiting.get(place)
        verdict = replace(verdict, done=lambda status: self._next_turn(place, status))
        if waiting is None:
            self._waiting[place] = deque()
            return verdict
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)

        async def wait() -> Verdict:
            await turn
            return verdict

        return wait()

    def _next_turn(self, place: str, status: int) -> None:
        if status == http.HTTPStatus.PRECONDITION_FAILED:
            self._counts[LOST] += 1
        waiting = self._waiting[place]
        if waiting:
            waiting.popleft().set_result(None)
        else:
            del self._waiting[place]

    def _judge(
        self, request: Request, asked: Asked, signature: Signature, caller: Caller, bucket: Bucket | None
    ) -> Reply | Awaitable[Reply] | None:
        """Why a request is refused; None if it is not."""
        refusal = self._why_not_signed(request, asked, signature, caller) or self._why_not_such(
            request, asked, bucket, signature.region
        )
        if refusal is not None:
            return refusal
        for access in asked.accesses:
            decision = self._decide(caller, bucket, access)
            if decision is not Decision.ALLOWED:
                return self._deny(asked, caller, access, decision)
        return None

    def _why_not_signed(
        self, request: Request, asked: Asked, signature: Signature, caller: Caller
    ) -> Reply | None:
        if signature.token != caller.token:
            return error("InvalidToken", asked)
        presigned = signature.expires_s is not None
        good = signature.matches(
            caller.secret,
            method=request.method,
            path=request.target.partition("?")[0],
            query=asked.query,
            headers=request.headers,
            payload_sha256="UNSIGNED-PAYLOAD"
            if presigned
            else request.headers.get("x-amz-content-sha256", ""),
        )
        if not good:
            return error("SignatureDoesNotMatch", asked)
        if signature.expired(datetime.now(UTC)):
            return error("AccessDenied", asked, "Request has expired")
        if request.headers.get("x-amz-content-sha256", "").startswith(_SIGNED_CHUNKS):
            return error("NotImplemented", asked)
        return None

    def _why_not_such(
        self, request: Request, asked: Asked, bucket: Bucket | None, region: str
    ) -> Reply | None:
        if not asked.operation:
            return error("MethodNotAllowed", asked)
        if not asked.bucket or asked.operation == "CreateBucket":
            return None
        if bucket is None:
            return error("NoSuchBucket", asked)
        expected = request.headers.get("x-amz-expected-bucket-owner", bucket.account)
        if bucket.account != self._account or expected != bucket.account:
            return error("AccessDenied", asked)
        if bucket.region != region and asked.operation != "GetBucketLocation":
            said = error("PermanentRedirect", asked)
            return replace(said, headers=(*said.headers, ("x-amz-bucket-region", bucket.region)))
        return None

    def _decide(self, caller: Caller, bucket: Bucket | None, access: Access) -> Decision:
        if bucket is not None:
            return bucket.decide(caller, access)
        return caller.grants.decide(access) if caller.grants else Decision.ALLOWED

    async def _deny(self, asked: Asked, caller: Caller, access: Access, decision: Decision) -> Reply:
        await self._facts.tell(
            "denied", {"caller": caller.name, "action": access.action, "resource": access.resource}
        )
        because = "with an explicit deny in a policy"
        if decision is Decision.UNMENTIONED:
            because = f"because no identity-based policy allows the {access.action} action"
        message = (
            f"User: {caller.arn} is not authorized to perform: {access.action} "
            f'on resource: "{access.resource}" {because}'
        )
        return error("AccessDenied", asked, message)

    def _pass(self, request: Request, asked: Asked, caller: Caller, bucket: Bucket | None) -> Verdict:
        """Let it be answered, by whoever can."""
        if asked.operation == "HeadBucket" and bucket is not None:
            return Reply(200, headers=(("x-amz-bucket-region", bucket.region),))
        if asked.is_configuration:
            return Serve(lambda body: self._configure(request, asked, body))
        forward = self._forward(request, asked)
        if asked.operation == "DeleteObjects":
            return Serve(lambda body: self._delete(request, asked, caller, bucket, body))
        if asked.hides_missing and caller.grants is not None:
            # Which s3:prefix AWS sees in this implicit check is not documented; the key is the likely one.
            listing = Access(
                "s3:ListBucket", f"arn:{self._partition}:s3:::{asked.bucket}", {"s3:prefix": asked.key}
            )
            if self._decide(caller, bucket, listing) is not Decision.ALLOWED:
                return replace(forward, instead_of_missing=error("AccessDenied", asked))
        return forward

    def _forward(self, request: Request, asked: Asked) -> Forward:
        target, drop = "", frozenset[str]()
        if "X-Amz-Signature=" in request.target:
            kept = [(name, value) for name, value in asked.query if not name.startswith("X-Amz-")]
            path = request.target.partition("?")[0]
            target = f"{path}?{urllib.parse.urlencode(kept)}" if kept else path
        encoding = request.headers.get("content-encoding", "")
        if "aws-chunked" in encoding:  # how it travels; S3 does not keep that with the object
            drop = frozenset({"content-encoding"})
            rest = _AWS_CHUNKED.sub("", encoding)
            if rest:
                request.lines.append(("x-rest", f"Content-Encoding: {rest}".encode("latin-1")))
        return Forward(request.head(target=target, drop=drop))

    async def _configure(self, request: Request, asked: Asked, body: bytes) -> Reply:
        """Settings are moto's; a bucket is made and removed in the store, too."""
        bare = f" /{asked.bucket} HTTP/1.1\r\nHost: store\r\nContent-Length: 0\r\n\r\n"
        store = self._facts.store
        if asked.operation == "DeleteBucket":
            head = f"GET /{asked.bucket}?list-type=2&max-keys=1 HTTP/1.1\r\nHost: store\r\n\r\n"
            if b"<Contents>" in (await ask(store, head.encode())).body:
                return error("BucketNotEmpty", asked)
        reply = await ask(self._facts.configuration, request.head(intact=True), body)
        if reply.status < 300:
            if asked.operation in {"CreateBucket", "DeleteBucket"}:
                done = await ask(store, (request.method + bare).encode())
                if done.status >= 300 and done.status not in {404, 409}:
                    return done
            elif asked.operation == "PutBucketVersioning":
                await ask(store, request.head(), body)
        return reply

    async def _delete(
        self, request: Request, asked: Asked, caller: Caller, bucket: Bucket | None, body: bytes
    ) -> Reply:
        """DeleteObjects: each key for itself."""
        refused: list[bytes] = []
        allowed: list[bytes] = []
        for entry in _OBJECT.findall(body):
            found = _KEY.search(entry)
            key = xml.sax.saxutils.unescape(found[1].decode()) if found else ""
            action = "s3:DeleteObjectVersion" if b"<VersionId>" in entry else "s3:DeleteObject"
            access = Access(action, f"arn:{self._partition}:s3:::{asked.bucket}/{key}")
            decision = self._decide(caller, bucket, access)
            if decision is Decision.ALLOWED:
                allowed.append(entry)
                continue
            await self._deny(asked, caller, access, decision)
            code = b"<Code>AccessDenied</Code><Message>Access Denied</Message>"
            refused.append(b"<Error><Key>" + (found[1] if found else b"") + b"</Key>" + code + b"</Error>")
        quiet = b"<Quiet>true</Quiet>" if b"<Quiet>true</Quiet>" in body else b""
        content = b"<Delete>" + quiet + b"".join(allowed) + b"</Delete>"
        checks = {name for name in request.headers if name.startswith(("x-amz-checksum-", "x-amz-sdk-"))}
        request.lines.append(("x-new", b"Content-Length: %d" % len(content)))
        head = request.head(drop=frozenset(checks | _SIZES))
        reply = (
            await ask(self._facts.store, head, content)
            if allowed
            else Reply(200, b"<DeleteResult></DeleteResult>")
        )
        end = b"</DeleteResult>"
        if reply.status != 200 or end not in reply.body:
            return reply
        return replace(reply, body=reply.body.replace(end, b"".join(refused) + end))


def _scripted(kind: str, asked: Asked, verdict: Verdict) -> Verdict:
    """What a failure on request makes of a request that would go well."""
    if kind in _SCRIPTED:
        return error(_SCRIPTED[kind], asked)
    if kind == "lost-request":
        return Cut()
    if kind == "lost-reply":
        return _without_reply(verdict)
    if kind == "hide-missing" and isinstance(verdict, Forward):
        return replace(verdict, instead_of_missing=error("AccessDenied", asked))
    return verdict


def _without_reply(verdict: Verdict) -> Verdict:
    if isinstance(verdict, Forward):
        return replace(verdict, lose_reply=True)
    if isinstance(verdict, Serve):

        async def silent(body: bytes) -> None:
            await verdict.answer(body)

        return Serve(silent)
    return Cut()


async def _serve(configuration: Configuration) -> None:
    upstream = Upstream()
    control: Address = (configuration.control_host, configuration.control_port)
    front = S3Front(configuration, Facts(control, Changes(Path(configuration.changes))), upstream)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(front.judge, upstream), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.buffer.read()  # until the simulator closes it, or is no more
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


def main() -> None:
    """Serve until standard input is closed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # hundreds of workers, two connections each
    asyncio.run(_serve(msgspec.json.decode(sys.argv[1], type=Configuration)))


if __name__ == "__main__":
    main()
