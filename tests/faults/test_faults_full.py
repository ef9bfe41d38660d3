"""A store without space: whoever needs some waits for it, and says so when it does not come."""

import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
import threading
import time

import psutil
import pytest
from crew import Crew
from fault_tasks import slow_block_of

import starburst
from helpers import eventually
from starburst.client.pool import close_all
from starburst.errors import StarburstError, StoreFull

N, BLOCK = 200, 20_000
EXPECTED = [bytes([i]) * BLOCK for i in range(N)]
FAST = {"workers": 2, "lease": 1.5, "idle_timeout": 60, "progress": False}
_DETACH = 2


class SmallDisk:
    """A file system of 6 MB, of which a filler takes 4."""

    def __init__(self, folder):
        self.folder = folder
        self.url = folder.as_uri()
        self.filler = folder / "filler"

    def fill(self, size_bytes=4_000_000):
        self.filler.write_bytes(bytes(size_bytes))

    def fill_up(self, *, but=0):
        """To the last byte, or nearly so."""
        while (free := shutil.disk_usage(self.folder).free // 4096 * 4096 - but) > 0:
            # Others take space meanwhile; without a buffer nothing is left to be written on closing.
            with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as file:
                file.write(bytes(free))

    def make_room(self):
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs more rights than we have here")
    try:
        yield SmallDisk(folder)
        close_all()
    finally:
        # Lazily: a worker that was killed may still have a file open there.
        ctypes.CDLL(None).umount2(os.fsencode(folder), _DETACH)


def in_thread(work):
    """Run ``work`` beside the test."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except StarburstError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def wait_until_stuck(crew, for_s):
    """Until no result has been written for a while, though some are missing."""
    seen, since = -1, time.monotonic()

    def stuck():
        nonlocal seen, since
        if (now := len(crew.flushed())) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > for_s

    eventually(stuck, what="nothing is written any more")
    assert sum(header.count for header, _ in crew.links().values()) < N


def test_room_is_made_after_a_while(disk):
    """Longer than a lease, in which nobody can write a heartbeat either: nobody is taken for lost, nothing is."""
    disk.fill()
    options = {**FAST, "lease": 6.0}  # longer than the pause between two tries
    thread, outcome = in_thread(
        lambda: starburst.map(slow_block_of, range(N), [BLOCK] * N, store=disk.url, **options)
    )
    crew = Crew.of_only_session(disk.url)
    eventually(crew.flushed, what="the first results")
    disk.fill_up()
    wait_until_stuck(crew, for_s=7.0)
    assert thread.is_alive()
    disk.make_room()
    thread.join(60)
    assert outcome == [EXPECTED]
    assert "worker-lost" not in crew.happened()


def test_room_is_made_again_and_again(disk):
    """In a session that keeps its results: each is there once."""
    disk.fill(3_300_000)
    session = starburst.session(store=disk.url, workers=2, lease=1.5, idle_timeout=60)
    try:
        crew = Crew(disk.url, session.session_id)
        session.map(slow_block_of, range(N), [BLOCK] * N)
        for left in (2_700_000, 2_400_000, 0):
            wait_until_stuck(crew, for_s=1.0)
            disk.fill(left)
        assert session.collect(timeout=60) == EXPECTED
        crew.assert_each_exactly_once()
    finally:
        disk.make_room()
        session.cleanup(force=True)


def test_no_room_for_a_submission(disk):
    disk.fill()
    with pytest.raises(StoreFull, match="No space left") as caught:
        starburst.map(len, [os.urandom(BLOCK) for _ in range(N)], store=disk.url, **FAST)
    assert "cleanup" in caught.value.hint
    # Nothing is left of it, and what fits works.
    assert starburst.map(len, [b"abc"], store=disk.url, **FAST) == [3]


@pytest.mark.parametrize("left_bytes", [0, 100_000], ids=["not a byte", "room for heartbeats"])
def test_room_is_never_made(disk, left_bytes, monkeypatch):
    """Workers give up after their patience, and the call says why."""
    monkeypatch.setenv("STARBURST_PATIENCE", "2")
    disk.fill()
    thread, outcome = in_thread(
        lambda: starburst.map(slow_block_of, range(N), [BLOCK] * N, store=disk.url, **FAST)
    )
    eventually(Crew.of_only_session(disk.url).flushed, what="the first results")
    disk.fill_up(but=left_bytes)
    thread.join(60)
    assert not thread.is_alive(), "the call waits for ever"
    [error] = outcome
    assert isinstance(error, StarburstError)
    assert "No space left" in str(error)
    disk.make_room()


@pytest.mark.parametrize("left_bytes", [0, 100_000], ids=["not a byte", "room for heartbeats"])
def test_room_is_never_made_for_a_detached_session(disk, left_bytes, monkeypatch):
    monkeypatch.setenv("STARBURST_PATIENCE", "2")
    disk.fill()
    session = starburst.session(store=disk.url, workers=2, lease=1.5, idle_timeout=60)
    try:
        crew = Crew(disk.url, session.session_id)
        session.map(slow_block_of, range(N), [BLOCK] * N)
        eventually(crew.flushed, what="the first results")
        disk.fill_up(but=left_bytes)
        thread, outcome = in_thread(session.collect)
        thread.join(60)
        assert not thread.is_alive(), "the call waits for ever"
        [error] = outcome
        assert "No space left" in str(error)
        disk.make_room()
        # Nothing is lost: with room again the session can be finished.
        session.extend(60)
        again = starburst.attach(session.session_id, store=disk.url)
        assert again.collect(timeout=60) == EXPECTED
        crew.assert_each_exactly_once()
    finally:
        session.cleanup(force=True)


def test_a_session_is_removed_from_a_full_store(disk):
    """Which cannot record that it ends; its removal is what makes room."""
    disk.fill()
    session = starburst.session(store=disk.url, workers=2, lease=1.5, idle_timeout=60)
    crew = Crew(disk.url, session.session_id)
    session.map(slow_block_of, range(N), [BLOCK] * N)
    eventually(crew.flushed, what="the first results")
    disk.fill_up()
    session.cleanup(force=True)
    assert not crew.list(crew.keys.prefix)


def test_large_files_are_refused_for_a_while(folder_url):
    """Without special rights: a limit of the worker's process makes the results not fit, and is lifted."""
    session = starburst.session(store=folder_url, workers=1, lease=3.0, idle_timeout=60)
    try:
        crew = Crew(folder_url, session.session_id)
        session.map(slow_block_of, range(10), [BLOCK] * 10)
        eventually(lambda: crew.list(crew.keys.workers), what="the worker beats")
        [worker] = crew.alive("w-")
        process = psutil.Process(worker.pid)
        soft, hard = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        beat = crew.infos(crew.keys.workers)
        eventually(lambda: crew.infos(crew.keys.workers) != beat, what="it still beats")
        eventually(lambda: "waiting for room" in crew.log(worker.worker), what="it waits for room")
        assert crew.done() < 10
        process.rlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert session.collect(timeout=60) == EXPECTED[:10]
        crew.assert_each_exactly_once()
        assert len(crew.list(crew.keys.workers)) == 1
    finally:
        session.cleanup(force=True)
