"""Coroutines driven by hand: at once on a memory store, or one store request at a time."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

from starburst.store.base import Body, ObjectInfo
from starburst.store.memory import MemoryStore

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait (a memory store does not)."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("the coroutine waits for something")


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


class SteppedStore(MemoryStore):
    """A memory store that stops before and after every request, so that a test decides who goes on when."""

    async def create(self, key: str, body: Body) -> bool:
        await _pause()
        won = await super().create(key, body)
        await _pause()
        return won

    async def get(self, key: str) -> memoryview:
        await _pause()
        return await super().get(key)

    async def get_range(self, key: str, start: int, length: int) -> memoryview:
        await _pause()
        return await super().get_range(key, start, length)

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[ObjectInfo]:
        await _pause()
        listed = await super().list(prefix, start_after=start_after)
        await _pause()
        return listed

    async def delete(self, keys: Sequence[str]) -> None:
        await _pause()
        await super().delete(keys)


class Stepper:
    """A coroutine that is advanced step by step."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.ended = False

    def step(self, n: int = 1) -> bool:
        """Go on to the next request, ``n`` times; False once it has ended."""
        for _ in range(n):
            if self.ended:
                break
            try:
                self._coroutine.send(None)
            except StopIteration:
                self.ended = True
        return not self.ended

    def kill(self) -> None:
        """It never goes on."""
        self._coroutine.close()
        self.ended = True
