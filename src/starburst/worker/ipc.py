"""Messages between the agent and its runners, over a Unix socket pair: a msgpack header and raw frames.

4 bytes   length of the header          (little endian)
4 bytes   number of frames
8n bytes  lengths of the frames
header    one of the structs below
frames    pickles and buffers, not copied on their way in
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import IO

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
    "Spool",
    "Trim",
    "Trimmed",
    "UseCode",
    "areceive",
    "encode",
    "receive",
    "send",
]

Buffer = bytes | bytearray | memoryview
_LENGTHS = struct.Struct("<II")
_MAX_BUFFERS = 512
SPOOL_BYTES = 256 * 1024


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What all messages are."""


class Setup(Message, frozen=True, kw_only=True):
    """Agent → runner, once: where modules are found."""

    sys_path: tuple[str, ...] = ()


class UseCode(Message, frozen=True, kw_only=True):
    """Agent → runner, before its first function: import from these folders, rather than what is installed."""

    folders: tuple[str, ...]


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
    spooled: tuple[int, ...] = ()
    """Frames that came as files over the second socket, see :class:`Spool`; here they are empty."""


_decoder = msgspec.msgpack.Decoder(
    Setup | UseCode | FunctionReady | ObjectReady | Job | Trim | Ready | Need | Trimmed | Progress
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


def receive(sock: socket.socket) -> tuple[Message, list[Buffer]]:
    """The next message, from a thread.

    Raises:
        EOFError: The other side is gone.
    """
    header_bytes, n_frames = _LENGTHS.unpack(_read(sock, _LENGTHS.size))
    lengths = struct.unpack(f"<{n_frames}Q", _read(sock, 8 * n_frames))
    header = _read(sock, header_bytes)
    frames: list[Buffer] = [_read(sock, length) for length in lengths]
    return _decoder.decode(header), frames


async def areceive(sock: socket.socket) -> tuple[Message, list[Buffer]]:
    """The next message, in a coroutine; raises as :func:`receive`."""
    loop = asyncio.get_running_loop()
    header_bytes, n_frames = _LENGTHS.unpack(await _aread(loop, sock, _LENGTHS.size))
    rest = await _aread(loop, sock, 8 * n_frames + header_bytes)
    lengths = struct.unpack(f"<{n_frames}Q", rest[: 8 * n_frames])
    frames: list[Buffer] = [await _aread(loop, sock, length) for length in lengths]
    return _decoder.decode(rest[8 * n_frames :]), frames


class Spool:
    """Hands large frames over as files in memory, through a second socket: two copies less than through the first.

    Args:
        sock: A datagram socket; one datagram carries one descriptor.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def put(self, frames: list[Buffer]) -> tuple[int, ...]:
        """Send the large ones of ``frames``, which are emptied; must come before the message they belong to."""
        spooled: list[int] = []
        for i, frame in enumerate(frames):
            view = memoryview(frame).cast("B")
            if view.nbytes < SPOOL_BYTES:
                continue
            with _memory_file() as file:
                file.write(view)
                file.flush()
                socket.send_fds(self._sock, [b"."], [file.fileno()])
            frames[i] = b""
            spooled.append(i)
        return tuple(spooled)

    def take(self, frames: list[Buffer], spooled: Sequence[int]) -> None:
        """Put what was sent in the place of the empty frames."""
        for i in spooled:
            _, (fd,), _, _ = socket.recv_fds(self._sock, 1, 1)
            frames[i] = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
            os.close(fd)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def _memory_file() -> IO[bytes]:
    """A file without a name, in memory where the system has such a thing."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("starburst-frame"), "wb", buffering=0)  # noqa: PTH123
    return tempfile.TemporaryFile(buffering=0)


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
