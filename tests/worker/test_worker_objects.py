"""Large objects on a worker: fetched once, mapped by all, private to each task that changes them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from worker_parts import KEYS

from starburst.errors import CorruptObject, ObjectNotFound
from starburst.protocol.pack import encode_pack
from starburst.protocol.payload import LargeObjects
from starburst.protocol.records import ObjectHeader
from starburst.store import open_store
from starburst.store.memory import MemoryStore
from starburst.worker.objects import ObjectFiles
from starburst.worker.objects_cache import ObjectCache


def packed(value, *, compress=False):
    large = LargeObjects()
    sha256 = large.add(value)
    buffers, name = large.found[sha256]
    return sha256, b"".join(encode_pack(ObjectHeader(nonce="n", type_name=name), buffers, compress=compress))


class Files:
    """Objects in files, and how often each was asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []
        self.objects = ObjectFiles(self.locate)

    def put(self, value, **options):
        sha256, body = packed(value, **options)
        (self.folder / sha256).write_bytes(body)
        return sha256

    def locate(self, sha256):
        self.asked.append(sha256)
        return str(self.folder / sha256)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    "value",
    [np.arange(500_000), {"a": np.zeros(300_000), "b": "text" * 1000}, b"x" * 2_000_000],
    ids=["array", "dictionary", "bytes"],
)
def test_an_object_is_what_was_put(files, value, compress):
    loaded = files.objects.load(files.put(value, compress=compress))
    np.testing.assert_equal(loaded, value)


@pytest.mark.parametrize("compress", [True, False])
def test_what_one_task_changes_no_other_sees(files, compress):
    sha256 = files.put(np.zeros(300_000), compress=compress)
    first = files.objects.load(sha256)
    first[:] = 1
    second = files.objects.load(sha256)
    assert second.sum() == 0
    second[0] = 2
    assert (first[0], second[0]) == (1, 2)
    assert ObjectFiles(files.locate).load(sha256).sum() == 0, "nor does the file change"


def test_an_object_is_asked_for_once(files):
    sha256 = files.put(np.zeros(300_000))
    for _ in range(3):
        files.objects.load(sha256)
    assert files.asked == [sha256]


@pytest.mark.parametrize("where", [0.05, 0.5, 0.99])
def test_a_damaged_file_is_an_error_that_names_the_object(files, where):
    sha256 = files.put(np.arange(300_000))
    path = files.folder / sha256
    body = bytearray(path.read_bytes())
    body[int(len(body) * where)] ^= 0xFF
    path.write_bytes(body)
    with pytest.raises(CorruptObject, match=sha256):
        files.objects.load(sha256)


def test_a_truncated_file_is_an_error_that_names_the_object(files):
    sha256 = files.put(np.arange(300_000))
    path = files.folder / sha256
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptObject, match=sha256):
        files.objects.load(sha256)


# The agent's side


def test_objects_of_a_folder_store_are_read_in_place(folder_url):
    store = open_store(folder_url)
    sha256, body = packed(np.arange(300_000))
    cache = ObjectCache(store, KEYS)

    async def main():
        await store.create(KEYS.object(sha256), body)
        before = store.counts.get
        path = await cache.locate(sha256)
        assert store.counts.get == before
        return path

    path = asyncio.run(main())
    assert ObjectFiles(lambda _: path).load(sha256)[-1] == 299_999
    cache.close()
    assert ObjectFiles(lambda _: path).load(sha256)[-1] == 299_999, "closing removes copies only"


def test_objects_of_other_stores_are_copied_once_whoever_asks():
    store = MemoryStore()
    sha256, body = packed(np.arange(300_000))
    cache = ObjectCache(store, KEYS)

    async def main():
        await store.create(KEYS.object(sha256), body)
        return set(await asyncio.gather(*(cache.locate(sha256) for _ in range(10))))

    (path,) = asyncio.run(main())
    assert store.counts.get == 1
    assert ObjectFiles(lambda _: path).load(sha256)[-1] == 299_999
    cache.close()
    with pytest.raises(FileNotFoundError):
        ObjectFiles(lambda _: path).load(sha256)


def test_an_object_that_is_not_there_is_an_error_and_may_come_later():
    store = MemoryStore()
    sha256, body = packed(np.arange(300_000))
    cache = ObjectCache(store, KEYS)

    async def main():
        with pytest.raises(ObjectNotFound):
            await cache.locate(sha256)
        await store.create(KEYS.object(sha256), body)
        return await cache.locate(sha256)

    path = asyncio.run(main())
    assert ObjectFiles(lambda _: path).load(sha256).shape == (300_000,)
    cache.close()
