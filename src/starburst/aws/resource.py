"""What the resources that we own have in common: whose they are, what state they are in, how they are asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from starburst.aws.clients import Aws, Identity
from starburst.aws.names import MANAGED_TAG, OWNER_TAG
from starburst.aws.waiting import BUSY, OVERTAKEN, wait_until
from starburst.clock import Clock
from starburst.errors import CloudError, CloudUnavailable, NotSetUp

__all__ = [
    "MISSING",
    "OURS",
    "Removable",
    "Resource",
    "Scope",
    "State",
    "ask",
    "ensured",
    "is_ours",
    "make_sure_ours",
    "same_json",
]


_SETTLED_WITHIN_S = 30.0
Condition = Literal["missing", "ours", "foreign", "differs"]


@dataclass(frozen=True, slots=True)
class State:
    """What stands under a resource's name.

    Attributes:
        condition: ``missing``; ``ours`` and as it should be; ``differs``: ours, but not as it should be;
            ``foreign``: somebody else's, which we never touch.
        details: What differs, or whose it is.
        warnings: What its owner should know, and we leave as it is.
    """

    condition: Condition
    details: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, differences: Collection[str], warnings: Collection[str] = ()) -> State:
        """The state of something that is ours."""
        return cls("differs" if differences else "ours", tuple(differences), tuple(warnings))

    @property
    def is_ours(self) -> bool:
        """Whether it is there, and we made it."""
        return self.condition in ("ours", "differs")

    @property
    def why_foreign(self) -> tuple[str, ...]:
        """How it is known that something is somebody else's."""
        return self.details or (f"it has no tag {MANAGED_TAG}=true",)


MISSING = State("missing")
OURS = State("ours")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where we are set up, and for whom: what names, addresses and policies are made of.

    Attributes:
        account: The account's twelve digits.
        region: The region.
        partition: ``aws``, ``aws-cn`` or ``aws-us-gov``.
        bucket: The bucket that sessions are in.
        owner: Who sets up: the value of the owner tag.
    """

    account: str
    region: str
    partition: str
    bucket: str
    owner: str

    @classmethod
    def of(cls, identity: Identity, *, region: str, bucket: str) -> Scope:
        """The scope of these credentials."""
        return cls(
            account=identity.account,
            region=region,
            partition=identity.partition,
            bucket=bucket,
            owner=identity.owner,
        )

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything that we make."""
        return {MANAGED_TAG: "true", OWNER_TAG: self.owner}

    def tag_list(self, *, lower: bool = False, **more: str) -> list[dict[str, str]]:
        """The tags as most services take them; ECS writes ``key`` and ``value`` small."""
        names = ("key", "value") if lower else ("Key", "Value")
        return [dict(zip(names, pair, strict=True)) for pair in (self.tags | more).items()]

    def arn(self, service: str, resource: str) -> str:
        """The address of something in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def role_arn(self, name: str) -> str:
        """The address of a role; roles are in no region."""
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    def instance_profile_arn(self, name: str) -> str:
        """The address of an instance profile."""
        return f"arn:{self.partition}:iam::{self.account}:instance-profile/{name}"


class Resource(Protocol):
    """One thing in the account that set-up makes, or uses."""

    @property
    def kind(self) -> str:
        """What it is, such as ``bucket``."""
        ...

    @property
    def name(self) -> str:
        """Its name in the account."""
        ...

    @property
    def way_out(self) -> str:
        """What to do if something of that name is somebody else's."""
        ...

    async def state(self) -> State:
        """What stands under its name now; changes nothing."""
        ...

    async def ensure(self) -> None:
        """Make it, or change what differs; nothing if it is as it should be.

        Raises:
            NotSetUp: Something of that name is somebody else's.
        """
        ...


class Removable(Resource, Protocol):
    """One that teardown removes as a whole."""

    async def remove(self) -> bool:
        """Remove it if it is ours; whether there was anything to remove."""
        ...


async def ensured(resource: Resource, *, clock: Clock) -> None:
    """Have a resource as it should be, though another set-up makes it at the same moment.

    What it made is looked at again: if it is ours, we go on from there, and else it is reported as ever.

    Raises:
        NotSetUp: Something of that name is somebody else's.
        CloudError: AWS did not do it.
    """
    overtaken: CloudError | None = None

    async def done() -> bool:
        nonlocal overtaken
        try:
            await resource.ensure()
        except CloudError as error:
            if error.code not in OVERTAKEN | BUSY:
                raise
            overtaken = error
            return False
        return True

    try:
        await wait_until(
            done, clock=clock, timeout_s=_SETTLED_WITHIN_S, what=f"{resource.kind} {resource.name}"
        )
    except CloudUnavailable as error:
        raise (overtaken or error) from error


async def ask(
    aws: Aws, codes: Collection[str], service: str, operation: str, /, **parameters: Any
) -> Any | None:
    """An answer of AWS, or None if it says with one of ``codes`` that there is no such thing.

    Raises:
        CloudError: Anything else went wrong.
    """
    try:
        return await aws.call(service, operation, **parameters)
    except CloudError as error:
        if error.code in codes:
            return None
        raise


def is_ours(tags: Mapping[str, str] | Collection[Mapping[str, str]] | None) -> bool:
    """Whether these tags, in any of AWS's spellings, say that we made it."""
    if isinstance(tags, Mapping):
        return tags.get(MANAGED_TAG) == "true"
    pairs = {
        each.get("Key") or each.get("key"): each.get("Value") or each.get("value") for each in tags or ()
    }
    return pairs.get(MANAGED_TAG) == "true"


def make_sure_ours(resource: Resource, state: State) -> None:
    """Refuse to go on with what is somebody else's.

    Raises:
        NotSetUp: It is; the message names it, the hint tells the way out.
    """
    if state.condition == "foreign":
        why = "; ".join(state.why_foreign)
        raise NotSetUp(
            f"the {resource.kind} {resource.name} is there, but starburst did not make it: {why}",
            hint=resource.way_out,
        )


def same_json(one: Any, other: Any) -> bool:
    """Whether two documents say the same, whatever the order of their fields; either may be text."""
    documents = [json.loads(each) if isinstance(each, str) else each for each in (one, other)]
    first, second = (json.dumps(each, sort_keys=True) for each in documents)
    return first == second
