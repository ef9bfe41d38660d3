"""A small HTTP proxy for much traffic: connections of clients, connections to the store behind, bytes in between.

Bodies are passed on as they come, in both directions, and nobody reads faster than the other side takes. What a
request is for, and what becomes of it, is the handler's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starburst.testing.aws.s3_upstream import Backend, Reply, Upstream

__all__ = ["Client", "Cut", "Forward", "Handler", "Request", "Serve", "Verdict"]

_log = logging.getLogger(__name__)

_LONGEST_HEAD = 1 << 16
_LARGEST_SERVED = 1 << 22
_KEPT_FOR_RETRY = 1 << 16
_PER_HOP = frozenset({"connection", "expect", "keep-alive"})
_OWN = _PER_HOP | {"authorization", "x-amz-security-token"}


@dataclass(slots=True)
class Request:
    """The head of one request.

    Attributes:
        method: GET, PUT …
        target: Path and query, as on the wire.
        headers: Names in lower case.
        lines: The header lines, as they came.
    """

    method: str
    target: str
    headers: dict[str, str]
    lines: list[tuple[str, bytes]]

    def head(self, *, target: str = "", intact: bool = False, drop: frozenset[str] = frozenset()) -> bytes:
        """The same head for a server behind.

        Args:
            target: In place of this request's.
            intact: With the signature; the store gets none, it was checked here.
            drop: Headers to leave out.
        """
        first = f"{self.method} {target or self.target} HTTP/1.1".encode("latin-1")
        drop |= _PER_HOP if intact else _OWN
        kept = [line for name, line in self.lines if name not in drop]
        return b"\r\n".join((first, *kept, b"\r\n"))


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask the store behind, and pass its answer on.

    Attributes:
        head: Of the request to it.
        instead_of_missing: Answered in place of its 404.
        lose_reply: Let it do it, then cut the connection.
        done: Called once, when it is through or given up, with the status of the answer (0 for none).
    """

    head: bytes
    instead_of_missing: Reply | None = None
    lose_reply: bool = False
    done: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Serve:
    """Read the whole body, then answer what this says; None cuts the connection."""

    answer: Callable[[bytes], Awaitable[Reply | None]]


class Cut:
    """Reset the connection without a word."""


Verdict = Reply | Forward | Serve | Cut
Handler = Callable[[Request], Verdict | Awaitable[Verdict]]


