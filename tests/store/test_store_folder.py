"""What is special about a folder: no half-written files, full disks, other people's files."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from starburst.errors import AccessDenied, InvalidStoreURL, ObjectNotFound, StoreError, StoreFull
from starburst.store import open_store
from starburst.store.errors import BY_ERRNO, store_error
from starburst.store.keys import RESERVED


def run(work):
    return asyncio.run(work)


@pytest.fixture
def store(folder_url):
    return open_store(folder_url)


@pytest.fixture
def root(tmp_path, store):
    return tmp_path / "store"


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_only_objects_are_left(store, root):
    run(store.create("a/1", b"x" * 300_000))
    run(store.create("a/1", b"y" * 300_000))
    run(store.overwrite("a/2", b"x"))
    run(store.overwrite("a/2", b"y" * 300_000))
    assert files(root) == ["a/1", "a/2"]


def test_unfinished_files_are_never_listed(store, root):
    (root / RESERVED / "half").write_bytes(b"half")
    run(store.create("a/1", b""))
    assert [row.key for row in run(store.list(""))] == ["a/1"]
    assert [row.key for row in run(store.list("."))] == []
    assert run(store.list_folders("")) == ["a"]
    with pytest.raises(StoreError, match="the store's own"):
        run(store.get(f"{RESERVED}/half"))


def test_leftovers_of_dead_writers_are_swept(store, root, folder_url):
    old, fresh = root / RESERVED / "old", root / RESERVED / "fresh"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_store(folder_url)
    assert files(root) == [f"{RESERVED}/fresh"]


def test_store_survives_removal_of_its_own_folder(store, root):
    (root / RESERVED).rmdir()
    assert run(store.create("a/1", b"x"))


def test_large_objects_are_mapped_privately(store, root):
    run(store.create("big", b"a" * 2_000_000))
    view = run(store.get("big"))
    assert not view.readonly
    view[0] = ord("b")
    assert (root / "big").read_bytes()[:1] == b"a"
    assert run(store.get("big"))[0] == ord("a")


def test_object_and_folder_of_one_name(store):
    run(store.create("a/1", b"x"))
    with pytest.raises(StoreError, match="folder"):
        run(store.create("a", b"x"))
    with pytest.raises(StoreError, match="overwrite 'a'"):
        run(store.overwrite("a", b"x"))
    with pytest.raises(StoreError, match="create 'a/1/x'") as caught:
        run(store.create("a/1/x", b"x"))
    assert not isinstance(caught.value, ObjectNotFound)
    run(store.delete(["a", "a/1/x"]))
    assert run(store.get("a/1")) == b"x"


def test_full_disk(folder_url, store, root):
    """A limit on the size of files stands for a full disk, which cannot be had without privileges."""
    program = """
import asyncio, resource, sys
from starburst.errors import StoreFull
from starburst.store import open_store
store = open_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for write in (store.create, store.overwrite):
    for size in (1_500_000, 200_000_000):
        try:
            asyncio.run(write("k", bytes(size)))
        except StoreFull as error:
            print(error)
asyncio.run(store.create("small", b"x"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, folder_url], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("could not create 'k'") == 2
    assert done.stdout.count("could not overwrite 'k'") == 2
    assert "ulimit -f" in done.stdout
    assert files(root) == ["small"]


@pytest.mark.parametrize(
    ("name", "kind"), [("ENOSPC", StoreFull), ("EDQUOT", StoreFull), ("EACCES", AccessDenied)]
)
def test_system_errors_are_mapped(name, kind):
    import errno

    error = OSError(getattr(errno, name), "as the system says")
    mapped = store_error(error, verb="create", key="k", url="file:///x")
    assert type(mapped) is kind is BY_ERRNO[getattr(errno, name)][0]
    assert "as the system says" in mapped.message
    assert mapped.hint


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidStoreURL, match="cannot be used as a store") as caught:
            open_store(path.as_uri())
        assert "write to" in caught.value.hint


def test_other_peoples_files_do_no_harm(store, root):
    (root / "dangling").symlink_to(root / "nowhere")
    (root / "notes.txt").write_text("x")
    assert [row.key for row in run(store.list(""))] == ["notes.txt"]
    assert Path(store.local_path("notes.txt")).read_text() == "x"
