"""Evaluation of IAM policies: does a set of documents allow an action on a resource, under these circumstances?

Pure: documents in, decision out. Policy variables (``${aws:username}``) are not replaced; the simulator's roles and
users have none.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

__all__ = ["Access", "Decision", "Grants", "Policy", "PolicyError", "decide"]

Context = Mapping[str, str | list[str]]
"""Condition keys and their values; names in any case."""


class PolicyError(ValueError):
    """A document that says something which the simulator cannot evaluate."""


class Decision(enum.Enum):
    """What policies say about one access."""

    ALLOWED = "allowed"
    DENIED = "denied by a statement"
    UNMENTIONED = "not allowed by any statement"


@dataclass(frozen=True, slots=True)
class Access:
    """One action on one resource.

    Attributes:
        action: Such as ``ecs:RunTask``.
        resource: An ARN; ``*`` for an action that has no resource.
        context: Condition keys of this request.
    """

    action: str
    resource: str
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """One document, ready for use."""

    statements: tuple[_Statement, ...]

    @classmethod
    def parse(cls, document: str | Mapping[str, Any]) -> Policy:
        """Read a document.

        Raises:
            PolicyError: It is not a policy, or uses what is not understood here.
        """
        try:
            content = json.loads(document) if isinstance(document, str) else document
            statements = content["Statement"]
            statements = [statements] if isinstance(statements, Mapping) else statements
            return cls(tuple(_Statement.parse(each) for each in statements))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise PolicyError(f"not a policy document: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Grants:
    """What a caller may do.

    Attributes:
        sets: Each of them has to allow it: the caller's own documents, and what limits them (a permissions
            boundary, the policy of a session).
    """

    sets: tuple[tuple[Policy, ...], ...]

    @classmethod
    def parse(cls, sets: Iterable[Iterable[str]]) -> Grants:
        """Read documents.

        Raises:
            PolicyError: One of them cannot be evaluated.
        """
        return cls(tuple(tuple(_parsed(document) for document in each) for each in sets))

    def decide(self, access: Access) -> Decision:
        """What all of it says."""
        decisions = [decide(each, access) for each in self.sets]
        if Decision.DENIED in decisions:
            return Decision.DENIED
        if not decisions or Decision.UNMENTIONED in decisions:
            return Decision.UNMENTIONED
        return Decision.ALLOWED


def decide(policies: Iterable[Policy], access: Access, *, principal: str = "") -> Decision:
    """What these documents say together: one Deny outweighs every Allow.

    Args:
        policies: All that apply.
        access: What is attempted.
        principal: The caller's ARN; only for documents of resources, which name whom they mean.
    """
    context = {key.lower(): value for key, value in access.context.items()}
    decision = Decision.UNMENTIONED
    for policy in policies:
        for statement in policy.statements:
            if statement.fits(access, context, principal):
                if not statement.allows:
                    return Decision.DENIED
                decision = Decision.ALLOWED
    return decision


@dataclass(frozen=True, slots=True)
class _Statement:
    allows: bool
    actions: re.Pattern[str]
    not_actions: bool
    resources: re.Pattern[str]
    not_resources: bool
    conditions: tuple[_Condition, ...]
    principals: tuple[str, ...]
    not_principals: bool

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> _Statement:
        if content["Effect"] not in {"Allow", "Deny"}:
            raise PolicyError(f"Effect is {content['Effect']!r}")
        not_actions, not_resources = "NotAction" in content, "NotResource" in content
        not_principals = "NotPrincipal" in content
        actions = content["NotAction" if not_actions else "Action"]
        resources = content["NotResource"] if not_resources else content.get("Resource", "*")
        principals = content.get("NotPrincipal" if not_principals else "Principal", "*")
        if isinstance(principals, Mapping):
            principals = principals.get("AWS", [])
        return cls(
            allows=content["Effect"] == "Allow",
            actions=_globs(_listed(actions), re.IGNORECASE),
            not_actions=not_actions,
            resources=_globs(_listed(resources)),
            not_resources=not_resources,
            conditions=tuple(
                _Condition.parse(operator, key, _listed(values))
                for operator, keys in content.get("Condition", {}).items()
                for key, values in keys.items()
            ),
            principals=tuple(_listed(principals)),
            not_principals=not_principals,
        )

    def fits(self, access: Access, context: Context, principal: str) -> bool:
        return (
            bool(self.actions.fullmatch(access.action)) is not self.not_actions
            and bool(self.resources.fullmatch(access.resource)) is not self.not_resources
            and any(_is_principal(each, principal) for each in self.principals) is not self.not_principals
            and all(condition.holds(context) for condition in self.conditions)
        )


@dataclass(frozen=True, slots=True)
class _Condition:
    test: Callable[[str, str], bool]
    negated: bool
    quantifier: str
    if_exists: bool
    null: bool
    key: str
    wanted: tuple[str, ...]

    @classmethod
    def parse(cls, operator: str, key: str, wanted: list[str]) -> _Condition:
        quantifier, _, name = operator.rpartition(":")
        if_exists = name.endswith("IfExists")
        name = name.removesuffix("IfExists")
        # "Not" always stands after the family: StringNotEquals, ArnNotLike, NumericNotEquals, NotIpAddress.
        positive = "Null" if name == "Null" else name.replace("Not", "", 1)
        if quantifier not in {"", "ForAllValues", "ForAnyValue"} or positive not in _TESTS:
            raise PolicyError(f"the simulator does not know the condition operator {operator}")
        return cls(
            test=_TESTS[positive],
            negated=positive != name,
            quantifier=quantifier,
            if_exists=if_exists,
            null=positive == "Null",
            key=key.lower(),
            wanted=tuple(wanted),
        )

    def holds(self, context: Context) -> bool:
        found = context.get(self.key)
        if self.null:
            return any((found is None) is (each == "true") for each in self.wanted)
        if found is None:
            return self.if_exists or self.negated or self.quantifier == "ForAllValues"
        values = [found] if isinstance(found, str) else found
        fitting = (self._fits(value) for value in values)
        return all(fitting) if self.quantifier == "ForAllValues" else any(fitting)

    def _fits(self, value: str) -> bool:
        return any(self.test(value, wanted) for wanted in self.wanted) is not self.negated


@lru_cache(maxsize=1024)
def _parsed(document: str) -> Policy:
    return Policy.parse(document)


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


def _is_principal(wanted: str, principal: str) -> bool:
    """By ARN, by account, or everybody. A role is meant by its own ARN and by that of its sessions."""
    if wanted in {"*", principal}:
        return True
    account = principal.split(":")[4] if principal.count(":") >= 5 else ""
    if account and (wanted == account or re.fullmatch(rf"arn:[\w-]+:iam::{account}:root", wanted)):
        return True
    role = re.fullmatch(r"(arn:[\w-]+):sts::(\d+):assumed-role/([^/]+)/.*", principal)
    return bool(role and re.fullmatch(rf"{role[1]}:iam::{role[2]}:role/(.*/)?{re.escape(role[3])}", wanted))


def _globs(patterns: list[str], flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(_glob_source(each) for each in patterns) or r"(?!)", flags | re.DOTALL)


def _glob_source(pattern: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(letter) or re.escape(letter) for letter in pattern)


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(_glob_source(pattern), re.DOTALL)


def _like(value: str, wanted: str) -> bool:
    return bool(_glob(wanted).fullmatch(value))


def _arn_like(value: str, wanted: str) -> bool:
    """Each of the six parts for itself: a star does not reach across a colon before the last part."""
    values, wants = value.split(":", 5), wanted.split(":", 5)
    return len(values) == len(wants) and all(map(_like, values, wants))


def _numeric(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            return False

    return test


def _dated(compare: Callable[[datetime, datetime], bool]) -> Callable[[str, str], bool]:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(_moment(value), _moment(wanted))
        except ValueError:
            return False

    return test


def _moment(text: str) -> datetime:
    if text.isdecimal():
        return datetime.fromtimestamp(int(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_network(value: str, wanted: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringEqualsIgnoreCase": lambda value, wanted: value.lower() == wanted.lower(),
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "Null": lambda _value, _wanted: False,
    "IpAddress": _in_network,
    "NumericEquals": _numeric(lambda value, wanted: value == wanted),
    "NumericLessThan": _numeric(lambda value, wanted: value < wanted),
    "NumericLessThanEquals": _numeric(lambda value, wanted: value <= wanted),
    "NumericGreaterThan": _numeric(lambda value, wanted: value > wanted),
    "NumericGreaterThanEquals": _numeric(lambda value, wanted: value >= wanted),
    "DateEquals": _dated(lambda value, wanted: value == wanted),
    "DateLessThan": _dated(lambda value, wanted: value < wanted),
    "DateLessThanEquals": _dated(lambda value, wanted: value <= wanted),
    "DateGreaterThan": _dated(lambda value, wanted: value > wanted),
    "DateGreaterThanEquals": _dated(lambda value, wanted: value >= wanted),
}
