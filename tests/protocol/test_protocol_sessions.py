from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from stepping import SteppedStore, Stepper, drive
from test_protocol_records import MANIFEST

from starburst.clock import SystemClock
from starburst.errors import AccessDenied, CorruptObject, InvalidStoreURL, SessionNotFound
from starburst.protocol.keys import Keys
from starburst.protocol.pack import Pack, PackIndex, encode_pack
from starburst.protocol.records import BatchHeader, Event, Heartbeat, encode_json
from starburst.protocol.sessions import (
    EventLog,
    append_event,
    create_session,
    delete_session,
    list_session_ids,
    publish_batch,
    read_batch,
    read_heartbeat,
    read_manifest,
)
from starburst.store import Store, open_store
from starburst.store.memory import MemoryStore
from starburst.testing import FaultyStore

KEYS = Keys("session-20261124-061500-3fa9c1")
CLOCK = SystemClock()


@pytest.fixture(params=["memory", "folder"])
def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store again and again."""
    url = f"memory://{tmp_path.name}-{id(tmp_path)}" if request.param == "memory" else f"file://{tmp_path}"
    return lambda: open_store(url)


def batch(title: str, seq: int = 0) -> bytes:
    header = BatchHeader(n_tasks=1, firsts=(0,), counts=(1,), title=title, lanes=max(1, seq))
    return b"".join(encode_pack(header, [title.encode()]))


def titles(store: Store) -> dict[int, str]:
    async def read() -> dict[int, str]:
        rows = await store.list(KEYS.batches)
        return {int(info.key[-6:]): (await read_batch(store, info))[0].title for info in rows}

    return asyncio.run(read())


def test_a_session_is_created_once_and_read_back(open_another: Callable[[], Store]) -> None:
    store = open_another()
    first = msgspec.structs.replace(MANIFEST, session_id="one")
    assert asyncio.run(create_session(store, first))
    assert not asyncio.run(create_session(open_another(), msgspec.structs.replace(first, owner="else")))
    assert asyncio.run(read_manifest(open_another(), "one")) == first
    assert asyncio.run(list_session_ids(store)) == ["one"]


def test_an_unknown_session_names_those_that_look_like_it(open_another: Callable[[], Store]) -> None:
    store = open_another()
    for name in ("session-20261124-061500-3fa9c1", "map-20261124-070000-aaaaaa", "nightly"):
        asyncio.run(create_session(store, msgspec.structs.replace(MANIFEST, session_id=name)))
    for given, near in (
        ("session-20261124-061500-3fa9c2", "session-20261124-061500-3fa9c1"),
        ("3fa9c1", "session-20261124-061500-3fa9c1"),
        ("nihgtly", "nightly"),
    ):
        with pytest.raises(SessionNotFound, match=f"there is no session '{given}'") as caught:
            asyncio.run(read_manifest(store, given))
        assert f"did you mean {near}" in str(caught.value.hint)
    with pytest.raises(SessionNotFound) as caught:
        asyncio.run(read_manifest(store, "zzzzzzzz"))
    assert "did you mean" not in str(caught.value)
    assert "lists the 3 there are" in str(caught.value)
    with pytest.raises(InvalidStoreURL):
        asyncio.run(read_manifest(store, "a/b"))


def test_a_damaged_manifest_is_named() -> None:
    store = MemoryStore()
    drive(store.create(KEYS.manifest, b"{"))
    with pytest.raises(CorruptObject, match=KEYS.manifest):
        drive(read_manifest(store, KEYS.session_id))


def test_batches_that_threads_publish_at_once_are_all_there_once(open_another: Callable[[], Store]) -> None:
    numbers: dict[str, int] = {}
    go = threading.Barrier(6)

    def publish(name: str) -> None:
        store, known = open_another(), 1
        go.wait(60)
        for i in range(15):
            title = f"{name}{i}"
            known = (
                asyncio.run(publish_batch(store, KEYS, functools.partial(batch, title), next_seq=known)) + 1
            )
            numbers[title] = known - 1

    threads = [threading.Thread(target=publish, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = titles(open_another())
    assert sorted(found) == list(range(1, 91)), "no number is left out"
    assert {title: seq for seq, title in found.items()} == numbers


PUBLISHER = """
import asyncio, sys
from starburst.protocol.keys import Keys
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import BatchHeader
from starburst.protocol.sessions import publish_batch
from starburst.store import open_store

url, session, name = sys.argv[1:]
store = open_store(url)
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    header = BatchHeader(n_tasks=1, firsts=(0,), counts=(1,), title=f"{name}{i}")
    asyncio.run(publish_batch(store, Keys(session), lambda seq: encode_pack(header, [b"x"])))
