"""A tiny S3 server that does what a script says: the failures that a real server shows once a month."""

import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NORMAL = "normal"
"""Do it and answer."""
LOSE_REPLY = "lose reply"
"""Do it, then close the connection instead of answering."""
DROP = "drop"
"""Close the connection without doing anything."""
STALL = "stall"
"""Keep the connection open and say nothing."""


def s3_error(status, code, message="as the script says"):
    """An answer in S3's form."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, body.encode()


class ScriptedS3:
    """PUT and GET of objects; ``script`` holds what happens to the next requests, then all is normal."""

    def __init__(self):
        self.script = deque()
        self.objects = {}
        self.requests = []
        self._closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                owner._serve(self)

            def do_GET(self):
                owner._serve(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *exc):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler):
        path = handler.path.partition("?")[0].strip("/").partition("/")[2]
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.requests.append((handler.command, path))
        action = self.script.popleft() if self.script else NORMAL
        if action == STALL:
            self._closing.wait(60)
        if action in {DROP, STALL}:
            handler.close_connection = True
            return
        answer = self._do(handler, path, body) if action in {NORMAL, LOSE_REPLY} else action
        if action == LOSE_REPLY:
            handler.close_connection = True
            return
        status, payload = answer
        wanted = handler.headers.get("Range")
        if status == 200 and wanted:
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            status, whole, payload = 206, len(payload), payload[first : last + 1]
        handler.send_response(status)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {first}-{first + len(payload) - 1}/{whole}")
        handler.send_header("Content-Length", str(len(payload)))
        handler.send_header("ETag", '"0123"')
        handler.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
        handler.end_headers()
        handler.wfile.write(payload)

    def _do(self, handler, path, body):
        if handler.command == "PUT":
            if handler.headers.get("If-None-Match") == "*" and path in self.objects:
                return s3_error(412, "PreconditionFailed")
            self.objects[path] = body
            return 200, b""
        if path in self.objects:
            return 200, self.objects[path]
        return s3_error(404, "NoSuchKey")
