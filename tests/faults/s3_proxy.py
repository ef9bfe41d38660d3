"""A real HTTP proxy on loopback in front of a real S3 server, with faults by script.

Requests are passed on unchanged, the Host header included, which the signature covers.
"""

import http.client
import socket
import struct
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PASS = "pass"
UNAVAILABLE = "503"
"""Answer "slow down" without doing anything."""
CONFLICT = "409"
"""Answer "conditional request conflict" without doing anything, as S3 does when two writers race."""
RESET_BEFORE = "reset before"
"""Cut the connection without doing anything."""
RESET_AFTER = "reset after"
"""Do it, and cut the connection instead of answering."""
HALF_ANSWER = "half an answer"
"""Do it, and cut the connection in the middle of the answer."""
SLOW = "slow"
"""Do it a quarter of a second later."""

_ERRORS = {UNAVAILABLE: (503, "SlowDown"), CONFLICT: (409, "ConditionalRequestConflict")}
_PER_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


def faults_at_first(*faults, share=1.0):
    """A script: the first request for each method and path meets one of ``faults``, or in a ``share`` of the cases.

    Which one is decided by the path, so a run is the same each time however its requests are interleaved.
    """
    seen = set()
    lock = threading.Lock()

    def script(method, path):
        with lock:
            if (method, path) in seen:
                return PASS
            seen.add((method, path))
        number = zlib.crc32(f"{method} {path}".encode())
        return faults[number % len(faults)] if number % 1000 < 1000 * share else PASS

    return script


class S3Proxy:
    """Runs in threads of this process.

    Attributes:
        script: Asked for each request: method and path; says what happens to it.
        down: While it is set, every connection is cut.
        met: How often each fault was met by a PUT, GET or another method.
    """

    def __init__(self, endpoint):
        self.script = lambda method, path: PASS
        self.down = threading.Event()
        self.met = Counter()
        backend = urlsplit(endpoint).netloc
        self.stopping = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.backend = http.client.HTTPConnection(backend, timeout=30)

            def finish(self):
                self.backend.close()
                super().finish()

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def log_message(self, *args):
                pass

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", lambda handler: owner._serve(handler))  # noqa: PLW0108 - binds

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                """A client that was killed is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *exc):
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = handler.path.partition("?")[0] if handler.command != "GET" else handler.path
        fault = RESET_BEFORE if self.down.is_set() else self.script(handler.command, path)
        self.met[fault, handler.command] += 1
        if fault == RESET_BEFORE:
            return self._cut(handler)
        if fault in _ERRORS:
            status, code = _ERRORS[fault]
            said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the script says</Message></Error>"
            return self._answer(handler, status, [("Content-Type", "application/xml")], said.encode())
        if fault == SLOW:
            self.stopping.wait(0.25)
        status, headers, payload = self._pass_on(handler, body)
        if fault == RESET_AFTER:
            return self._cut(handler)
        self._answer(handler, status, headers, payload, only_half=fault == HALF_ANSWER)

    def _pass_on(self, handler, body):
        for retried in (False, True):
            backend = handler.backend
            try:
                backend.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
                for name, value in handler.headers.items():
                    if name.lower() not in _PER_HOP:
                        backend.putheader(name, value)
                backend.endheaders(body or None)
                response = backend.getresponse()
                return response.status, response.getheaders(), response.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                backend.close()  # an idle connection that the server closed before it saw the request
                if retried:
                    raise
        return None

    def _answer(self, handler, status, headers, payload, *, only_half=False):
        handler.send_response_only(status)
        length = next((value for name, value in headers if name.lower() == "content-length"), len(payload))
        for name, value in headers:
            if name.lower() not in _PER_HOP | {"content-length"}:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(length))
        if only_half and len(payload) > 1:
            handler.end_headers()
            handler.wfile.write(payload[: len(payload) // 2])
            return self._cut(handler)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(payload)

    def _cut(self, handler):
        """Reset, not close: the client learns at once that there will be no answer."""
        handler.close_connection = True
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
