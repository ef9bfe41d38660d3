"""Waiting for one of several things."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = ["cancelled", "unless"]

T = TypeVar("T")


async def unless(event: asyncio.Event, task: asyncio.Future[T]) -> T | None:
    """What the task returns; None, and the task cancelled, if the event is set before."""
    waiting = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {task, waiting}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await cancelled([task, waiting])


async def cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
