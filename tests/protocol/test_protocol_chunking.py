from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.protocol.chunking import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_TASKS,
    chunk_counts,
    cut_by_bytes,
    firsts,
    split_evenly,
)

n_tasks = st.integers(0, 300_000)
lanes = st.integers(1, 2000)


@given(n_tasks, lanes)
def test_sizes_add_up_never_grow_and_stay_within_bounds(n: int, lanes: int) -> None:
    counts = chunk_counts(n, lanes)
    assert sum(counts) == n
    assert all(1 <= count <= MAX_CHUNK_TASKS for count in counts)
    assert all(later <= earlier for earlier, later in pairwise(counts))


@given(n_tasks, lanes)
def test_the_first_round_keeps_every_lane_busy_and_holds_back_half(n: int, lanes: int) -> None:
    counts = chunk_counts(n, lanes)
    assert len(counts) >= min(n, lanes)
    assert sum(counts[:lanes]) <= max(n // 2, lanes)


@given(st.integers(0, 16_000), lanes)
def test_few_tasks_are_chunks_of_their_own(n: int, lanes: int) -> None:
    if n <= 8 * lanes:
        assert chunk_counts(n, lanes) == [1] * n


@given(n_tasks, lanes, st.integers(1, 20_000))
def test_a_given_chunksize_is_kept(n: int, lanes: int, chunksize: int) -> None:
    counts = chunk_counts(n, lanes, chunksize)
    assert sum(counts) == n
    assert all(count == chunksize for count in counts[:-1])
    assert not counts or 1 <= counts[-1] <= chunksize


@pytest.mark.parametrize("n", [1, 7, 999, 10_000, 1_000_000])
def test_the_number_of_chunks_is_bounded_by_rounds_of_lanes(n: int) -> None:
    for lanes in (1, 2, 8, 64, 500):
        assert len(chunk_counts(n, lanes)) <= n // MAX_CHUNK_TASKS + 10 * lanes


def test_ten_thousand_tasks_take_a_fifth_of_a_request_each_on_up_to_64_lanes() -> None:
    """Claim, fetch, flush and mark are four requests a chunk."""
    for lanes in range(1, 65):
        assert 4 * len(chunk_counts(10_000, lanes)) <= 0.2 * 10_000, lanes


@given(st.integers(1, 400), lanes, st.data())
def test_cutting_by_bytes_keeps_order_and_bounds(n: int, lanes: int, data: st.DataObject) -> None:
    size = st.sampled_from([0, 1, 1000, MAX_CHUNK_BYTES // 3, MAX_CHUNK_BYTES, 2 * MAX_CHUNK_BYTES])
    sizes = data.draw(st.lists(size, min_size=n, max_size=n))
    counts = chunk_counts(n, lanes)
    cut = cut_by_bytes(counts, sizes)
    assert sum(cut) == n
    assert set(firsts(counts)) <= set(firsts(cut))
    for first, count in zip(firsts(cut), cut, strict=True):
        assert count == 1 or 2 <= count <= max(counts)
        assert count == 1 or sum(sizes[first : first + count]) <= MAX_CHUNK_BYTES


def test_small_arguments_are_not_cut() -> None:
    counts = chunk_counts(100_000, 4)
    assert cut_by_bytes(counts, [100] * 100_000) == counts


@given(st.lists(st.integers(1, 50), max_size=50))
def test_firsts_are_where_chunks_begin(counts: list[int]) -> None:
    starts = firsts(counts)
    assert len(starts) == len(counts)
    assert all(
        later - earlier == count for (earlier, later), count in zip(pairwise(starts), counts, strict=False)
    )
    assert starts[:1] == [0] * min(1, len(counts))


@given(st.integers(0, 10_000), st.integers(1, 5000), st.integers(1, 600))
def test_splitting_evenly_covers_the_range(first: int, n: int, parts: int) -> None:
    split = split_evenly(first, first + n, parts)
    assert len(split) == min(parts, n)
    assert split[0][0] == first
    assert split[-1][1] == first + n
    assert all(a[1] == b[0] for a, b in pairwise(split))
    lengths = [end - start for start, end in split]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
