"""An HTTP proxy before a registry that asks for passwords, answers what it is told to, and breaks connections."""

import base64
import http.client
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "AWS", "correct horse"


@dataclass
class Fault:
    """What happens to the next ``times`` requests that fit.

    ``answer`` is (status, headers, body) instead of the registry's. ``cut`` is how many bytes of the body are
    read before the connection breaks: nothing is handed on, unless ``hand_on`` says that the registry gets them.
    ``lose_answer`` breaks it after the registry has done what was asked.
    """

    method: str
    path: str
    times: int = 1
    answer: tuple = None
    cut: int = None
    hand_on: bool = False
    lose_answer: bool = False


@dataclass
class Proxy:
    """A proxy on loopback before ``upstream``; ``auth`` is None, ``basic`` or ``bearer``."""

    upstream: str
    auth: str = None
    redirect_blobs_to: str = None
    faults: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    tokens: set = field(default_factory=set)
    received: int = 0

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._lock = threading.Lock()
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, method, pattern=""):
        """How many requests of this kind came."""
        return sum(1 for one in self.requests if one[0] == method and re.search(pattern, one[1]))

    def next_fault(self, method, path):
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def revoke(self):
        """All tokens that were given out expire."""
        self.tokens.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy = None

    def log_message(self, *_):
        pass

    def _serve(self):
        proxy = self.proxy
        proxy.requests.append((self.command, self.path, dict(self.headers)))
        fault = proxy.next_fault(self.command, self.path)
        if self.path.startswith("/token"):
            return self._token()
        if fault and fault.cut is not None and not fault.hand_on:
            self._body(fault.cut)
            return self._break()
        if fault and fault.hand_on:
            self._hand_on_a_part(fault.cut)
            return self._break()
        if fault and fault.answer:
            self._body()
            return self._answer(*fault.answer)
        if not self._may():
            self._body()
            return self._ask_for_password()
        if proxy.redirect_blobs_to and self.command == "GET" and "/blobs/sha256" in self.path:
            place = f"http://{proxy.redirect_blobs_to}{self.path}"
            return self._answer(307, {"Location": place}, b"")
        status, headers, data = self._upstream(self._body())
        if fault and fault.lose_answer:
            return self._break()
        self._answer(status, headers, data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _body(self, at_most=None):
        left = int(self.headers.get("Content-Length") or 0)
        if at_most is not None:
            left = min(left, at_most)
        data = self.rfile.read(left)
        self.proxy.received += len(data)
        return data

    def _break(self):
        self.close_connection = True
        self.connection.close()

    def _answer(self, status, headers, data):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "date", "transfer-encoding"):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _upstream(self, body):
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        names = {name for name in self.headers if name.lower() not in ("authorization", "connection")}
        kept = {name: ", ".join(self.headers.get_all(name)) for name in names}
        connection.request(self.command, self.path, body, kept)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, dict(response.headers), data

    def _hand_on_a_part(self, size):
        """The registry gets a part of the body, and then its connection breaks, too."""
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(self._body(size))
        time.sleep(0.1)  # what the registry has not read yet would be lost with the connection
        connection.close()

    def _may(self):
        given = self.headers.get("Authorization", "")
        if self.proxy.auth == "basic":
            return given == _basic()
        return self.proxy.auth is None or given.removeprefix("Bearer ") in self.proxy.tokens

    def _ask_for_password(self):
        if self.proxy.auth == "basic":
            challenge = 'Basic realm="https://example.org/",service="ecr.amazonaws.com"'
        else:
            challenge = (
                f'Bearer realm="http://{self.proxy.address}/token",service="test, registry",scope="a:b:c"'
            )
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]})
        self._answer(401, {"WWW-Authenticate": challenge}, body.encode())

    def _token(self):
        asked = parse_qs(urlsplit(self.path).query)
        if self.headers.get("Authorization") != _basic() or asked["service"] != ["test, registry"]:
            return self._answer(401, {}, b'{"details": "incorrect username or password"}')
        token = f"token-{len(self.proxy.requests)}"
        self.proxy.tokens.add(token)
        self._answer(200, {}, json.dumps({"token": token, "scope": asked["scope"][0]}).encode())


def _basic():
    return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
