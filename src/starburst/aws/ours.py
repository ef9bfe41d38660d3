"""Leaving alone what others made: resources are told apart by their tag, never by their name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starburst.aws.names import MANAGED_TAG
from starburst.aws.resource import is_ours
from starburst.errors import NotSetUp

__all__ = ["check_ours"]


def check_ours(
    kind: str, name: str, tags: Mapping[str, str] | Collection[Mapping[str, str]], region: str
) -> None:
    """See that a resource carries our tag, in any of AWS's spellings.

    Raises:
        NotSetUp: It does not, so it is not touched.
    """
    if not is_ours(tags):
        raise NotSetUp(
            f"there is {kind} {name} in {region} that starburst did not make, so it is left alone",
            hint=f"rename or remove it; if it is starburst's, tag it {MANAGED_TAG}=true",
        )
