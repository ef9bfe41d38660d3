"""Telling what starburst made from what others made: by the tag, never by the name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starburst.aws.names import MANAGED_TAG
from starburst.errors import NotSetUp

__all__ = ["check_ours", "tags_of"]


def tags_of(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """AWS's list of tags as a dictionary; ECS writes ``key`` where the others write ``Key``."""
    return {tag.get("Key", tag.get("key", "")): tag.get("Value", tag.get("value", "")) for tag in tags}


def check_ours(kind: str, name: str, tags: Mapping[str, str], region: str) -> None:
    """See that a resource carries our tag.

    Raises:
        NotSetUp: It does not, so it is not touched.
    """
    if tags.get(MANAGED_TAG) != "true":
        raise NotSetUp(
            f"there is {kind} {name} in {region} that starburst did not make, so it is left alone",
            hint=f"rename or remove it; if it is starburst's, tag it {MANAGED_TAG}=true",
        )
