"""Waiting for AWS to finish what it does in the background; always with an end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starburst.aws.clients import Aws
from starburst.clock import Clock, Deadline
from starburst.errors import CloudError, CloudUnavailable

__all__ = ["BUSY", "OVERTAKEN", "call_when_idle", "wait_until"]

_FIRST_S = 0.2
_LONGEST_S = 5.0
_IDLE_WAIT_S = 180.0
BUSY = frozenset(
    {
        "ResourceContention",
        "ResourceInUse",
        "ResourceInUseException",
        "ScalingActivityInProgress",
        "UpdateInProgressException",
    }
)
"""Codes of AWS for: an earlier change of this resource still goes on, or something still uses it."""
OVERTAKEN = frozenset(
    {
        "AlreadyExists",
        "BucketAlreadyOwnedByYou",
        "ConcurrentModification",
        "EntityAlreadyExists",
        "InvalidGroup.Duplicate",
        "InvalidPermission.Duplicate",
        "InvalidPermission.NotFound",
        "OperationAborted",
        "OperationAbortedException",
        "RepositoryAlreadyExistsException",
        "ResourceAlreadyExistsException",
    }
)
"""Codes of AWS for: somebody else did this at the same moment, so what is there has to be looked at again."""


async def wait_until(
    check: Callable[[], Awaitable[bool]],
    *,
    clock: Clock,
    timeout_s: float,
    what: str,
    hint: str | None = None,
) -> None:
    """Ask again and again, less and less often, until ``check`` says yes.

    Args:
        check: Whether it is so.
        clock: What the wait is measured by.
        timeout_s: When to give up.
        what: What is awaited, for the error: "the hosts of … to end".
        hint: What to do if it does not come.

    Raises:
        CloudUnavailable: It did not come about in time.
    """
    deadline = Deadline(clock, timeout_s)
    pause_s = _FIRST_S
    while not await check():
        if deadline.passed:
            raise CloudUnavailable(f"waited {timeout_s:g} s in vain for {what}", hint=hint)
        await clock.sleep(min(pause_s, deadline.remaining_s()))
        pause_s = min(_LONGEST_S, pause_s * 1.6)


async def call_when_idle(
    aws: Aws,
    service: str,
    operation: str,
    /,
    *,
    clock: Clock,
    timeout_s: float = _IDLE_WAIT_S,
    **parameters: Any,
) -> Any:
    """:meth:`Aws.call`, again while AWS says that an earlier change of the resource still goes on.

    Raises:
        CloudUnavailable: It still does after ``timeout_s``.
        CloudError: AWS did not do it.
    """
    answer: Any = None
    busy: CloudError | None = None

    async def done() -> bool:
        nonlocal answer, busy
        try:
            answer = await aws.call(service, operation, **parameters)
        except CloudError as error:
            if error.code not in BUSY and "service linked role" not in error.message:
                raise  # a role that was just made is not known everywhere at once
            busy = error
            return False
        return True

    try:
        await wait_until(done, clock=clock, timeout_s=timeout_s, what=f"{service}:{operation} to be accepted")
    except CloudUnavailable as error:
        raise (busy or error) from error
    return answer
