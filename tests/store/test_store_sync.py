"""The blocking face."""

import asyncio
import threading

import pytest

from starburst.errors import ObjectNotFound
from starburst.store import SyncStore, open_store


@pytest.fixture
def sync(store):
    return SyncStore(store)


def test_all_methods(sync):
    assert sync.create("a/b/1", [b"on", b"e"]) is True
    assert sync.create("a/b/1", b"two") is False
    sync.overwrite("a/c", b"three")
    assert bytes(sync.get("a/b/1")) == b"one"
    assert bytes(sync.get_range("a/b/1", 1, 1)) == b"n"
    assert [row.key for row in sync.list("a/", start_after="a/b/1")] == ["a/c"]
    assert sync.list_folders("a/") == ["b"]
    sync.delete(["a/b/1", "a/c"])
    assert sync.list("") == []
    with pytest.raises(ObjectNotFound):
        sync.get("a/c")
    assert sync.url == sync.store.url
    assert sync.counts is sync.store.counts
    assert sync.poll == sync.store.poll
    assert sync.compresses is sync.store.compresses
    assert sync.local_path("k") == sync.store.local_path("k")


def test_inside_a_running_loop(sync):
    async def as_in_a_notebook():
        sync.create("k", b"x")
        return bytes(sync.get("k"))

    assert asyncio.run(as_in_a_notebook()) == b"x"


def test_from_many_threads(sync):
    winners = []

    def race(number):
        winners.extend(key for key in range(20) if sync.create(f"race/{key:02d}", b"%d" % number))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(winners) == list(range(20))


def test_in_a_forked_process(folder_url):
    import os

    sync = SyncStore(open_store(folder_url))
    sync.create("parent", b"x")
    child = os.fork()
    if child == 0:
        os._exit(0 if sync.create("child", b"y") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [row.key for row in sync.list("")] == ["child", "parent"]
