from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import drive

from starburst.errors import CorruptObject, IncompatibleVersion
from starburst.protocol.pack import (
    ALIGN,
    FRAME,
    PREFIX,
    PackIndex,
    decode_index,
    decode_pack,
    encode_pack,
    index_size_bytes,
)
from starburst.protocol.records import FunctionHeader, encode_msgpack
from starburst.protocol.results import read_index
from starburst.store.memory import MemoryStore

HEADER = FunctionHeader(name="f", nonce="0123456789abcdef")
KEY = "sessions/s/functions/ab"


def joined(frames: list[bytes], *, compress: bool = False) -> bytes:
    return b"".join(encode_pack(HEADER, frames, compress=compress))


def read_all(data: bytes) -> tuple[FunctionHeader, list[bytes]]:
    pack = decode_pack(data, KEY)
    return pack.record(FunctionHeader), [bytes(pack.frame(i)) for i in range(len(pack))]


frame_bytes = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda part, n: part * n, st.binary(min_size=1, max_size=20), st.integers(1, 2000)),
    st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).bytes(9000)),
)


@settings(deadline=None)
@given(st.lists(frame_bytes, max_size=6), st.booleans(), st.text(max_size=100))
def test_packs_read_back(frames: list[bytes], compress: bool, name: str) -> None:
    header = FunctionHeader(name=name)
    data = b"".join(encode_pack(header, frames, compress=compress))
    pack = decode_pack(data, KEY)
    assert pack.record(FunctionHeader) == header
    assert [bytes(pack.frame(i)) for i in range(len(pack))] == frames
    assert len(data) % ALIGN == 0
    for info, frame in zip(pack.index.frames, frames, strict=True):
        assert info.offset % ALIGN == 0
        assert info.raw_bytes == len(frame)
        assert info.stored_bytes <= len(frame)


def test_no_frames_and_empty_frames() -> None:
    assert read_all(joined([])) == (HEADER, [])
    assert read_all(joined([b""])) == (HEADER, [b""])
    assert read_all(joined([b"", b"x", b""])) == (HEADER, [b"", b"x", b""])


def test_every_changed_byte_that_means_something_is_noticed() -> None:
    frames = [b"first frame", b"", b"abc" * 2000, b"last"]
    data = bytearray(joined(frames, compress=True))
    pack = decode_pack(bytes(data), KEY)
    meaningful = set(range(24)) | set(range(PREFIX.size, index_size_bytes(data, KEY)))
    for info in pack.index.frames:
        meaningful |= set(range(info.offset, info.offset + info.stored_bytes))
    assert pack.index.frames[2].codec == 1
    for at in range(len(data)):
        for bit in (0x01, 0x80, 0xFF):
            data[at] ^= bit
            if at in meaningful:
                with pytest.raises((CorruptObject, IncompatibleVersion), match=KEY):
                    read_all(bytes(data))
            else:  # the signature's place and the zeros between frames
                assert read_all(bytes(data)) == (HEADER, frames)
            data[at] ^= bit


def test_every_truncation_that_takes_something_is_noticed() -> None:
    frames = [b"first frame", b"x" * 200, b"last"]
    data = joined(frames)
    last = decode_pack(data, KEY).index.frames[-1]
    for end in range(len(data)):
        if end < last.offset + last.stored_bytes:
            with pytest.raises(CorruptObject, match=KEY):
                read_all(data[:end])
        else:
            assert read_all(data[:end]) == (HEADER, frames)


def test_a_damaged_frame_leaves_the_others_readable() -> None:
    data = bytearray(joined([b"one", b"two", b"three"]))
    data[decode_pack(bytes(data), KEY).index.frames[1].offset] ^= 1
    pack = decode_pack(bytes(data), KEY)
    assert bytes(pack.frame(0)) == b"one"
    assert bytes(pack.frame(2)) == b"three"
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged: frame 1"):
        pack.frame(1)


@pytest.mark.parametrize("data", [b"", b"STBP", bytes(64), b"PK\x03\x04" + bytes(60), b"{" + b" " * 100])
def test_what_is_not_a_pack_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged"):
        decode_pack(data, KEY)


def test_a_newer_layout_is_refused() -> None:
    data = bytearray(joined([b"x"]))
    data[4] = 2
    with pytest.raises(IncompatibleVersion, match=f"{KEY} is a pack of layout 2"):
        decode_pack(bytes(data), KEY)


def test_a_header_of_another_record_is_refused() -> None:
    from starburst.protocol.records import BatchHeader

    with pytest.raises(CorruptObject, match=f"{KEY} does not hold a BatchHeader"):
        decode_pack(joined([]), KEY).record(BatchHeader)


