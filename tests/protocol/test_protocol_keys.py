from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.errors import InvalidStoreURL
from starburst.protocol.keys import (
    ChunkId,
    DoneMark,
    Keys,
    new_session_id,
    new_worker_id,
    session_url,
    split_session_url,
)
from starburst.store.keys import check_key

KEYS = Keys("session-20261124-061500-3fa9c1")
chunks = st.builds(ChunkId, st.integers(1, 999_999), st.integers(0, 99_999_999))


@given(chunks)
def test_a_chunk_id_reads_back(chunk: ChunkId) -> None:
    assert ChunkId.parse(str(chunk)) == chunk
    assert len(str(chunk)) == 15


@given(chunks, chunks)
def test_chunk_ids_sort_as_text_as_they_do_as_numbers(a: ChunkId, b: ChunkId) -> None:
    assert (str(a) < str(b)) == (a < b)


@given(chunks, st.integers(1, 9999))
def test_a_claims_key_reads_back(chunk: ChunkId, n: int) -> None:
    key = KEYS.claim(chunk, n)
    assert KEYS.parse_claim(key) == (chunk, n)
    assert key.startswith(KEYS.claim_log(chunk))
    assert key.startswith(KEYS.claims(chunk.batch))


@given(chunks, st.integers(0, 99_999_999))
def test_a_results_key_reads_back(chunk: ChunkId, first: int) -> None:
    key = KEYS.result(chunk, first)
    assert KEYS.parse_result(key) == (chunk, first)
    assert key.startswith(KEYS.chunk_results(chunk))
    assert key.startswith(KEYS.results(chunk.batch))


@given(chunks, st.integers(0, 10**8), st.integers(0, 10**8))
def test_a_done_mark_reads_back(chunk: ChunkId, ok: int, failed: int) -> None:
    mark = DoneMark(chunk, ok, failed)
    key = KEYS.done(mark)
    assert KEYS.parse_done(key) == mark
    assert key.startswith(KEYS.done_marks(chunk.batch))
    assert key.startswith(KEYS.done_marks())


@given(st.integers(0, 999_999), st.integers(0, 999_999))
def test_events_sort_by_number(a: int, b: int) -> None:
    assert KEYS.parse_event(KEYS.event(a)) == a
    assert (KEYS.event(a) < KEYS.event(b)) == (a < b)


def test_every_key_stands_below_the_sessions_prefix_and_every_store_can_keep_it() -> None:
    chunk = ChunkId(1, 0)
    keys = [
        KEYS.manifest,
        KEYS.function("a" * 64),
        KEYS.object("a" * 64),
        KEYS.batch(1),
        KEYS.claim(chunk, 1),
        KEYS.result(chunk, 0),
        KEYS.done(DoneMark(chunk, 1, 0)),
        KEYS.worker("w-1"),
        KEYS.wanted_by("w-1"),
        KEYS.event(1),
        KEYS.leader(1),
        KEYS.leader_beat(1),
    ]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert key.startswith(KEYS.prefix)
        assert check_key(key) == key
    folders = [
        KEYS.batches,
        KEYS.all_results,
        KEYS.done_marks(),
        KEYS.workers,
        KEYS.wanted,
        KEYS.events,
        KEYS.leaders,
    ]
    assert all(folder.endswith("/") for folder in folders)
    # One folder for all chunks: a store that keeps folders lists it at once.
    logs = [KEYS.claim_log(chunk), KEYS.chunk_results(chunk)]
    assert all(log.endswith(f"/{chunk}.") for log in logs)


@pytest.mark.parametrize(
    "bad", ["", " ", "a b", "a/b", "../x", ".", ".hidden", "-x", "a\n", "ä", "a" * 129, "a*", "a\\b", "a\0"]
)
def test_a_bad_session_id_is_refused_and_the_hint_says_what_ids_look_like(bad: str) -> None:
    with pytest.raises(InvalidStoreURL, match="is not a session id") as caught:
        Keys(bad)
    assert "starburst sessions" in str(caught.value.hint)


@pytest.mark.parametrize(
    "root",
    ["s3://bucket", "s3://bucket/a/prefix", "file:///data/star burst", "memory://x", "s3://b/sessions"],
)
def test_a_sessions_url_splits_into_what_it_was_made_of(root: str) -> None:
    url = session_url(root, "my.run_1")
    assert split_session_url(url) == (root, "my.run_1")
    assert split_session_url(f"{url}/") == (root, "my.run_1")
    assert session_url(f"{root}/", "my.run_1") == url


@pytest.mark.parametrize(
    "url",
    ["s3://bucket", "s3://bucket/sessions", "s3://bucket/sessions/", "s3://b/sessions/x/y", "", "sessions/x"],
)
def test_what_is_not_a_sessions_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidStoreURL) as caught:
        split_session_url(url)
    assert caught.value.hint


def test_new_ids_are_valid_unique_and_name_their_kind() -> None:
    ids = {new_session_id("map") for _ in range(50)}
    assert len(ids) == 50
    for name in ids:
        assert re.fullmatch(r"map-\d{8}-\d{6}-[0-9a-f]{6}", name)
        Keys(name)
    workers = {new_worker_id() for _ in range(1000)}
    assert len(workers) == 1000
    assert all(re.fullmatch(r"w-[0-9a-f]{10}", worker) for worker in workers)
