"""The bucket: private, encrypted, reached through TLS only, owned by the account whoever writes into it.

Nothing in it expires by age: a rule by age would take the objects of a session that is still alive. Sessions are
removed by ``cleanup``; the one lifecycle rule here clears away uploads that were never finished.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.policies import bucket_statement, document
from starburst.aws.resource import MISSING, Scope, State, ask, is_ours, make_sure_ours, same_json
from starburst.errors import CloudError, NotSetUp, OptionError, PermissionDenied

__all__ = ["Bucket", "check_bucket_name"]

_NAME = re.compile(r"(?!xn--|sthree-|amzn-s3-demo-)[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}(?<!-s3alias)[a-z0-9]")
_GONE = ("404", "NoSuchBucket")
_RULE: dict[str, Any] = {
    "ID": "starburst-unfinished-uploads",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
}
_BLOCKED = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
_EMPTYING_ROUNDS = 5


def check_bucket_name(name: str) -> None:
    """Refuse what cannot be a bucket's name.

    Raises:
        OptionError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} cannot be the name of a bucket: 3-63 small letters, digits, dots or hyphens",
            hint="starburst setup --bucket my-starburst-bucket",
        )


@dataclass(frozen=True, slots=True)
class Bucket:
    """Our bucket.

    Attributes:
        aws: Whose account.
        scope: Its name and region.
    """

    aws: Aws
    scope: Scope
    kind = "bucket"

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.scope.bucket

    @property
    def way_out(self) -> str:
        """Another name."""
        return "choose another name: starburst setup --bucket NAME"

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        try:
            head = await ask(self.aws, _GONE, "s3", "head_bucket", **self._whose())
        except PermissionDenied:
            return State(
                "foreign",
                ("it belongs to another account, or these credentials may not look at it (s3:ListBucket)",),
            )
        if head is None:
            return MISSING
        region = self._region_of(head)
        if region != self.scope.region:
            return State("foreign", (f"it is in {region}, not in {self.scope.region}",))
        if not await self._has_our_tag():
            return State("foreign")
        answers = await asyncio.gather(*(self._differs(part) for part in self._parts()))
        return State.of([what for what in answers if what], await self._warnings())

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "missing":
            await self._create()
        made = state.condition == "missing"
        for part in self._parts():
            if part.text in state.details or (made and await self._differs(part)):
                await part.set()

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`; with all objects and their versions."""
        if not (await self.state()).is_ours:
            return False
        for rest in reversed(range(_EMPTYING_ROUNDS)):
            await self._empty()
            try:
                await self.aws.call("s3", "delete_bucket", **self._whose())
            except CloudError as error:
                # Somebody still writes, or a listing was behind.
                if error.code != "BucketNotEmpty" or not rest:
                    raise
            else:
                break
        return True

    async def contents(self, *, at_most: int = 10_000) -> tuple[int, int]:
        """How many objects there are and their bytes, counted up to a limit."""
        n, size_bytes = 0, 0
        marker: dict[str, Any] = {}
        while n < at_most:
            page = await self.aws.call("s3", "list_objects_v2", **self._whose(), **marker)
            found = page.get("Contents", ())
            n, size_bytes = n + len(found), size_bytes + sum(each["Size"] for each in found)
            if not page.get("NextContinuationToken"):
                break
            marker = {"ContinuationToken": page["NextContinuationToken"]}
        return n, size_bytes

    async def region(self) -> str | None:
        """Where it is, whoever made it; None if it is not there or not to be seen."""
        try:
            head = await ask(self.aws, _GONE, "s3", "head_bucket", **self._whose())
        except PermissionDenied:
            return None
        return None if head is None else self._region_of(head)

    def _region_of(self, head: dict[str, Any]) -> str:
        return str(head.get("BucketRegion") or self.scope.region)

    def _whose(self) -> dict[str, Any]:
        return {"Bucket": self.name, "ExpectedBucketOwner": self.scope.account}

    async def _has_our_tag(self) -> bool:
        try:
            answer = await ask(self.aws, ("NoSuchTagSet",), "s3", "get_bucket_tagging", **self._whose())
        except PermissionDenied:
            return False
        return answer is not None and is_ours(answer["TagSet"])

    async def _create(self) -> None:
        # The tags go with the request, so that no bucket of ours is ever without.
        configuration: dict[str, Any] = {"Tags": self.scope.tag_list()}
        if self.scope.region != "us-east-1":
            configuration["LocationConstraint"] = self.scope.region
        try:
            await self.aws.call(
                "s3", "create_bucket", Bucket=self.name, CreateBucketConfiguration=configuration
            )
        except CloudError as error:
            if error.code == "BucketAlreadyExists":
                raise NotSetUp(
                    f"the bucket name {self.name} is taken: the bucket belongs to another account",
                    hint=self.way_out,
                    code=error.code,
                    operation=error.operation,
                ) from error
            raise
        if not await self._has_our_tag():  # a server that does not know tags in that request
            await self.aws.call(
                "s3", "put_bucket_tagging", **self._whose(), Tagging={"TagSet": self.scope.tag_list()}
            )

    def _parts(self) -> list[_Part]:
        def put(operation: str, **parameters: Any) -> Callable[[], Awaitable[Any]]:
            return lambda: self.aws.call("s3", operation, **self._whose(), **parameters)

        encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
        return [
            _Part(
                "public access is not blocked",
                "get_public_access_block",
                "NoSuchPublicAccessBlockConfiguration",
                lambda answer: answer["PublicAccessBlockConfiguration"] == _BLOCKED,
                put("put_public_access_block", PublicAccessBlockConfiguration=_BLOCKED),
            ),
            _Part(
                "not encrypted",
                "get_bucket_encryption",
                "ServerSideEncryptionConfigurationNotFoundError",
                lambda answer: bool(answer["ServerSideEncryptionConfiguration"]["Rules"]),
                put("put_bucket_encryption", ServerSideEncryptionConfiguration=encryption),
            ),
            _Part(
                "objects belong to their writers",
                "get_bucket_ownership_controls",
                "OwnershipControlsNotFoundError",
                lambda answer: (
                    answer["OwnershipControls"]["Rules"][0]["ObjectOwnership"] == "BucketOwnerEnforced"
                ),
                put(
                    "put_bucket_ownership_controls",
                    OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                ),
            ),
            _Part(
                "can be reached without TLS",
                "get_bucket_policy",
                "NoSuchBucketPolicy",
                lambda answer: any(
                    same_json(each, bucket_statement(self.scope))
                    for each in json.loads(answer["Policy"])["Statement"]
                ),
                self._put_policy,
            ),
            _Part(
                "keeps unfinished uploads",
                "get_bucket_lifecycle_configuration",
                "NoSuchLifecycleConfiguration",
                lambda answer: any(_does_our_rule(rule) for rule in answer["Rules"]),
                self._put_lifecycle,
            ),
        ]

    async def _differs(self, part: _Part) -> str | None:
        answer = await ask(self.aws, (part.none,), "s3", part.get, **self._whose())
        return None if answer is not None and part.good(answer) else part.text

    async def _put_policy(self) -> None:
        """Add our statement; those of the bucket's users stay."""
        answer = await ask(self.aws, ("NoSuchBucketPolicy",), "s3", "get_bucket_policy", **self._whose())
        policy = json.loads(answer["Policy"]) if answer else document()
        ours = bucket_statement(self.scope)
        others = [each for each in policy["Statement"] if each.get("Sid") != ours["Sid"]]
        text = json.dumps(policy | {"Statement": [*others, ours]})
        await self.aws.call("s3", "put_bucket_policy", **self._whose(), Policy=text)

    async def _put_lifecycle(self) -> None:
        rules = [rule for rule in await self._rules() if rule.get("ID") != _RULE["ID"]]
        await self.aws.call(
            "s3",
            "put_bucket_lifecycle_configuration",
            **self._whose(),
            LifecycleConfiguration={"Rules": [*rules, _RULE]},
        )

    async def _rules(self) -> list[dict[str, Any]]:
        answer = await ask(
            self.aws,
            ("NoSuchLifecycleConfiguration",),
            "s3",
            "get_bucket_lifecycle_configuration",
            **self._whose(),
        )
        return list(answer["Rules"]) if answer else []

    async def _warnings(self) -> list[str]:
        """Rules that somebody else put there and that take objects away."""
        expiring = [
            rule for rule in await self._rules() if rule.get("Expiration") and rule["Status"] == "Enabled"
        ]
        return [
            f"the lifecycle rule {rule.get('ID', 'without a name')} of bucket {self.name} removes objects by age: "
            "sessions that live longer lose theirs"
            for rule in expiring
        ]

    async def _empty(self) -> None:
        versioning = await self.aws.call("s3", "get_bucket_versioning", **self._whose())
        listing, kinds = "list_objects_v2", ["Contents"]
        if versioning.get("Status"):
            listing, kinds = "list_object_versions", ["Versions", "DeleteMarkers"]
        while True:
            page = await self.aws.call("s3", listing, **self._whose())
            found = [each for kind in kinds for each in page.get(kind, ())]
            if not found:
                break
            keys = [{n: each[n] for n in ("Key", "VersionId") if n in each} for each in found]
            answer = await self.aws.call(
                "s3", "delete_objects", **self._whose(), Delete={"Objects": keys, "Quiet": True}
            )
            if failed := answer.get("Errors"):
                raise CloudError(
                    f"{failed[0]['Key']} of bucket {self.name} cannot be deleted: {failed[0].get('Message')}",
                    hint="the bucket has a lock or a policy that keeps its objects; remove it and try again",
                    code=str(failed[0].get("Code", "")),
                    operation="s3:DeleteObjects",
                )
        for upload in await self.aws.pages("s3", "list_multipart_uploads", "Uploads", **self._whose()):
            await ask(
                self.aws,
                ("NoSuchUpload",),
                "s3",
                "abort_multipart_upload",
                **self._whose(),
                Key=upload["Key"],
                UploadId=upload["UploadId"],
            )


@dataclass(frozen=True, slots=True)
class _Part:
    """One setting of the bucket.

    Attributes:
        text: What is wrong while it is not as it should be.
        get: The operation that reads it.
        none: The error code while it is not set.
        good: Whether an answer is as it should be.
        set: Sets it.
    """

    text: str
    get: str
    none: str
    good: Callable[[Any], bool]
    set: Callable[[], Awaitable[Any]]


def _does_our_rule(rule: dict[str, Any]) -> bool:
    return rule.get("ID") == _RULE["ID"] and rule.get("Status") == "Enabled" and not rule.get("Expiration")
