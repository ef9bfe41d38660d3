"""A chunk in a worker's hands: what is finished of it, its flushes, its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from starburst.clock import Clock
from starburst.errors import ObjectNotFound
from starburst.protocol.claims import release, share
from starburst.protocol.keys import Keys
from starburst.protocol.records import Failure
from starburst.protocol.results import BrokenChain, Run, chain_end, encode_result, finish_chunk
from starburst.store.base import Store
from starburst.worker.batch import Held
from starburst.worker.board import Board

__all__ = ["Holding", "Office"]

log = logging.getLogger(__name__)


class Office(Protocol):
    """What a chunk needs of its agent."""

    store: Store
    keys: Keys
    clock: Clock
    board: Board
    worker: str


class Holding:
    """One held chunk.

    Args:
        office: The agent.
        held: The chunk.
    """

    def __init__(self, office: Office, held: Held) -> None:
        self._office = office
        self.held = held
        self.superseded = False
        self.stale = False
        self.flushed_at = self.started_at = office.clock.monotonic()
        self._pending = Run()
        self._flight = Run()
        self._flushing: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """The first task that has no outcome yet."""
        return self.held.position + self._flight.count + self._pending.count

    @property
    def done(self) -> bool:
        """Whether each of its tasks has an outcome."""
        return self.position >= self.held.end

    @property
    def unflushed_bytes(self) -> int:
        """Bytes that are not in the store yet."""
        return self._pending.size_bytes + self._flight.size_bytes

    @property
    def has_news(self) -> bool:
        """Whether there is something to flush."""
        return self._pending.count > 0

    def take(self, run: Run) -> None:
        """Some more tasks are finished."""
        if not self.stale:
            self._pending.extend(run)

    async def resume(self) -> None:
        """Before a job begins: make sure of :attr:`position`, and let what the job brings count again.

        A flush that was lost to another writer has to find out first where the chain goes on.
        """
        while self.stale and self._flushing is not None and not self._flushing.done():
            await asyncio.wait([self._flushing])
        self.stale = False

    def fail(self, failure: Failure) -> Run:
        """The next task has failed; returns it as a run."""
        run = Run()
        run.add_failure(failure)
        self.take(run)
        return run

    def start_flush(self, then: Callable[[], Any] = lambda: None) -> None:
        """Write what is finished, unless that is under way; ``then`` is called if the chunk was taken over."""
        if (self._flushing is None or self._flushing.done()) and self.has_news and not self.superseded:
            self._flushing = asyncio.ensure_future(self._flush(self._flushing, then))
            self._flushing.add_done_callback(_note_error)

    async def flush_all(self) -> None:
        """Wait until all that is finished is written, or the chunk turns out not to be ours any more.

        Raises:
            StoreError: The store did not take it for minutes.
        """
        while (self.has_news or self._flushing is not None) and not self.superseded:
            self.start_flush()
            flushing, self._flushing = self._flushing, None
            if flushing is not None:
                await flushing

    async def close(self) -> None:
        """Flush all, then mark the chunk done or give it back.

        Raises:
            StoreError: The store did not take it for minutes.
        """
        await self.flush_all()
        office, held = self._office, self.held
        if self.superseded:
            log.info("chunk %s was taken over by another worker; our copy is dropped", held.chunk)
            office.board.forget(held, done=False)
        elif held.position >= held.end:
            await finish_chunk(office.store, office.keys, held.chunk, held.ok, held.failed)
            office.board.forget(held, done=True)
        else:
            await self.release()

    async def release(self) -> None:
        """Give it back."""
        held = self.held
        await self._office.board.append(held, release(held.log[-1], self._office.clock.time()))
        self._office.board.forget(held, done=False)

    async def give_away(self, parts: list[tuple[int, int]]) -> bool:
        """Turn the end of the chunk, ``parts``, into chunks of their own; False if it was ours no longer."""
        office, held = self._office, self.held
        held.end = parts[0][0]
        record = share(held.log[-1], parts, office.clock.time())
        if not await office.board.append(held, record):
            self.superseded = True
            return False
        await office.board.publish_parts(held.batch, parts)
        return True

    async def _yield_to_late_writer(self) -> None:
        """Another worker wrote this link: our successor, or a holder before us that was not dead after all.

        In the first case the chunk is no longer ours. In the second we go on behind what it wrote.
        """
        office, held = self._office, self.held
        self._flight, self._pending, self.stale = Run(), Run(), True
        # First the chain, then the log: had a successor claimed before we looked at the chain, the log shows it.
        try:
            held.position, held.ok, held.failed = await chain_end(office.store, office.keys, held.chunk)
        except BrokenChain as broken:
            log.warning("%s", broken)
            held.position, held.ok, held.failed = held.end, broken.ok, broken.failed_to(held.end)
        try:
            await office.store.get(office.keys.claim(held.chunk, len(held.log) + 1))
        except ObjectNotFound:
            return
        self.superseded = True

    async def _flush(self, before: asyncio.Task[None] | None, then: Callable[[], Any]) -> None:
        """Write the next link of the chunk's chain."""
        if before is not None:
            await before
        office, held = self._office, self.held
        self._flight, self._pending = self._pending, Run()
        run = self._flight
        self.flushed_at = office.clock.monotonic()
        key = office.keys.result(held.chunk, held.position)
        body = encode_result(
            run,
            first=held.position,
            worker=office.worker,
            attempt=held.attempt,
            compress=office.store.compresses,
        )
        if not await office.store.create(key, body):
            await self._yield_to_late_writer()
            then()
            return
        held.fenced = True
        held.position += run.count
        held.ok += run.ok
        held.failed += run.failed
        self._flight = Run()


def _note_error(flush: asyncio.Task[None]) -> None:
    """Its error is met again when the chunk is closed; a worker that ends by another error closes none."""
    if not flush.cancelled():
        flush.exception()