class Client(asyncio.Protocol):
    """One connection of a client; its requests are answered one after the other."""

    def __init__(self, handler: Handler, upstream: Upstream) -> None:
        self._handler = handler
        self._upstream = upstream
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is called
        self._buffer = bytearray()
        self._request: Request | None = None
        self._body_left = 0
        self._sink: Callable[[bytes], None] | None = None
        self._on_body_end: Callable[[], None] | None = None
        self._backend: Backend | None = None
        self._pending = bytearray()  # for a backend that is not connected yet
        self._kept: bytearray | None = None  # the request so far, while it can still be repeated
        self._forward: Forward | None = None
        self._status = 0
        self._close = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Part of asyncio's protocol. What was received whole is still done, as the real service does."""
        backend, self._backend = self._backend, None
        forward, self._forward = self._forward, None
        if forward is not None and forward.done is not None:
            forward.done(self._status)
        if backend is not None:
            backend.client = None
            if self._body_left:
                backend.transport.abort()
            else:
                backend.transport.resume_reading()

    def pause_writing(self) -> None:
        """Part of asyncio's protocol: the client reads slowly."""
        if self._backend is not None:
            self._backend.transport.pause_reading()

    def resume_writing(self) -> None:
        """Part of asyncio's protocol: the client has caught up."""
        if self._backend is not None:
            self._backend.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if self._sink is not None and self._body_left >= len(data) and not self._buffer:
            self._take_body(data)
            return
        self._buffer += data
        if self._request is None:
            self._read_head()
        elif self._sink is not None:
            self._read_body()
        elif len(self._buffer) > _KEPT_FOR_RETRY:
            self.transport.pause_reading()

    def _read_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                self.cut()
            return
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        try:
            request, version = _parse_head(head)
            self._body_left = int(request.headers.get("content-length") or 0)
        except ValueError:
            self._close = True
            self._send(Reply(400))
            return
        self._request = request
        self._close = version == "HTTP/1.0" or request.headers.get("connection", "").lower() == "close"
        if "transfer-encoding" in request.headers:
            self._close = True  # S3 takes no bodies of unknown length; what follows is not read
            self._body_left = 0
            self._send(Reply(501))
            return
        verdict = self._handler(request)
        if isinstance(verdict, Reply | Forward | Serve | Cut):
            self._follow(verdict)
        else:
            self._spawn(self._follow_later(verdict))

    async def _follow_later(self, verdict: Awaitable[Verdict]) -> None:
        try:
            found = await verdict
        except Exception:  # noqa: BLE001 - one request fails, not the server
            _log.exception("an S3 request could not be judged")
            found = Reply(500)
        if not self.transport.is_closing():
            self._follow(found)
        elif isinstance(found, Forward) and found.done is not None:
            found.done(0)

    def _follow(self, verdict: Verdict) -> None:
        request = self._request
        assert request is not None
        if isinstance(verdict, Cut):
            self.cut()
            return
        expects = "expect" in request.headers and not self._buffer
        if isinstance(verdict, Reply):
            if expects and self._body_left:  # the client has not sent the body, and need not
                self._body_left = 0
                self._close = True
            self._sink, self._on_body_end = _discard, lambda: self._send(verdict)
        else:
            if expects:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if isinstance(verdict, Serve):
                self._collect(verdict)
            else:
                self._begin(verdict)
        self.transport.resume_reading()
        self._read_body()

    def _collect(self, verdict: Serve) -> None:
        parts: list[bytes] = []
        if self._body_left > _LARGEST_SERVED:
            self._sink, self._on_body_end = _discard, lambda: self._send(Reply(413))
            return

        async def serve() -> None:
            try:
                reply = await verdict.answer(b"".join(parts))
            except Exception:  # noqa: BLE001 - one request fails, not the server
                _log.exception("an S3 request could not be served")
                reply = Reply(500)
            if self.transport.is_closing():
                return
            if reply is None:
                self.cut()
            else:
                self._send(reply)

        self._sink, self._on_body_end = parts.append, lambda: self._spawn(serve())

    def _begin(self, verdict: Forward) -> None:
        self._forward = verdict
        self._kept = bytearray(verdict.head)
        self._sink, self._on_body_end = self._to_backend, _nothing
        backend = self._upstream.take()
        if backend is None:
            self._pending += verdict.head
            self._spawn(self._connect())
        else:
            self._backend, backend.client = backend, self
            # The head travels with the first bytes of the body: one packet, one system call.
            size = min(len(self._buffer), self._body_left)
            first = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._body_left -= size
            self._kept += first
            backend.begin(self._method(), verdict.head + first)

    async def _connect(self) -> None:
        try:
            backend = await self._upstream.connect()
        except OSError:
            self.cut()
            return
        if self.transport.is_closing():
            backend.transport.abort()
            return
        self._backend, backend.client = backend, self
        backend.begin(self._method(), bytes(self._pending))
        self._pending.clear()
        self.transport.resume_reading()

    def _method(self) -> str:
        return self._request.method if self._request else ""

    def _read_body(self) -> None:
        if self._sink is None:
            return
        size = min(len(self._buffer), self._body_left)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._take_body(data)

    def _take_body(self, data: bytes) -> None:
        self._body_left -= len(data)
        if data and self._sink is not None:
            self._sink(data)
        if not self._body_left and self._on_body_end is not None:
            ended, self._on_body_end = self._on_body_end, None
            ended()

    def _to_backend(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept += data
            if len(self._kept) > _KEPT_FOR_RETRY:
                self._kept = None
        if self._backend is not None:
            self._backend.transport.write(data)
        else:
            self._pending += data
            if len(self._pending) > _KEPT_FOR_RETRY:
                self.transport.pause_reading()

    @property
    def sending(self) -> bool:
        """Whether a part of the request is still to come."""
        return self._body_left > 0

    def relay(self, data: bytes) -> None:
        """Bytes of the store's answer."""
        self.transport.write(data)

    def answered(self, status: int) -> bool:
        """The store's answer begins with this status; whether it is passed on."""
        forward, self._status = self._forward, status
        if forward is not None and forward.lose_reply:
            self.cut()
            return False
        return not (
            forward is not None and forward.instead_of_missing and status == http.HTTPStatus.NOT_FOUND
        )

    def finished(self, *, relayed: bool, close: bool) -> None:
        """The store's answer is through."""
        self._backend = None
        forward, self._forward = self._forward, None
        if forward is not None and forward.done is not None:
            forward.done(self._status)
        if self.transport.is_closing():
            return
        if not relayed and forward is not None and forward.instead_of_missing:
            self._send(forward.instead_of_missing)
        elif close or self._close or self._body_left:
            self.transport.close()
        else:
            self._next()

    def failed(self, *, retry: bool) -> None:
        """The store closed the connection before it had answered."""
        self._backend = None
        if retry and self._kept is not None:
            self._pending[:] = self._kept
            self._spawn(self._connect())
        else:
            self.cut()

    def cut(self) -> None:
        """Reset, not close: the client learns at once that there will be no answer."""
        connection = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _send(self, reply: Reply) -> None:
        if self._method() == "HEAD" and reply.body:
            reply = Reply(reply.status, b"", reply.headers, str(len(reply.body)))
        self.transport.write(reply.encode(close=self._close))
        if self._close:
            self.transport.close()
        else:
            self._next()

    def _next(self) -> None:
        self._request, self._sink, self._kept = None, None, None
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._read_next)

    def _read_next(self) -> None:
        if self._request is None and not self.transport.is_closing():
            self._read_head()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parse_head(head: bytes) -> tuple[Request, str]:
    first, *rest = head.split(b"\r\n")
    method, target, version = first.decode("latin-1").split(" ")
    headers: dict[str, str] = {}
    lines = []
    for line in rest:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise ValueError(line)
        name = name.lower()
        value = value.strip()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
        lines.append((name, line))
    return Request(method, target, headers, lines), version


def _discard(_data: bytes) -> None:
    """Bodies of requests that were answered without them."""


def _nothing() -> None:
    """Nothing follows the end of the body: the store's answer does."""
