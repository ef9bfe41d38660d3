"""Our task definitions: found by family and tag, and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starburst.aws.clients import Aws
from starburst.aws.names import SUPERVISOR_FAMILY, WORKER_FAMILY
from starburst.aws.resource import ask, is_ours
from starburst.errors import CloudError

__all__ = ["Definition", "our_definitions", "remove_definitions"]

_FAMILIES = (WORKER_FAMILY, SUPERVISOR_FAMILY)
_AT_ONCE = 8
_PER_CALL = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One revision.

    Attributes:
        arn: Its address.
        active: Whether tasks can be started from it.
        registered_at: Seconds since 1970; 0 if ECS does not tell.
    """

    arn: str
    active: bool
    registered_at: float

    @property
    def name(self) -> str:
        """Family and revision."""
        return self.arn.rsplit("/", 1)[-1]


async def our_definitions(aws: Aws) -> list[Definition]:
    """All revisions with our tag, also those that were deregistered.

    Raises:
        CloudError: AWS did not answer.
    """
    arns: dict[str, None] = {}
    for prefix in _FAMILIES:
        families = await aws.pages(
            "ecs", "list_task_definition_families", "families", familyPrefix=prefix, status="ALL"
        )
        for family in families:
            for status in ("ACTIVE", "INACTIVE"):
                found = await aws.pages(
                    "ecs", "list_task_definitions", "taskDefinitionArns", familyPrefix=family, status=status
                )
                arns |= dict.fromkeys(found)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(arn: str) -> Definition | None:
        async with gate:
            answer = await ask(
                aws,
                ("ClientException",),
                "ecs",
                "describe_task_definition",
                taskDefinition=arn,
                include=["TAGS"],
            )
        if answer is None or not is_ours(answer.get("tags")):
            return None
        described = answer["taskDefinition"]
        registered = described.get("registeredAt")
        return Definition(
            arn=arn,
            active=described.get("status", "ACTIVE") == "ACTIVE",
            registered_at=registered.timestamp() if registered else 0.0,
        )

    return [one for one in await asyncio.gather(*map(look, arns)) if one is not None]


async def remove_definitions(aws: Aws, definitions: Iterable[Definition]) -> None:
    """Deregister and delete revisions; AWS finishes that in the background.

    Raises:
        CloudError: AWS did not do it.
    """
    wanted: Sequence[Definition] = list(definitions)
    for one in wanted:
        if one.active:
            await aws.call("ecs", "deregister_task_definition", taskDefinition=one.arn)
    for first in range(0, len(wanted), _PER_CALL):
        some = [one.arn for one in wanted[first : first + _PER_CALL]]
        answer = await aws.call("ecs", "delete_task_definitions", taskDefinitions=some)
        if failures := answer.get("failures"):
            raise CloudError(
                f"the task definition {failures[0].get('arn')} cannot be deleted: {failures[0].get('reason')}",
                operation="ecs:DeleteTaskDefinitions",
            )