"""


def test_batches_that_processes_publish_at_once_are_all_there_once(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    command = [sys.executable, "-W", "error", "-c", PUBLISHER, url, KEYS.session_id]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    publishers = [subprocess.Popen([*command, name], **pipes) for name in "abcd"]  # type: ignore[call-overload]
    for publisher in publishers:
        assert publisher.stdout.readline() == "ready\n"
    for publisher in publishers:
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    for publisher in publishers:
        publisher.communicate(timeout=120)
        assert publisher.returncode == 0
    found = titles(open_store(url))
    assert sorted(found) == list(range(1, 81))
    assert sorted(found.values()) == sorted(f"{name}{i}" for name in "abcd" for i in range(20))


def test_a_right_guess_of_the_number_costs_one_request_and_a_wrong_one_three() -> None:
    store = MemoryStore()
    for expected in (1, 2, 3):
        assert drive(publish_batch(store, KEYS, lambda seq: batch("x", seq), next_seq=expected)) == expected
    assert store.counts.total == 3
    assert drive(publish_batch(store, KEYS, lambda seq: batch("late", seq))) == 4
    assert store.counts.total == 6
    assert titles(store)[4] == "late"


def test_a_batch_of_any_size_is_read_without_its_frames_if_it_is_large(
    open_another: Callable[[], Store],
) -> None:
    async def check() -> None:
        store = open_another()
        for name, n_bytes, kind in (("small", 1000, Pack), ("large", 5 * 2**20, PackIndex)):
            header = BatchHeader(n_tasks=2, firsts=(0, 1), counts=(1, 1), title=name)
            frames = [bytes(n_bytes), b"second"]
            seq = await publish_batch(store, KEYS, lambda _, h=header, f=frames: encode_pack(h, f))
            (info,) = await store.list(KEYS.batch(seq))
            bytes_in = store.counts.bytes_in
            found, source = await read_batch(store, info)
            assert found == header
            assert isinstance(source, kind)
            assert store.counts.bytes_in - bytes_in < 40_000
            if isinstance(source, PackIndex):
                frame = source.frames[1]
                stored = await store.get_range(info.key, frame.offset, frame.stored_bytes)
                assert bytes(source.frame(1, stored)) == b"second"

    asyncio.run(check())


def test_heartbeats_are_read_or_there_is_none() -> None:
    store = MemoryStore()
    beat = Heartbeat(
        worker="w-1", beat=3, state="running", started_at=1.0, at=2.0, running=("000001-00000000",)
    )
    assert drive(read_heartbeat(store, KEYS, "w-1")) is None
    drive(store.overwrite(KEYS.worker("w-1"), encode_json(beat)))
    assert drive(read_heartbeat(store, KEYS, "w-1")) == beat
    drive(store.overwrite(KEYS.worker("w-1"), b"{"))
    assert drive(read_heartbeat(store, KEYS, "w-1")) is None


def test_events_are_read_in_order_and_once(open_another: Callable[[], Store]) -> None:
    async def check() -> None:
        store, events = open_another(), EventLog(open_another(), KEYS)
        assert await events.news() == []
        for i in range(12):
            await append_event(store, KEYS, CLOCK, "scaled", by="ann", data={"workers": i})
            if i % 3 == 0:
                assert [e.data["workers"] for e in await events.news()] == list(range(max(0, i - 2), i + 1))
        assert [e.data["workers"] for e in await events.news()] == [10, 11]
        assert await events.news() == []
        assert [(e.what, e.by) for e in await EventLog(store, KEYS).news()] == [("scaled", "ann")] * 12

    asyncio.run(check())


def test_events_that_race_are_all_seen_once(open_another: Callable[[], Store]) -> None:
    seen: list[tuple[str, int]] = []
    go = threading.Barrier(4)

    def append(name: str) -> None:
        store = open_another()
        go.wait(60)
        for i in range(12):
            asyncio.run(append_event(store, KEYS, CLOCK, name, data={"i": i}))

    threads = [
        threading.Thread(target=append, args=(name,)) for name in ("scaled", "extended", "worker-lost")
    ]
    for thread in threads:
        thread.start()
    events = EventLog(open_another(), KEYS)
    go.wait(60)
    while any(thread.is_alive() for thread in threads):
        seen += [(event.what, event.data["i"]) for event in asyncio.run(events.news())]
    seen += [(event.what, event.data["i"]) for event in asyncio.run(events.news())]
    assert sorted(seen) == sorted((t, i) for t in ("scaled", "extended", "worker-lost") for i in range(12))


def test_a_writer_that_was_slow_gets_a_later_number_and_no_reader_misses_it() -> None:
    store = SteppedStore()
    slow = Stepper(append_event(store, KEYS, CLOCK, "cancelled"))
    slow.step(2)  # it has listed, and found none
    plain = MemoryStore(store.url.removeprefix("memory://"))
    for i in range(3):
        drive(append_event(plain, KEYS, CLOCK, "scaled", data={"workers": i}))
    early = EventLog(plain, KEYS)
    assert [event.what for event in asyncio.run(early.news())] == ["scaled"] * 3
    while slow.step():
        pass
    assert [event.what for event in asyncio.run(early.news())] == ["cancelled"]
    assert [event.what for event in asyncio.run(EventLog(plain, KEYS).news())] == ["scaled"] * 3 + [
        "cancelled"
    ]


class Torn(MemoryStore):
    """A folder may show a later file and not an earlier one that came while it was read."""

    hidden = ""

    async def list(self, prefix: str, *, start_after: str | None = None) -> list[object]:  # type: ignore[override]
        rows = await super().list(prefix, start_after=start_after)
        return [row for row in rows if row.key != self.hidden]


def test_an_event_that_a_listing_left_out_is_seen_by_the_next() -> None:
    store = Torn()
    for i in range(5):
        drive(append_event(store, KEYS, CLOCK, "scaled", data={"workers": i}))
    store.hidden = KEYS.event(3)
    events = EventLog(store, KEYS)
    assert [event.data["workers"] for event in asyncio.run(events.news())] == [0, 1]
    store.hidden = ""
    assert [event.data["workers"] for event in asyncio.run(events.news())] == [2, 3, 4]
    assert asyncio.run(events.news()) == []


def test_a_damaged_event_shows_and_hides_no_other() -> None:
    store = MemoryStore()
    drive(append_event(store, KEYS, CLOCK, "scaled", data={"workers": 1}))
    drive(store.create(KEYS.event(2), b"{"))
    drive(append_event(store, KEYS, CLOCK, "scaled", data={"workers": 3}))
    events = EventLog(store, KEYS)
    before, damaged, after = asyncio.run(events.news())
    assert (before.data["workers"], after.data["workers"]) == (1, 3)
    assert damaged.what == "unreadable"
    assert KEYS.event(2) in damaged.data["error"]
    assert asyncio.run(events.news()) == []


def test_reading_old_events_again_costs_one_get() -> None:
    store = MemoryStore()
    for i in range(30):
        drive(append_event(store, KEYS, CLOCK, "scaled", data={"workers": i}))
    events = EventLog(store, KEYS)
    asyncio.run(events.news())
    before, listed = store.counts.total, store.counts.list
    asyncio.run(events.news())
    assert store.counts.total - before == 1
    assert store.counts.list == listed


def test_where_a_missing_object_is_denied_the_events_are_listed() -> None:
    """As on S3 for those whose right to list has a condition."""
    plain = MemoryStore()
    store = FaultyStore(plain)
    events = EventLog(store, KEYS)
    assert asyncio.run(events.news()) == []
    drive(append_event(plain, KEYS, CLOCK, "scaled", data={"workers": 1}))
    store.fail("get", KEYS.event(1), error=AccessDenied("hidden"))
    assert [event.data["workers"] for event in asyncio.run(events.news())] == [1]
    drive(append_event(plain, KEYS, CLOCK, "scaled", data={"workers": 2}))
    before = plain.counts.list
    assert [event.data["workers"] for event in asyncio.run(events.news())] == [2]
    assert plain.counts.list == before + 1, "it does not probe again"


def test_deleting_a_session_leaves_the_others(open_another: Callable[[], Store]) -> None:
    async def check() -> None:
        store = open_another()
        for name in ("one", "one.more", "two"):
            keys = Keys(name)
            await create_session(store, msgspec.structs.replace(MANIFEST, session_id=name))
            await publish_batch(store, keys, lambda seq: batch("x", seq))
            await append_event(store, keys, CLOCK, "scaled", data={"workers": 1})
        assert await delete_session(store, Keys("one")) == 3
        assert await store.list(Keys("one").prefix) == []
        assert await list_session_ids(store) == ["one.more", "two"]
        assert await delete_session(store, Keys("one")) == 0
        with pytest.raises(SessionNotFound):
            await read_manifest(store, "one")

    asyncio.run(check())


def test_a_deletion_that_was_broken_off_can_be_made_again() -> None:
    """The manifest goes last, so that the session can still be named."""
    store = SteppedStore()
    plain = MemoryStore(store.url.removeprefix("memory://"))
    drive(create_session(plain, msgspec.structs.replace(MANIFEST, session_id=KEYS.session_id)))
    drive(publish_batch(plain, KEYS, lambda seq: batch("x", seq)))
    deletion = Stepper(delete_session(store, KEYS))
    deletion.step(4)
    deletion.kill()
    assert [info.key for info in drive(plain.list(KEYS.prefix))] == [KEYS.manifest]
    assert drive(delete_session(plain, KEYS)) == 1


def test_an_event_is_a_record_like_all_others() -> None:
    store = MemoryStore()
    drive(append_event(store, KEYS, CLOCK, "closed", by="ann@laptop"))
    (info,) = drive(store.list(KEYS.events))
    assert info.key == KEYS.event(1)
    event = msgspec.json.decode(drive(store.get(info.key)), type=Event)
    assert (event.what, event.by, event.data) == ("closed", "ann@laptop", {})
