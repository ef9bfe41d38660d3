"""The HTTP server beside AWS's API: what tasks ask on their host, and what tests ask of the simulator."""

from __future__ import annotations

import json
import logging
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Control", "Handler", "Reply", "Request"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked.

    Attributes:
        method: GET, PUT or POST.
        path: What follows the prefix of the route, without the slash.
        query: Its parameters.
        headers: Names are in lower case.
        body: As it came.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body or b"{}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: text, bytes, or anything that JSON can write."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Reply]


class Control:
    """The server; each request runs on a thread of its own, and handlers take the world's lock themselves."""

    def __init__(self) -> None:
        self._routes: dict[str, Handler] = {}
        self._server = _Server(("127.0.0.1", 0), _make_handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def route(self, prefix: str, handler: Handler) -> None:
        """Send everything under ``prefix`` (such as ``/v4/``) to ``handler``; the longest prefix wins."""
        self._routes[prefix] = handler

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="control", daemon=True
        ).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Find the handler and let it answer; errors become replies."""
        parts = urllib.parse.urlsplit(target)
        path = urllib.parse.unquote(parts.path)
        prefix = max((each for each in self._routes if path.startswith(each)), key=len, default=None)
        if prefix is None:
            return Reply({"error": f"there is nothing at {path}"}, 404)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        request = Request(method, path[len(prefix) :], query, headers, body)
        try:
            return self._routes[prefix](request)
        except KeyError as error:
            return Reply({"error": f"unknown: {error.args[0] if error.args else path}"}, 404)
        except ValueError as error:
            return Reply({"error": str(error)}, 400)
        except Exception as error:  # noqa: BLE001 - whoever asked is to see it
            _log.exception("%s %s failed", method, target)
            return Reply({"error": f"{type(error).__name__}: {error}"}, 500)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # hundreds of tasks ask for their credentials in the same second


def _make_handler(control: Control) -> type[BaseHTTPRequestHandler]:
    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = control.answer(self.command, self.path, headers, self.rfile.read(length))
            kind, data = _encode(reply.body)
            self.send_response(reply.status)
            for name, value in {"Content-Type": kind, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = _serve  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the base class
            """Requests are not logged."""

    return _Handler


def _encode(body: Any) -> tuple[str, bytes]:
    if isinstance(body, bytes):
        return "application/octet-stream", body
    if isinstance(body, str):
        return "text/plain", body.encode()
    return "application/json", json.dumps(body).encode()
