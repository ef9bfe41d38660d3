"""Who holds an access key, and which documents say what that one may do: read from moto's IAM and STS each time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starburst.testing.aws.iam import Grants
from starburst.testing.aws.world import ACCESS_KEY, SECRET_KEY

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["Identities", "Identity"]

_SESSION_S = 6 * 3600


@dataclass(frozen=True, slots=True)
class Identity:
    """Who holds an access key.

    Attributes:
        access_key: The key.
        secret: Its secret.
        token: The session token that goes with it; empty for keys of users.
        arn: As policies and messages name the caller.
        account: The account of the caller.
        name: Of the role or user.
        holder: moto's role or user; None if that does not exist any more, or is the account's owner.
        owner: Whether it is the account's owner, who may do everything.
        session_policy: What the caller of AssumeRole restricted it to; empty for nothing.
    """

    access_key: str
    secret: str
    token: str
    arn: str
    account: str
    name: str
    holder: Any
    owner: bool = False
    session_policy: str = ""


class Identities:
    """All callers of one simulated account. Every method is called under the world's lock."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions: dict[str, Any] = {}  # moto's assumed roles, by access key
        self._of_tasks: dict[str, tuple[str, str, str]] = {}

    def find(self, access_key: str) -> Identity | None:
        """Who holds this key; None if nobody does."""
        options = self._world.options
        if access_key == ACCESS_KEY:
            arn = f"arn:{self.partition}:iam::{options.account}:user/{ACCESS_KEY}"
            return Identity(ACCESS_KEY, SECRET_KEY, "", arn, options.account, ACCESS_KEY, None, owner=True)
        return self._of_role(access_key) or self._of_user(access_key)

    def documents(self, identity: Identity) -> list[list[str]] | None:
        """The sets of documents of which each has to allow what the caller does; None for everything."""
        if identity.owner or not self._world.options.enforce_iam:
            return None
        if identity.holder is None:
            return [[]]
        sets = [list(self._own(identity.holder))]
        boundary = getattr(identity.holder, "permissions_boundary_arn", None)
        if boundary:
            found = self._iam().managed_policies.get(boundary)
            sets.append([_document(found)] if found else [])
        if identity.session_policy:
            sets.append([identity.session_policy])
        return sets

    def grants(self, identity: Identity) -> Grants | None:
        """The same, ready for use."""
        documents = self.documents(identity)
        return None if documents is None else Grants.parse(documents)

    def role(self, name_or_arn: str) -> Any:
        """The role in moto; None if there is none of this name."""
        name = name_or_arn.rsplit("/", 1)[-1]
        return next((role for role in self._iam().roles.values() if role.name == name), None)

    def credentials_for(self, role_arn: str) -> tuple[str, str, str]:
        """Access key, secret and token that tasks of a role get: the same for all of them."""
        with self._world.lock:
            found = self._of_tasks.get(role_arn)
            if found is None:
                session = self._sts().assume_role(
                    region_name=self._world.options.region,
                    role_session_name="ecs-task",
                    role_arn=role_arn,
                    policy=None,
                    duration=_SESSION_S,
                    external_id=None,
                )
                found = (session.access_key_id, session.secret_access_key, session.session_token)
                self._of_tasks[role_arn] = found
            return found

    @functools.cached_property
    def partition(self) -> str:
        """``aws``, ``aws-cn`` or ``aws-us-gov``."""
        from moto.utilities.utils import get_partition

        return str(get_partition(self._world.options.region))

    def _of_role(self, access_key: str) -> Identity | None:
        session = self._sessions.get(access_key)
        if session is None:
            self._sessions = {each.access_key_id: each for each in self._sts().assumed_roles}
            session = self._sessions.get(access_key)
        if session is None:
            return None
        return Identity(
            access_key,
            session.secret_access_key,
            session.session_token,
            session.arn,
            session.account_id,
            session.role_arn.rsplit("/", 1)[-1],
            self.role(session.role_arn),
            session_policy=session.policy or "",
        )

    def _of_user(self, access_key: str) -> Identity | None:
        for user in self._iam().users.values():
            for key in user.access_keys:
                if key.access_key_id == access_key and key.status == "Active":
                    account = self._world.options.account
                    return Identity(access_key, key.secret_access_key, "", user.arn, account, user.name, user)
        return None

    def _own(self, holder: Any) -> Iterator[str]:
        yield from holder.policies.values()
        yield from map(_document, holder.managed_policies.values())
        if hasattr(holder, "access_keys"):
            for group in self._iam().groups.values():
                if holder in group.users:
                    yield from group.policies.values()
                    yield from map(_document, group.managed_policies.values())

    def _iam(self) -> Any:
        from moto.iam.models import iam_backends

        return iam_backends[self._world.options.account][self.partition]

    def _sts(self) -> Any:
        from moto.sts.models import sts_backends

        return sts_backends[self._world.options.account][self.partition]


def _document(policy: Any) -> str:
    """Of a managed policy: the version that is in force."""
    return str(next(version.document for version in policy.versions if version.is_default))
