"""Packs: framed binary objects that are checked before they are believed.

    offset  size  content
    0       4     magic ``STBP``
    4       1     version of the layout (1)
    5       3     zero
    8       4     h: length of the header (little endian, as all numbers)
    12      4     n: number of frames
    16      8     xxh3-64 of bytes 0-15, the frame table and the header
    24      32    signature (HMAC-SHA256 with the session's key; zeros: not signed)
    56      8     zero
    64      40n   frame table: offset, stored length, raw length, xxh3-64 of the stored bytes (8 each),
                  codec (4: 0 plain, 1 zstd), zero (4)
    64+40n  h     header: a record in msgpack
    …             frames, each at a multiple of 64

A checksum per frame lets a worker fetch only the frames it needs. Alignment lets arrays be used in place.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import xxhash
import zstandard

from starburst.errors import CorruptObject, IncompatibleVersion
from starburst.protocol.records import Record, decode_msgpack, encode_msgpack

__all__ = ["FrameInfo", "Pack", "PackIndex", "decode_index", "decode_pack", "encode_pack", "index_size_bytes"]

Buffer = bytes | bytearray | memoryview
R = TypeVar("R", bound=Record)

MAGIC = b"STBP"
LAYOUT = 1
ALIGN = 64
PREFIX = struct.Struct("<4sB3xIIQ32s8x")
FRAME = struct.Struct("<QQQQI4x")
PLAIN, ZSTD = 0, 1
_COMPRESS_FROM_BYTES = 4096
_SAMPLE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """Where a frame stands and what it must look like."""

    offset: int
    stored_bytes: int
    raw_bytes: int
    checksum: int
    codec: int


@dataclass(frozen=True, slots=True)
class PackIndex:
    """A pack without its frames: the header as bytes and the frame table."""

    key: str
    header: memoryview
    frames: tuple[FrameInfo, ...]

    def record(self, kind: type[R]) -> R:
        """The header as a record of ``kind``."""
        return decode_msgpack(kind, self.header, self.key)

    def frame(self, i: int, stored: Buffer) -> Buffer:
        """Frame ``i`` from its stored bytes, checked and unpacked.

        Raises:
            CorruptObject: The bytes are not those that were written.
        """
        info = self.frames[i]
        view = memoryview(stored)
        if view.nbytes != info.stored_bytes or xxhash.xxh3_64_intdigest(view) != info.checksum:
            raise _corrupt(self.key, f"frame {i} is truncated or changed")
        if info.codec == PLAIN:
            return view
        if info.codec != ZSTD:
            raise _corrupt(self.key, f"frame {i} has the unknown codec {info.codec}")
        try:
            if zstandard.frame_content_size(view) == info.raw_bytes:
                return zstandard.decompress(view)
        except zstandard.ZstdError as error:
            raise _corrupt(self.key, f"frame {i} cannot be unpacked: {error}") from error
        raise _corrupt(self.key, f"frame {i} does not unpack to {info.raw_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Pack:
    """A whole pack in memory."""

    index: PackIndex
    data: memoryview

    def record(self, kind: type[R]) -> R:
        """The header as a record of ``kind``."""
        return self.index.record(kind)

    def __len__(self) -> int:
        return len(self.index.frames)

    def frame(self, i: int) -> Buffer:
        """Frame ``i``, checked and unpacked; plain frames are views, not copies."""
        info = self.index.frames[i]
        return self.index.frame(i, self.data[info.offset : info.offset + info.stored_bytes])


def encode_pack(header: Record, frames: Sequence[Buffer], *, compress: bool = False) -> list[Buffer]:
    """A pack as buffers to be written one after the other; large frames are not copied.

    Args:
        header: The record that describes the frames.
        frames: Contiguous buffers.
        compress: Try zstd on frames that seem to shrink by a fifth or more.
    """
    head = encode_msgpack(header)
    stored = [_compressed(frame) if compress else (PLAIN, frame) for frame in frames]
    offset = _aligned(PREFIX.size + FRAME.size * len(frames) + len(head))
    table = bytearray()
    body: list[Buffer] = []
    for (codec, data), raw in zip(stored, frames, strict=True):
        size = memoryview(data).nbytes
        table += FRAME.pack(offset, size, memoryview(raw).nbytes, xxhash.xxh3_64_intdigest(data), codec)
        body.append(data)
        end = _aligned(offset + size)
        if end > offset + size:
            body.append(bytes(end - offset - size))
        offset = end
    start = PREFIX.pack(MAGIC, LAYOUT, len(head), len(frames), 0, bytes(32))
    digest = xxhash.xxh3_64(start[:16])
    digest.update(table)
    digest.update(head)
    prefix = PREFIX.pack(MAGIC, LAYOUT, len(head), len(frames), digest.intdigest(), bytes(32))
    first = prefix + table + head
    return [first + bytes(_aligned(len(first)) - len(first)), *body]


def decode_pack(data: Buffer, key: str) -> Pack:
    """A pack from all its bytes; frames are checked when they are asked for.

    Raises:
        CorruptObject: It is not a pack, or its header is damaged; the message names ``key``.
        IncompatibleVersion: It is a newer kind of pack.
    """
    view = memoryview(data)
    return Pack(decode_index(view, key), view)


def index_size_bytes(start: Buffer, key: str) -> int:
    """How many bytes from the start of an object prefix, frame table and header take.

    Args:
        start: At least the first 64 bytes.
        key: For messages.
    """
    view = memoryview(start)
    if view.nbytes < PREFIX.size:
        raise _corrupt(key, f"it has {view.nbytes} bytes, less than the shortest pack")
    magic, layout, header_bytes, n_frames, _, _ = PREFIX.unpack(view[: PREFIX.size])
    if magic != MAGIC:
        raise _corrupt(key, "it does not begin as a pack does")
    if layout > LAYOUT:
        raise IncompatibleVersion(
            f"{key} is a pack of layout {layout}, this starburst reads up to {LAYOUT}",
            hint="pip install --upgrade starburst-cloud",
        )
    return int(PREFIX.size + FRAME.size * n_frames + header_bytes)


def decode_index(start: Buffer, key: str) -> PackIndex:
    """Header and frame table from the first bytes of a pack, checked; raises as :func:`decode_pack`."""
    view = memoryview(start)
    size = index_size_bytes(view, key)
    if view.nbytes < size:
        raise _corrupt(key, f"it ends after {view.nbytes} bytes, within its header of {size}")
    _, _, _, n_frames, checksum, _ = PREFIX.unpack(view[: PREFIX.size])
    digest = xxhash.xxh3_64(view[:16])
    digest.update(view[PREFIX.size : size])
    if digest.intdigest() != checksum:
        raise _corrupt(key, "its header is truncated or changed")
    table_end = PREFIX.size + FRAME.size * n_frames
    frames = tuple(FrameInfo(*row) for row in FRAME.iter_unpack(view[PREFIX.size : table_end]))
    return PackIndex(key, view[table_end:size], frames)


def _compressed(frame: Buffer) -> tuple[int, Buffer]:
    view = memoryview(frame)
    if view.nbytes < _COMPRESS_FROM_BYTES:
        return PLAIN, frame
    packer = zstandard.ZstdCompressor(level=1)
    sample = view.cast("B")[:_SAMPLE_BYTES]
    if len(packer.compress(sample)) > 0.8 * sample.nbytes:
        return PLAIN, frame
    return ZSTD, packer.compress(view)


def _aligned(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def _corrupt(key: str, why: str) -> CorruptObject:
    return CorruptObject(
        f"the object {key} is damaged: {why}",
        hint="nothing of it was used; the other results can be collected with on_error='return'",
    )
