"""Cancelling tasks that no worker has claimed, with certainty: the client claims them itself."""

from __future__ import annotations

from starburst.client.connection import Connection
from starburst.protocol.claims import first_claim, release, share
from starburst.protocol.keys import ChunkId, new_worker_id
from starburst.protocol.records import Claim, Failure, encode_json
from starburst.protocol.results import Run, encode_result, finish_chunk
from starburst.protocol.sessions import publish_parts

__all__ = ["withdraw"]


async def withdraw(connection: Connection, chunk: ChunkId, count: int, *, only: int | None = None) -> bool:
    """Take a chunk, or task ``only`` of it, back; False if a worker has claimed the chunk.

    Of a single task, what stands before it stays in the chunk, which is given back; what stands behind it becomes
    a chunk of its own. Should this process die on the way, a worker takes the chunk over as from a lost worker.

    Args:
        connection: The session.
        chunk: The chunk.
        count: How many tasks it has.
        only: The task's place in the chunk, from 0; None means all of them.
    """
    me = new_worker_id().replace("w-", "client-")
    at = connection.clock.time()
    claim = first_claim(me, chunk.first, at)
    if not await _append(connection, chunk, 1, claim):
        return False
    if only is None or count == 1:
        return await _record_cancelled(connection, chunk, count, me)
    task, end = chunk.first + only, chunk.first + count
    parts = [
        part for part in ((task, task + 1), (task + 1, end)) if part[0] < part[1] and part[0] > chunk.first
    ]
    lone = ChunkId(chunk.batch, task)
    # A step that somebody was before us in means that we were taken for lost: then the task may run.
    if parts and not await _append(connection, chunk, 2, share(claim, parts, at)):
        return False
    if lone != chunk and not await _append(connection, lone, 1, first_claim(me, task, at)):
        return False
    cancelled = await _record_cancelled(connection, lone, 1, me)
    if parts:
        await publish_parts(connection.store, connection.keys, chunk.batch, parts, at=at)
    if lone != chunk:
        await _append(connection, chunk, 3, release(claim, at))
    return cancelled


async def _append(connection: Connection, chunk: ChunkId, n: int, record: Claim) -> bool:
    return await connection.store.create(connection.keys.claim(chunk, n), encode_json(record))


async def _record_cancelled(connection: Connection, chunk: ChunkId, count: int, me: str) -> bool:
    run = Run()
    for _ in range(count):
        run.add_failure(Failure(kind="cancelled", message="it was cancelled before it ran"))
    body = encode_result(run, first=chunk.first, worker=me, attempt=1, compress=False)
    won = await connection.store.create(connection.keys.result(chunk, chunk.first), body)
    if won:
        await finish_chunk(connection.store, connection.keys, chunk, 0, count)
    return won