def test_frames_are_read_by_range_after_the_index() -> None:
    store = MemoryStore()
    frames = [bytes([i]) * (1000 * i) for i in range(40)]
    drive(store.create(KEY, encode_pack(HEADER, frames, compress=True)))
    index = drive(read_index(store, KEY))
    assert store.counts.get == 1
    assert isinstance(index, PackIndex)
    assert index.record(FunctionHeader) == HEADER
    for i in (39, 0, 17):
        info = index.frames[i]
        assert bytes(index.frame(i, drive(store.get_range(KEY, info.offset, info.stored_bytes)))) == frames[i]
    with pytest.raises(CorruptObject, match="frame 5 is truncated"):
        index.frame(5, drive(store.get_range(KEY, index.frames[5].offset, index.frames[5].stored_bytes - 1)))
    with pytest.raises(CorruptObject, match="frame 5"):
        index.frame(5, drive(store.get_range(KEY, index.frames[6].offset, index.frames[6].stored_bytes)))


def test_an_index_of_any_length_takes_at_most_two_requests() -> None:
    store = MemoryStore()
    for n, requests in ((0, 1), (400, 1), (3000, 2)):
        key = f"pack-{n}"
        drive(store.create(key, encode_pack(HEADER, [b"x"] * n)))
        before = store.counts.get
        assert len(drive(read_index(store, key)).frames) == n
        assert store.counts.get - before == requests


def test_compression_only_where_it_pays() -> None:
    rng = np.random.default_rng(1)
    noise, zeros, short = rng.bytes(100_000), bytes(100_000), bytes(4000)
    pack = decode_pack(joined([noise, zeros, short], compress=True), KEY)
    assert [info.codec for info in pack.index.frames] == [0, 1, 0]
    assert [info.codec for info in decode_pack(joined([zeros]), KEY).index.frames] == [0]


def test_arrays_of_any_item_size_and_shape_are_frames() -> None:
    array = np.arange(20_000, dtype=np.int64).reshape(100, 200)
    for compress in (False, True):
        pack = decode_pack(b"".join(encode_pack(HEADER, [array.data], compress=compress)), KEY)
        assert np.array_equal(np.frombuffer(pack.frame(0), np.int64).reshape(100, 200), array)


def test_large_frames_are_not_copied() -> None:
    frame = bytearray(32 * 2**20)
    tracemalloc.start()
    buffers = encode_pack(HEADER, [frame])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20
    assert any(buffer is frame for buffer in buffers)


def resealed(data: bytes, row: int, **changes: int) -> bytes:
    """The pack with a changed row of the frame table, and a checksum that says it is so."""
    changed = bytearray(data)
    n_header, n_frames = PREFIX.unpack(data[:64])[2:4]
    info = decode_index(data, KEY).frames[row]
    names = ("offset", "stored_bytes", "raw_bytes", "checksum", "codec")
    values = [changes.get(name, getattr(info, name)) for name in names]
    FRAME.pack_into(changed, 64 + row * FRAME.size, *values)
    digest = xxhash.xxh3_64(bytes(changed[:16]))
    digest.update(bytes(changed[64 : 64 + FRAME.size * n_frames + n_header]))
    changed[16:24] = digest.intdigest().to_bytes(8, "little")
    return bytes(changed)


@pytest.mark.parametrize(
    "changes",
    [{"codec": 7}, {"offset": 2**40}, {"stored_bytes": 2**40}, {"checksum": 1}, {"codec": 1}],
)
def test_a_writers_mistakes_in_the_frame_table_are_noticed(changes: dict[str, int]) -> None:
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged: frame 0"):
        read_all(resealed(joined([b"payload" * 10]), 0, **changes))


@pytest.mark.parametrize("raw_bytes", [0, 99_999, 100_001, 2**40])
def test_a_frame_that_unpacks_to_another_length_is_refused(raw_bytes: int) -> None:
    data = joined([bytes(100_000)], compress=True)
    with pytest.raises(CorruptObject, match=f"{KEY} is damaged: frame 0"):
        read_all(resealed(data, 0, raw_bytes=raw_bytes))


def test_another_writer_can_follow_the_table_in_the_documentation() -> None:
    """Built from docs/protocol.md alone, byte by byte."""
    header = encode_msgpack(HEADER)
    frame = zstandard.ZstdCompressor(level=3).compress(b"payload" * 1000)
    start = 64 + 40 + len(header)
    offset = (start + 63) // 64 * 64
    row = b"".join(
        n.to_bytes(8, "little") for n in (offset, len(frame), 7000, xxhash.xxh3_64_intdigest(frame))
    )
    table = row + (1).to_bytes(4, "little") + bytes(4)
    head = b"STBP" + bytes([1, 0, 0, 0]) + len(header).to_bytes(4, "little") + (1).to_bytes(4, "little")
    check = xxhash.xxh3_64_intdigest(head + table + header).to_bytes(8, "little")
    data = head + check + bytes(32) + bytes(8) + table + header + bytes(offset - start) + frame
    assert read_all(data) == (HEADER, [b"payload" * 1000])
