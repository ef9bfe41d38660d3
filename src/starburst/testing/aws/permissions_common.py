"""What the descriptions of permissions share: needs, and names of resources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Need", "Place", "members"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that has to be allowed.

    Attributes:
        resource: An ARN, or ``*``.
        action: Empty for the operation itself.
        context: Condition keys beside those that every request has.
    """

    resource: str
    action: str = ""
    context: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request went.

    Attributes:
        partition: ``aws``, or another.
        region: Of the request.
        account: The account's number.
    """

    partition: str
    region: str
    account: str

    def arn(self, service: str, rest: str) -> str:
        """The address of something in this region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"

    def iam(self, rest: str) -> str:
        """The address of a role, a user …; they are in no region."""
        return f"arn:{self.partition}:iam::{self.account}:{rest}"

    def pass_role(self, role: str, service: str) -> Need:
        """Handing a role, by ARN or name, to a service."""
        arn = role if role.startswith("arn:") else self.iam(f"role/{role}")
        return Need(arn, "iam:PassRole", {"iam:PassedToService": service})


def members(parameters: Mapping[str, Any], name: str) -> Iterator[str]:
    """The values of a list in a form: ``name.1`` or ``name.member.1`` and so on."""
    for prefix in (name, f"{name}.member"):
        number = 1
        while f"{prefix}.{number}" in parameters:
            yield str(parameters[f"{prefix}.{number}"])
            number += 1
