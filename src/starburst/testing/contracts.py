"""What every store has to do, as a test class.

Derive from :class:`StoreContract`, define the fixture ``store``, and pytest runs all of it::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            return MyStore(...)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from starburst.errors import ObjectNotFound, StoreError
from starburst.store.base import Body, ObjectInfo, Store

__all__ = ["StoreContract"]

T = TypeVar("T")

_ODD_KEYS = (
    "odd/with space and ünïcödé 日本",
    "odd/per%cent %2F",
    "odd/#1",
    "odd/a+b&c=d;e,f@g$h!i~j(k)l[m]n{o}",
    "odd/'single' \"double\" <tag> | ^ `",
    "odd/*?:",
    "odd/.hidden",
    "odd/..two",
    "odd/trailing.",
)
_BAD_KEYS = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/..",
    "a/./b",
    "a\0b",
    "a\nb",
    "a\\b",
)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class StoreContract:
    """Tests of one store, given by the fixture ``store``, which has to be empty at the start of each test.

    Attributes:
        empty_folders_vanish: Whether :meth:`Store.list_folders` forgets a folder as soon as its last object
            is deleted. Amazon S3 does; some servers of its kind take a while.
        big_bytes: Size of the largest body that is tried.
    """

    empty_folders_vanish = True
    big_bytes = 20_000_000

    @pytest.fixture
    def store(self) -> Store:
        """The store under test."""
        raise NotImplementedError("define the fixture `store`")

    def test_create_then_get(self, store: Store) -> None:
        """What was created is there."""
        assert _run(store.create("a/b/c", b"body")) is True
        assert _read(store, "a/b/c") == b"body"

    def test_second_create_loses_and_changes_nothing(self, store: Store) -> None:
        """The first writer wins, even against an equal body."""
        assert _run(store.create("k", b"first")) is True
        assert _run(store.create("k", b"second")) is False
        assert _run(store.create("k", b"first")) is False
        assert _read(store, "k") == b"first"

    def test_create_after_delete(self, store: Store) -> None:
        """A deleted key is free again."""
        assert _run(store.create("a/k", b"first"))
        _run(store.delete(["a/k"]))
        assert _run(store.create("a/k", b"second"))
        assert _read(store, "a/k") == b"second"

    def test_overwrite_writes_and_replaces(self, store: Store) -> None:
        """Overwrite needs nothing to be there, and replaces what is."""
        _run(store.overwrite("workers/1", b"one"))
        _run(store.overwrite("workers/1", b"two, longer"))
        _run(store.overwrite("workers/1", b"3"))
        assert _read(store, "workers/1") == b"3"

    def test_version_changes_with_each_overwrite(self, store: Store) -> None:
        """A listing alone shows that an object was overwritten."""
        versions = []
        for beat in range(20):
            _run(store.overwrite("workers/1", b"beat %02d" % beat))
            versions.append(_run(store.list("workers/"))[0].version)
        assert len(set(versions)) == len(versions)

    def test_version_stays_without_overwrite(self, store: Store) -> None:
        """An object that nobody writes keeps its version."""
        _run(store.create("k/1", b"x"))
        assert _run(store.list("k/")) == _run(store.list("k/"))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            [],
            [b""],
            b"bytes",
            bytearray(b"bytearray"),
            memoryview(b"..slice..")[2:-2],
            memoryview(bytes(16)).cast("d"),
            [b"one", b"", bytearray(b"two"), memoryview(b"three")],
            [b"x"] * 3000,
        ],
        ids=[
            "empty",
            "no-buffers",
            "empty-buffer",
            "bytes",
            "bytearray",
            "slice",
            "doubles",
            "mixed",
            "many-buffers",
        ],
    )
    def test_bodies(self, store: Store, body: Body) -> None:
        """Any buffer, and any sequence of them."""
        whole = b"".join(body) if isinstance(body, list) else bytes(memoryview(body))  # type: ignore[arg-type]
        assert _run(store.create("body/created", body))
        _run(store.overwrite("body/overwritten", body))
        assert _read(store, "body/created") == whole
        assert _read(store, "body/overwritten") == whole
        assert [row.size_bytes for row in _run(store.list("body/"))] == [len(whole)] * 2

    def test_big_body(self, store: Store) -> None:
        """A body of many megabytes, in one buffer and in several."""
        block = bytes(range(256)) * 4096
        whole = (block * (self.big_bytes // len(block) + 1))[: self.big_bytes]
        assert _run(store.create("big/one", whole))
        assert _run(
            store.create("big/several", [whole[:7], memoryview(whole)[7:9_000_000], whole[9_000_000:]])
        )
        assert _run(store.get("big/one")) == whole
        assert _run(store.get("big/several")) == whole
        far = _run(store.get_range("big/one", self.big_bytes - 3_000_001, 2_000_000))
        assert far == whole[-3_000_001:-1_000_001]

    def test_a_view_outlives_its_object(self, store: Store) -> None:
        """What was read stays as it was, whatever happens to the object."""
        _run(store.overwrite("big", b"a" * 2_000_000))
        view = _run(store.get("big"))
        _run(store.overwrite("big", b"b" * 2_000_000))
        _run(store.delete(["big"]))
        assert view == b"a" * 2_000_000

    def test_ranges(self, store: Store) -> None:
        """Ranges within, across and beyond the end."""
        _run(store.create("k", b"0123456789"))
        assert bytes(_run(store.get_range("k", 0, 4))) == b"0123"
        assert bytes(_run(store.get_range("k", 3, 2))) == b"34"
        assert bytes(_run(store.get_range("k", 8, 100))) == b"89"
        assert bytes(_run(store.get_range("k", 10, 5))) == b""
        assert bytes(_run(store.get_range("k", 99, 5))) == b""

    def test_missing_object(self, store: Store) -> None:
        """Reading what is not there says so, and names it."""
        _run(store.create("folder/k", b"x"))
        for key in ("nothing", "folder/nothing", "folder", "no/folder/k"):
            with pytest.raises(ObjectNotFound, match=key):
                _run(store.get(key))
            with pytest.raises(ObjectNotFound, match=key):
                _run(store.get_range(key, 0, 1))

    def test_list_is_sorted_recursive_and_complete(self, store: Store) -> None:
        """All objects below the prefix, in the order of their keys, with their sizes."""
        keys = ["b", "a/2", "a/10", "a/1/x", "a-/x", "a.b", "c/d/e/f", "a/1-"]
        for key in keys:
            _run(store.create(key, key.encode()))
        rows = _run(store.list(""))
        assert [(row.key, row.size_bytes) for row in rows] == [(key, len(key)) for key in sorted(keys)]
        assert _keys(store, "a/") == ["a/1-", "a/1/x", "a/10", "a/2"]
        assert _keys(store, "c/d/") == ["c/d/e/f"]

    def test_list_nothing(self, store: Store) -> None:
        """A prefix without objects is an empty list, not an error."""
        _run(store.create("folder/k", b"x"))
        for prefix in ("nothing/", "folder/deeper/", "folder/k/", "folder/x", "folderless"):
            assert _run(store.list(prefix)) == []

    def test_list_by_the_beginning_of_a_name(self, store: Store) -> None:
        """A prefix may end within a name."""
        for key in ("r/000001-a", "r/000001-b/x", "r/000001", "r/000010-a", "r/000002-a", "r0/000001-a"):
            _run(store.create(key, b""))
        assert _keys(store, "r/000001-") == ["r/000001-a", "r/000001-b/x"]
        assert _keys(store, "r/00000") == ["r/000001", "r/000001-a", "r/000001-b/x", "r/000002-a"]
        assert _keys(store, "r") == sorted(_keys(store, ""))
        assert _keys(store, "r/000001-", start_after="r/000001-a") == ["r/000001-b/x"]

    def test_list_start_after(self, store: Store) -> None:
        """Keys up to and including the given one are left out, whether it exists or not."""
        keys = ["s/1", "s/2/x", "s/2/y", "s/3", "s/4"]
        for key in keys:
            _run(store.create(key, b""))
        assert _keys(store, "s/", start_after="s/2/x") == ["s/2/y", "s/3", "s/4"]
        assert _keys(store, "s/", start_after="s/25") == ["s/3", "s/4"]
        assert _keys(store, "s/", start_after="s/4") == []
        assert _keys(store, "s/", start_after="a") == keys
        assert _keys(store, "s/", start_after="z") == []

    def test_many_keys(self, store: Store) -> None:
        """Listing and deleting more than a page of 1,000."""
        keys = [f"many/{number:05d}" for number in range(2345)]
        _gather(store, keys)
        before = store.counts.list
        assert _keys(store, "many/") == keys
        assert store.counts.list - before == 3
        assert _keys(store, "many/", start_after="many/01200") == keys[1201:]
        assert _keys(store, "many/0200") == keys[2000:2010]
        before = store.counts.delete
        _run(store.delete([*keys[5:], "many/never-was"]))
        assert store.counts.delete - before == 3
        assert _keys(store, "many/") == keys[:5]

    def test_list_folders(self, store: Store) -> None:
        """Only folders, only one level, sorted."""
        for key in ("sessions/b/m", "sessions/a/x/y", "sessions/a/m", "sessions/file", "other/k"):
            _run(store.create(key, b""))
        assert _run(store.list_folders("sessions/")) == ["a", "b"]
        assert _run(store.list_folders("")) == ["other", "sessions"]
        assert _run(store.list_folders("sessions/b/")) == []
        assert _run(store.list_folders("nothing/")) == []

    def test_emptied_folder(self, store: Store) -> None:
        """Deleting all objects of a folder deletes the folder, and it can be filled again."""
        for key in ("sessions/a/x/y", "sessions/a/m", "sessions/b/m"):
            _run(store.create(key, b""))
        _run(store.delete(["sessions/a/x/y", "sessions/a/m"]))
        if self.empty_folders_vanish:
            assert _run(store.list_folders("sessions/")) == ["b"]
        assert _keys(store, "sessions/") == ["sessions/b/m"]
        assert _run(store.create("sessions/a/x/y", b"again"))

    def test_delete_what_is_not_there(self, store: Store) -> None:
        """Deleting is done when the object is gone, whoever did it; no keys are no request."""
        _run(store.create("k/1", b"x"))
        _run(store.delete(["k/1", "k/2", "no/such/folder", "k/1"]))
        _run(store.delete(["k/1"]))
        before = store.counts.delete
        _run(store.delete([]))
        assert store.counts.delete == before
        assert _run(store.list("")) == []

    @pytest.mark.parametrize("key", _ODD_KEYS)
    def test_odd_keys(self, store: Store, key: str) -> None:
        """Keys of any characters are kept as they are."""
        assert _run(store.create(key, b"1"))
        assert not _run(store.create(key, b"2"))
        assert _read(store, key) == b"1"
        assert _keys(store, "odd/") == [key]
        assert _keys(store, "odd/", start_after=key) == []
        _run(store.delete([key]))
        assert _keys(store, "odd/") == []

    @pytest.mark.parametrize("key", [*_BAD_KEYS, "x" * 256, "\ud800"])
    def test_impossible_keys_are_refused(self, store: Store, key: str) -> None:
        """Keys that would leave the store, or that some store cannot keep, are refused by all methods."""
        for attempt in (
            lambda: store.create(key, b""),
            lambda: store.overwrite(key, b""),
            lambda: store.get(key),
            lambda: store.get_range(key, 0, 1),
            lambda: store.delete([key]),
        ):
            with pytest.raises(StoreError, match="cannot be an object's key"):
                _run(attempt())
        assert _run(store.list("")) == []

    def test_racing_threads_have_one_winner(self, store: Store) -> None:
        """Of eight threads that create the same keys, exactly one wins each, and its body stands."""
        keys = [f"race/{number}" for number in range(20)]
        won: dict[str, list[bytes]] = {key: [] for key in keys}
        start = threading.Barrier(8)

        async def race(body: bytes) -> None:
            start.wait(30)
            for key in keys:
                if await store.create(key, body):
                    won[key].append(body)

        threads = [threading.Thread(target=_run, args=(race(b"%d" % number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert {key: [_read(store, key)] for key in keys} == won

    def test_counts(self, store: Store) -> None:
        """Requests and bytes are counted by kind."""
        counts = store.counts
        assert counts.total == 0
        _run(store.create("a/1", b"12345"))
        _run(store.create("a/1", b"12345"))
        _run(store.overwrite("a/2", [b"123", b"45"]))
        assert (counts.put, counts.bytes_out) == (3, 15)
        _run(store.get("a/1"))
        _run(store.get_range("a/1", 1, 2))
        with pytest.raises(ObjectNotFound):
            _run(store.get("a/3"))
        assert (counts.get, counts.bytes_in) == (3, 7)
        _run(store.list("a/"))
        _run(store.list("nothing/"))
        _run(store.list_folders(""))
        assert counts.list == 3
        _run(store.delete(["a/1", "a/2"]))
        assert (counts.delete, counts.retries, counts.total) == (1, 0, 10)
        assert counts.s3_usd() == pytest.approx(6 * 5e-6 + 3 * 0.4e-6)

    def test_local_path(self, store: Store) -> None:
        """A store that is a folder tells the file; all others say None."""
        _run(store.create("a/k", b"body"))
        path = store.local_path("a/k")
        assert path is None or path.read_bytes() == b"body"


def _read(store: Store, key: str) -> bytes:
    return bytes(_run(store.get(key)))


def _keys(store: Store, prefix: str, start_after: str | None = None) -> list[str]:
    rows: list[ObjectInfo] = _run(store.list(prefix, start_after=start_after))
    return [row.key for row in rows]


def _gather(store: Store, keys: list[str]) -> None:
    async def create_all() -> None:
        await asyncio.gather(*(store.create(key, b"") for key in keys))

    _run(create_all())
