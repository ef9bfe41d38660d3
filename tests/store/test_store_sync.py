"""The blocking face."""

import asyncio
import os
import threading

import pytest

from starburst.errors import ObjectNotFound, StoreError
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


def in_a_fork(work):
    """Exit code of a forked process: 0 if ``work()`` was true."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)  # whatever happened, the tests go on in the parent only
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_folder_in_a_forked_process(folder_url):
    sync = SyncStore(open_store(folder_url))
    sync.create("parent", b"x")
    assert in_a_fork(lambda: sync.create("child", b"y")) == 0
    assert [row.key for row in sync.list("")] == ["child", "parent"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_s3_in_a_forked_process_is_refused(s3_url):
    sync = SyncStore(open_store(s3_url))
    sync.create("parent", b"x")

    def refused():
        try:
            sync.create("child", b"y")
        except StoreError as error:
            return "forked" in str(error)

    assert in_a_fork(refused) == 0
