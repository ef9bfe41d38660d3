"""The provider's own chores beside the supervisor's loop, which never waits for them."""

from __future__ import annotations

import asyncio
import logging

from starburst.clock import Clock
from starburst.compute.base import Provider
from starburst.errors import ProviderError
from starburst.supervisor.waiting import cancelled

__all__ = ["Tender"]

log = logging.getLogger(__name__)


class Tender:
    """Has the provider tend a session, one call at a time: a slow one makes the next one late, and nothing else.

    Args:
        provider: Who starts the session's workers.
        session_id: The session.
        clock: Time.
    """

    def __init__(self, provider: Provider, session_id: str, clock: Clock) -> None:
        self._provider = provider
        self._session_id = session_id
        self._clock = clock
        self._running: asyncio.Task[None] | None = None
        self._complaint = ""

    def begin(self) -> None:
        """Begin a call, unless the last one still runs."""
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._tend())

    async def finish(self, within_s: float) -> None:
        """A last call from beginning to end, if it comes to one within ``within_s``."""
        last = asyncio.ensure_future(self._last())
        timer = asyncio.ensure_future(self._clock.sleep(within_s))
        try:
            await asyncio.wait([last, timer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled([last, timer])

    async def cancel(self) -> None:
        """End the call that runs, if there is one."""
        if self._running is not None:
            await cancelled([self._running])

    async def _last(self) -> None:
        if self._running is not None:
            await asyncio.wait([self._running])
        await self._tend()

    async def _tend(self) -> None:
        try:
            await self._provider.tend(self._session_id)
            self._complaint = ""
        except ProviderError as error:
            if str(error) != self._complaint:
                log.warning("trying again: %s", error)
            self._complaint = str(error)
