"""How a submission is cut into chunks: factoring self-scheduling, bounded by count and bytes.

Source: Hummel, Schonberg, Flynn, "Factoring: a method for scheduling parallel loops", CACM 35(8), 1992: rounds of
equal chunks, each round taking half of what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

__all__ = ["MAX_CHUNK_BYTES", "MAX_CHUNK_TASKS", "chunk_counts", "cut_by_bytes", "firsts", "split_evenly"]

MAX_CHUNK_TASKS = 10_000
MAX_CHUNK_BYTES = 8 * 2**20
_SINGLES_UP_TO = 8
"""Tasks per lane up to which every task is a chunk of its own."""
_ROUNDS = 6


def chunk_counts(n_tasks: int, lanes: int, chunksize: int | None = None) -> list[int]:
    """The sizes of consecutive chunks for ``n_tasks``.

    Args:
        n_tasks: How many tasks, from 0.
        lanes: Tasks that can run at once (workers times slots), at least 1.
        chunksize: A fixed size instead.

    Returns:
        Positive sizes that add up to ``n_tasks``, never growing.
    """
    if chunksize is not None:
        whole, rest = divmod(n_tasks, chunksize)
        return [chunksize] * whole + [rest] * (rest > 0)
    if n_tasks <= _SINGLES_UP_TO * lanes:
        return [1] * n_tasks
    smallest = max(1, n_tasks // (lanes * 2**_ROUNDS))
    counts: list[int] = []
    left = n_tasks
    while left > 0:
        size = min(MAX_CHUNK_TASKS, max(smallest, left // (2 * lanes)))
        for _ in range(lanes):
            counts.append(min(size, left))
            left -= counts[-1]
            if left == 0:
                break
    return counts


def cut_by_bytes(counts: Sequence[int], sizes_bytes: Sequence[int]) -> list[int]:
    """The same chunks, cut further where the arguments of one would pass :data:`MAX_CHUNK_BYTES`.

    Args:
        counts: Chunk sizes.
        sizes_bytes: Bytes of each task's arguments, in order.
    """
    cut: list[int] = []
    task = 0
    for count in counts:
        run = run_bytes = 0
        for size in sizes_bytes[task : task + count]:
            if run and run_bytes + size > MAX_CHUNK_BYTES:
                cut.append(run)
                run = run_bytes = 0
            run += 1
            run_bytes += size
        cut.append(run)
        task += count
    return cut


def firsts(counts: Sequence[int]) -> list[int]:
    """The first task of each chunk."""
    return [0, *accumulate(counts)][: len(counts)]


def split_evenly(first: int, end: int, parts: int) -> list[tuple[int, int]]:
    """Tasks ``first`` … ``end - 1`` in at most ``parts`` runs of nearly equal length, none empty."""
    n = end - first
    parts = min(parts, n)
    bounds = [first + n * i // parts for i in range(parts + 1)]
    return list(pairwise(bounds))
