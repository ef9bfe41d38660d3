"""A store that fails on command, around any other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar

from starburst.clock import Clock, SystemClock
from starburst.errors import StoreError, StoreUnavailable
from starburst.store.base import Body, ObjectInfo, Store

__all__ = ["Fault", "FaultyStore", "Script", "Verb"]

T = TypeVar("T")

Verb = Literal["create", "overwrite", "get", "get_range", "list", "list_folders", "delete"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    Attributes:
        delay_s: Seconds of the clock before it reaches the store.
        error: What it raises before it reaches the store, so that nothing is done.
        lost_reply: What it raises after the store has done it.
    """

    delay_s: float = 0.0
    error: StoreError | None = None
    lost_reply: StoreError | None = None


Script = Callable[[Verb, str], Fault | None]
"""Asked before each request: which verb, on which key or prefix; None lets it pass."""


class FaultyStore:
    """A :class:`~starburst.store.base.Store` that passes requests on to another one, but for scripted faults.

    Example:
        >>> from starburst.store import open_store
        >>> store = FaultyStore(open_store("memory://"))
        >>> store.fail("create", "claims/*", times=2)
        >>> store.lose_reply("create", "results/*")
        >>> store.delay("get", "*", delay_s=30)

    Args:
        store: The store that does the work.
        clock: What delays wait on.
        script: Asked for each request that no fault was queued for, for example a seeded random one.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None, script: Script | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._script = script
        self._queued: list[tuple[Verb, str, Fault]] = []
        self.url = store.url
        self.counts = store.counts
        self.poll = store.poll
        self.compresses = store.compresses

    def add(self, verb: Verb, pattern: str, fault: Fault, *, times: int = 1) -> None:
        """Queue a fault for the next requests of this kind.

        Args:
            verb: Which method.
            pattern: Which keys or prefixes, with ``*`` and ``?`` (``*`` matches slashes too); of a delete its
                first key counts.
            fault: What happens.
            times: To how many requests.
        """
        self._queued += [(verb, pattern, fault)] * times

    def fail(
        self, verb: Verb, pattern: str = "*", *, error: StoreError | None = None, times: int = 1
    ) -> None:
        """Let the next requests fail before they reach the store (with ``StoreUnavailable`` by default)."""
        self.add(verb, pattern, Fault(error=error or StoreUnavailable("scripted: no answer")), times=times)

    def lose_reply(self, verb: Verb, pattern: str = "*", *, times: int = 1) -> None:
        """Let the next requests be done, and then raise ``StoreUnavailable`` instead of answering."""
        fault = Fault(lost_reply=StoreUnavailable("scripted: the reply was lost"))
        self.add(verb, pattern, fault, times=times)

    def delay(self, verb: Verb, pattern: str = "*", *, delay_s: float, times: int = 1) -> None:
        """Let the next requests take so many seconds longer."""
        self.add(verb, pattern, Fault(delay_s=delay_s), times=times)

    @property
    def pending_faults(self) -> int:
        """Faults that are still queued."""
        return len(self._queued)

    async def create(self, key: str, body: Body) -> bool:
        """See :meth:`Store.create`."""
        return await self._pass("create", key, lambda: self._store.create(key, body))

    async def overwrite(self, key: str, body: Body) -> None:
        """See :meth:`Store.overwrite`."""
        await self._pass("overwrite", key, lambda: self._store.overwrite(key, body))

    async def get(self, key: str) -> memoryview:
        """See :meth:`Store.get`."""
        return await self._pass("get", key, lambda: self._store.get(key))

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        """See :meth:`Store.get_range`."""
        return await self._pass("get_range", key, lambda: self._store.get_range(key, start, length))

    async def list_folders(self, prefix: str) -> list[str]:
        """See :meth:`Store.list_folders`."""
        return await self._pass("list_folders", prefix, lambda: self._store.list_folders(prefix))

    async def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Store.delete`."""
        await self._pass("delete", keys[0] if keys else "", lambda: self._store.delete(keys))

    def local_path(self, key: str) -> Path | None:
        """See :meth:`Store.local_path`."""
        return self._store.local_path(key)

    async def _pass(self, verb: Verb, key: str, request: Callable[[], Awaitable[T]]) -> T:
        fault = self._next(verb, key)
        if fault is None:
            return await request()
        if fault.delay_s > 0:
            await self._clock.sleep(fault.delay_s)
        if fault.error is not None:
            raise fault.error
        reply = await request()
        if fault.lost_reply is not None:
            raise fault.lost_reply
        return reply

    def _next(self, verb: Verb, key: str) -> Fault | None:
        for at, (wanted, pattern, fault) in enumerate(self._queued):
            if wanted == verb and fnmatchcase(key, pattern):
                del self._queued[at]
                return fault
        return self._script(verb, key) if self._script else None

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        """See :meth:`Store.list`."""
        return await self._pass("list", prefix, lambda: self._store.list(prefix, start_after=start_after))
