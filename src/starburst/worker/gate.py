"""Who may run tasks in a worker at the same time: many together, or one alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

__all__ = ["Gate"]


class Gate:
    """Lets many in together, or one alone; who wants to be alone keeps others from entering before."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._alone = False

    @contextlib.asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        """Be inside, with others or alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone)
            self._alone = alone
            if alone:
                try:
                    await self._changed.wait_for(lambda: self._inside == 0)
                except BaseException:
                    self._alone = False
                    self._changed.notify_all()
                    raise
            self._inside += 1
        try:
            yield
        finally:
            async with self._changed:
                self._inside -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()
