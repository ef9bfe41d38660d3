"""Connections to the store behind the simulated S3, and requests of our own to it and to the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import http
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Address", "Backend", "Reply", "Upstream", "ask"]

Address = tuple[str, int]

_IDLE_S = 5.0  # less than the store keeps an idle connection


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer this."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: str = ""  # of what a HEAD request is not sent

    def encode(self, *, close: bool) -> bytes:
        """As bytes, without what the body of an answer to HEAD would be."""
        try:
            phrase = http.HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in self.headers)]
        if self.status != http.HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {self.length or len(self.body)}")
        if close:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


class Asker(Protocol):
    """Whose request a connection answers."""

    transport: asyncio.Transport

    @property
    def sending(self) -> bool:
        """Whether a part of the request is still to come."""
        ...

    def relay(self, data: bytes) -> None:
        """Bytes of the store's answer."""
        ...

    def answered(self, status: int) -> bool:
        """The answer begins with this status; whether its bytes are wanted."""
        ...

    def finished(self, *, relayed: bool, close: bool) -> None:
        """The answer is through."""
        ...

    def failed(self, *, retry: bool) -> None:
        """The connection was closed before the answer was through."""
        ...


class Upstream:
    """Connections to the store behind; those that are free are used again."""

    def __init__(self) -> None:
        self.address = ("127.0.0.1", 0)
        self._free: deque[Backend] = deque()

    def take(self) -> Backend | None:
        """A connection that is free, the youngest first."""
        now = asyncio.get_running_loop().time()
        while self._free:
            backend = self._free.pop()
            if not backend.transport.is_closing():
                if now - backend.free_since < _IDLE_S:
                    return backend
                backend.transport.close()
        return None

    async def connect(self) -> Backend:
        """A new connection."""
        loop = asyncio.get_running_loop()
        _, backend = await loop.create_connection(lambda: Backend(self), *self.address)
        return backend

    def release(self, backend: Backend) -> None:
        """It is free again."""
        backend.free_since = asyncio.get_running_loop().time()
        self._free.append(backend)


@dataclass(slots=True, eq=False)
class Backend(asyncio.Protocol):
    """One connection to the store behind, which answers one request at a time.

    Attributes:
        upstream: Where it goes when it is free.
        client: Whose request it answers; None if nobody waits for the answer any more.
        transport: The connection.
        free_since: When it was last used, on the loop's clock.
    """

    upstream: Upstream
    client: Asker | None = None
    transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is called
    free_since: float = 0.0
    _method: str = ""
    _busy: bool = False
    _used: bool = False
    _head: bytearray = field(default_factory=bytearray)
    _body: _Length | _Chunks | None = None
    _relayed: bool = True
    _close: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def begin(self, method: str, data: bytes) -> None:
        """Send a request, or its beginning."""
        self._method, self._busy, self._body, self._relayed = method, True, None, True
        self.transport.write(data)

    def pause_writing(self) -> None:
        """Part of asyncio's protocol: the store reads slowly."""
        if self.client is not None:
            self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        """Part of asyncio's protocol: the store has caught up."""
        if self.client is not None:
            self.client.transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        """Part of asyncio's protocol."""
        client, self.client = self.client, None
        if client is not None and self._busy:
            client.failed(retry=self._used and not self._head and self._body is None)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if not self._busy:
            self.transport.abort()  # nothing was asked
            return
        body, begin = self._body, 0
        if body is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data, begin = bytes(self._head), end + 4
            self._head.clear()
            self._body = body = self._read_head(data[:end])
        ended = body.feed(data[begin:] if begin else data)
        if self._relayed and self.client is not None:
            self.client.relay(data)
        if ended:
            self._finish()

    def _read_head(self, head: bytes) -> _Length | _Chunks:
        first, _, rest = head.decode("latin-1").partition("\r\n")
        status = int(first.split(" ", 2)[1])
        headers = {}
        for line in rest.split("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._close = headers.get("connection", "").lower() == "close"
        if self.client is not None:
            self._relayed = self.client.answered(status)
        without_body = self._method == "HEAD" or status in {204, 304}
        if not without_body and headers.get("transfer-encoding", "").lower() == "chunked":
            return _Chunks()
        return _Length(0 if without_body else int(headers.get("content-length") or 0))

    def _finish(self) -> None:
        client, self.client = self.client, None
        self._busy, self._used = False, True
        if self._close or (client is not None and client.sending):
            self.transport.close()
        else:
            self.transport.resume_reading()  # its client may have been slow to take the last bytes
            self.upstream.release(self)
        if client is not None:
            client.finished(relayed=self._relayed, close=self._close)


@dataclass(slots=True)
class _Length:
    """A body whose length is known."""

    left: int

    def feed(self, data: bytes) -> bool:
        """Whether it ends with these bytes."""
        self.left -= len(data)
        return self.left <= 0


@dataclass(slots=True)
class _Chunks:
    """Finds the end of a body in chunks."""

    line: bytearray = field(default_factory=bytearray)
    left: int = 0  # of the chunk, with the line end after it
    last: bool = False

    def feed(self, data: bytes) -> bool:
        """Whether it ends with these bytes."""
        at = 0
        while at < len(data):
            if self.left:
                step = min(self.left, len(data) - at)
                self.left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self.line += data[at:]
                return False
            line = bytes(self.line) + data[at : end + 1]
            self.line.clear()
            at = end + 1
            if self.last:
                if not line.strip():
                    return True
                continue  # a trailer
            size = int(line.split(b";")[0], 16)
            self.last = size == 0
            self.left = size + 2 if size else 0
        return False


async def ask(address: Address, head: bytes, body: bytes = b"") -> Reply:
    """One whole request on a connection of its own; ``head`` ends with an empty line."""
    first, rest = head.split(b"\r\n", 1)
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(first + b"\r\nConnection: close\r\n" + rest + body)
        await writer.drain()
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = text.strip().split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        kept = tuple(
            each
            for each in headers
            if each[0].lower() not in {"connection", "content-length", "transfer-encoding"}
        )
        lowered = {name.lower(): value for name, value in headers}
        content = b""
        length = lowered.get("content-length", "")
        if not head.startswith(b"HEAD "):
            content = await reader.read()
            if lowered.get("transfer-encoding", "").lower() == "chunked":
                content = _unchunked(content)
            length = ""
        return Reply(int(lines[0].split(" ", 2)[1]), content, kept, length)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _unchunked(data: bytes) -> bytes:
    parts = []
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        parts.append(data[:size])
        data = data[size + 2 :]
    return b"".join(parts)
