"""Messages between the agent and its runners, over a Unix socket pair: a msgpack header and raw frames.

4 bytes   length of the header          (little endian)
4 bytes   number of frames
8n bytes  lengths of the frames
header    one of the structs below
frames    pickles and buffers, not copied on their way in
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

import msgspec

from starburst.protocol.records import Segment

__all__ = [
    "FunctionReady",
    "Job",
    "Message",
    "Need",
    "ObjectReady",
    "Progress",
    "Ready",
    "Setup",
    "Trim",
    "Trimmed",
    "areceive",
    "encode",
    "receive",
    "send",
]

Buffer = bytes | bytearray | memoryview
_LENGTHS = struct.Struct("<II")
_MAX_BUFFERS = 512


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What all messages are."""


class Setup(Message, frozen=True, kw_only=True):
    """Agent → runner, once: where modules are found."""

    sys_path: tuple[str, ...] = ()


class FunctionReady(Message, frozen=True, kw_only=True):
    """Agent → runner: frame 0 is the pickled function."""

    sha256: str


class ObjectReady(Message, frozen=True, kw_only=True):
    """Agent → runner: a large object is in the file ``path``; ``error`` says why it is not."""

    sha256: str
    path: str = ""
    error: str = ""


class Job(Message, frozen=True, kw_only=True):
    """Agent → runner: run tasks ``start`` … ``end - 1``; frame 0 holds the calls of ``first`` … (``count``)."""

    job: int
    batch: int
    first: int
    count: int
    start: int
    end: int
    function: str
    layout: str
    retries: int = 0
    attempt: int = 1


class Trim(Message, frozen=True, kw_only=True):
    """Agent → runner: stop before task ``end``, or after the present task if that is later."""

    job: int
    end: int


class Ready(Message, frozen=True, kw_only=True):
    """Runner → agent: it has started."""

    pid: int


class Need(Message, frozen=True, kw_only=True):
    """Runner → agent: a task needs a large object."""

    sha256: str


class Trimmed(Message, frozen=True, kw_only=True):
    """Runner → agent: the answer to :class:`Trim`; the job ends before task ``end``."""

    job: int
    end: int


class Progress(Message, frozen=True, kw_only=True):
    """Runner → agent: finished tasks, in order; ``final`` with the last ones of a job."""

    job: int
    segments: tuple[Segment, ...] = ()
    ok: int = 0
    failed: int = 0
    task_s: float = 0.0
    retried: int = 0
    final: bool = False


_decoder = msgspec.msgpack.Decoder(
    Setup | FunctionReady | ObjectReady | Job | Trim | Ready | Need | Trimmed | Progress
)
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message, frames: Sequence[Buffer] = ()) -> list[Buffer]:
    """The message as buffers to be sent one after the other."""
    header = _encoder.encode(message)
    lengths = struct.pack(f"<{len(frames)}Q", *(memoryview(frame).nbytes for frame in frames))
    return [_LENGTHS.pack(len(header), len(frames)) + lengths + header, *frames]


def send(sock: socket.socket, message: Message, frames: Sequence[Buffer] = ()) -> None:
    """Send from a thread; blocks until all is in the socket."""
    pending = [
        memoryview(buffer).cast("B") for buffer in encode(message, frames) if memoryview(buffer).nbytes
    ]
    while pending:
        sent = sock.sendmsg(pending[:_MAX_BUFFERS])
        while pending and sent >= pending[0].nbytes:
            sent -= pending.pop(0).nbytes
        if sent:
            pending[0] = pending[0][sent:]


def receive(sock: socket.socket) -> tuple[Message, list[memoryview]]:
    """The next message, from a thread.

    Raises:
        EOFError: The other side is gone.
    """
    header_bytes, n_frames = _LENGTHS.unpack(_read(sock, _LENGTHS.size))
    lengths = struct.unpack(f"<{n_frames}Q", _read(sock, 8 * n_frames))
    header = _read(sock, header_bytes)
    return _decoder.decode(header), [_read(sock, length) for length in lengths]


async def areceive(sock: socket.socket) -> tuple[Message, list[memoryview]]:
    """The next message, in a coroutine; raises as :func:`receive`."""
    loop = asyncio.get_running_loop()
    header_bytes, n_frames = _LENGTHS.unpack(await _aread(loop, sock, _LENGTHS.size))
    rest = await _aread(loop, sock, 8 * n_frames + header_bytes)
    lengths = struct.unpack(f"<{n_frames}Q", rest[: 8 * n_frames])
    frames = [await _aread(loop, sock, length) for length in lengths]
    return _decoder.decode(rest[8 * n_frames :]), frames


def _read(sock: socket.socket, size: int) -> memoryview:
    view = memoryview(bytearray(size))
    got = 0
    while got < size:
        n = sock.recv_into(view[got:])
        if n == 0:
            raise EOFError
        got += n
    return view


async def _aread(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> memoryview:
    view = memoryview(bytearray(size))
    got = 0
    while got < size:
        n = await loop.sock_recv_into(sock, view[got:])
        if n == 0:
            raise EOFError
        got += n
    return view
