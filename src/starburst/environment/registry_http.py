"""Requests to a registry: who asks, what is tried again, and what is never sent to another host."""

from __future__ import annotations

import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from typing import IO, Protocol, cast

import urllib3
from urllib3 import BaseHTTPResponse, exceptions

from starburst.clock import backoff_s
from starburst.environment.registry_auth import Challenge, Credentials, token_of
from starburst.environment.registry_errors import Refusal, refused, unreachable

__all__ = ["LOOPBACK", "Answer", "Later", "Patience", "RegistryHttp"]

_CONNECT_S = 10.0
_ANSWER_S = 60.0
_TRIES = 6
_TRIES_UNHEARD = 3
"""When nobody listens, or the name is unknown, it rarely gets better."""
_BACKOFF_CAP_S = 8.0
_RETRY_AFTER_CAP_S = 30.0
_REDIRECTS = 5
_PIECE_BYTES = 1 << 18
LOOPBACK = ("127.", "localhost", "[::1]")
"""How names of registries on this machine begin; they have no certificates."""

_TROUBLES = (exceptions.HTTPError, HTTPException, OSError)


class Readable(Protocol):
    """What is sent, if it is not in memory."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        ...

    def close(self) -> None:
        """Nothing more is read."""
        ...


BodySource = bytes | Callable[[], Readable] | None
"""What is sent: bytes, or something that opens it anew for each try."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A registry's answer.

    Attributes:
        status: HTTP's number.
        headers: Names in any case.
        data: The body.
        url: Who answered, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    body: BodySource = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_s: float = _ANSWER_S


class Later(Exception):  # noqa: N818 - not an error as long as there is patience
    """No answer, or one that says "later"."""

    def __init__(self, reason: str, *, wait_s: float | None = None, unheard: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.unheard = unheard


class Patience:
    """How long something is tried again.

    Args:
        host: The registry, for the error.
        doing: What is tried, for the error.
        sleep: Waits so many seconds.
    """

    def __init__(self, host: str, doing: str, sleep: Callable[[float], object]) -> None:
        self._host, self._doing, self._sleep = host, doing, sleep
        self._tries = 0

    def after(self, later: Later) -> None:
        """Wait until it is worth another try.

        Raises:
            EnvironmentBuildError: It was tried often enough.
        """
        self._tries += 1
        if self._tries >= (_TRIES_UNHEARD if later.unheard else _TRIES):
            raise unreachable(self._host, self._doing, later.reason) from later
        wait_s = backoff_s(self._tries, base_s=0.1, cap_s=_BACKOFF_CAP_S)
        self._sleep(max(wait_s, min(later.wait_s or 0.0, _RETRY_AFTER_CAP_S)))

    def renew(self) -> None:
        """Something got done: count anew."""
        self._tries = 0


class RegistryHttp:
    """A registry's host. Several threads may use it.

    Args:
        host: With the port, if it is another than HTTPS has.
        credentials: Who asks; None for nobody.
        insecure_http: Speak plain HTTP; what listens on this machine itself is always spoken to so.
        sleep: Waits so many seconds between tries.
    """

    def __init__(
        self,
        host: str,
        credentials: Credentials | None,
        *,
        insecure_http: bool,
        sleep: Callable[[float], object],
    ) -> None:
        loopback = host.startswith(LOOPBACK)
        plain = insecure_http or loopback
        self.host = host
        self.sleep = sleep
        self.root = f"{'http' if plain else 'https'}://{host}"
        self._credentials = credentials
        self._authorizations: dict[str, str] = {}
        self._lock = threading.Lock()
        # What we try again depends on what was sent, and redirects must lose the password: both are ours.
        timeout = urllib3.Timeout(connect=_CONNECT_S, read=_ANSWER_S)
        proxy = urllib.request.getproxies().get("http" if plain else "https")
        name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
        if proxy and not loopback and not urllib.request.proxy_bypass(name):
            self._pool: urllib3.PoolManager = urllib3.ProxyManager(
                proxy, maxsize=8, timeout=timeout, retries=False, blocksize=_PIECE_BYTES
            )
        else:
            self._pool = urllib3.PoolManager(
                maxsize=8, timeout=timeout, retries=False, blocksize=_PIECE_BYTES
            )

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def ask(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        repository: str,
        expect: Collection[int],
        actions: str = "pull",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask, again and again if that may help.

        Args:
            method: ``GET``, ``HEAD``, ``POST`` or ``PUT``; asking twice must do no harm.
            path: From ``/v2/`` on, or a whole address.
            doing: In words, for errors.
            repository: Whose; for the token and for errors.
            expect: The statuses that are no errors.
            actions: ``pull`` or ``pull,push``: for the token.
            body: What is sent.
            headers: More of them.

        Raises:
            EnvironmentBuildError: The registry refuses, or does not answer.
        """
        patience = Patience(self.host, doing, self.sleep)
        scope = f"repository:{repository}:{actions}"
        while True:
            try:
                answer = self.once(method, path, scope=scope, body=body, headers=headers)
            except Later as later:
                patience.after(later)
                continue
            if answer.status in expect:
                return answer
            raise refused(self.host, repository, doing, Refusal.of(answer.status, answer.data))

    def once(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        body: BodySource = None,
        headers: Mapping[str, str] | None = None,
        answer_s: float = _ANSWER_S,
    ) -> Answer:
        """Ask once (and once more with a new token, if the old one has run out).

        Raises:
            Later: No answer, or one of a registry that has too much to do.
        """
        request = _Request(method, urllib.parse.urljoin(self.root, path), body, headers or {}, answer_s)
        return self._read(self._open(request, scope))

    def stream(self, path: str, *, scope: str, headers: Mapping[str, str]) -> tuple[int, Iterator[bytes]]:
        """The status of an answer, and its body piece by piece.

        Raises:
            Later: No answer, or it broke off.
        """
        request = _Request("GET", urllib.parse.urljoin(self.root, path), headers=headers)
        response = self._open(request, scope)
        if response.status == 429 or response.status >= 500:
            self._read(response)

        def pieces() -> Iterator[bytes]:
            try:
                yield from response.stream(_PIECE_BYTES, decode_content=False)
            except _TROUBLES as error:
                raise self._later(error) from error
            finally:
                response.close()

        return response.status, pieces()

    def _open(self, request: _Request, scope: str) -> BaseHTTPResponse:
        """Ask, following redirects, with what the registry wants to know about us."""
        url, asked_anew = request.url, False
        for _ in range(_REDIRECTS + 2):
            ours = _origin(url) == _origin(self.root)
            shown = self._authorizations.get(scope) or self._authorizations.get("")
            response = self._send(
                replace(request, url=url), {"Authorization": shown} if ours and shown else {}
            )
            if response.status == 401 and ours and not asked_anew:
                challenge = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
                answer = self._read(response)
                asked_anew = True
                if not self._authorize(challenge, scope, shown):
                    refusal = Refusal.of(401, answer.data)
                    raise refused(self.host, scope.split(":")[1], "access", refusal)
            elif response.status in (301, 302, 303, 307, 308) and request.method in ("GET", "HEAD"):
                target = urllib.parse.urljoin(url, response.headers.get("Location", ""))
                self._read(response)
                if url.startswith("https:") and not target.startswith("https:"):
                    raise unreachable(
                        self.host, "to follow a redirect", f"it leads from HTTPS to {_origin(target)}"
                    )
                url = target
            else:
                return response
        raise unreachable(self.host, "to follow redirects", "they do not end")

    def _send(self, request: _Request, headers: Mapping[str, str]) -> BaseHTTPResponse:
        body = request.body() if callable(request.body) else request.body
        try:
            return self._pool.request(
                request.method,
                request.url,
                body=cast("IO[bytes] | bytes | None", body),
                headers={"User-Agent": "starburst", **request.headers, **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=request.answer_s),
            )
        except _TROUBLES as error:
            raise self._later(error) from error
        finally:
            if body is not None and not isinstance(body, bytes):
                body.close()

    def _authorize(self, challenge: Challenge, scope: str, refused_one: str | None) -> bool:
        """Get what the challenge asks for; False if there is nothing new to show."""
        with self._lock:
            now = self._authorizations.get(scope) or self._authorizations.get("")
            if now != refused_one:
                return True  # another thread has got a new one meanwhile
            if challenge.scheme == "basic":
                if self._credentials is None or now is not None:
                    return False
                self._authorizations[""] = self._credentials.basic()
                return True
            realm = challenge.parameters.get("realm", "")
            if challenge.scheme != "bearer" or not realm:
                return False
            self._authorizations[scope] = f"Bearer {self._token(realm, challenge, scope)}"
            return True

    def _token(self, realm: str, challenge: Challenge, scope: str) -> str:
        if self.root.startswith("https:") and not realm.startswith("https:"):
            raise unreachable(self.host, "to log in", f"it wants the password without encryption, at {realm}")
        parameters = {"scope": scope}
        if service := challenge.parameters.get("service"):
            parameters["service"] = service
        headers = {"Authorization": self._credentials.basic()} if self._credentials else {}
        separator = "&" if "?" in realm else "?"
        url = f"{realm}{separator}{urllib.parse.urlencode(parameters)}"
        patience = Patience(self.host, "to log in", self.sleep)
        while True:
            try:
                response = self._send(_Request("GET", url), headers)
                answer = self._read(response)
            except Later as later:
                patience.after(later)
                continue
            token = token_of(answer.data) if answer.status == 200 else ""
            if not token:
                refusal = Refusal.of(answer.status, answer.data)
                raise refused(self.host, scope.split(":")[1], "to log in", refusal)
            return token

    def _read(self, response: BaseHTTPResponse) -> Answer:
        try:
            answer = Answer(response.status, response.headers, response.read(), response.url or "")
        except _TROUBLES as error:
            raise self._later(error) from error
        finally:
            response.release_conn()
        if answer.status == 429 or answer.status >= 500:
            wait_s = _seconds(answer.headers.get("Retry-After"))
            raise Later(str(Refusal.of(answer.status, answer.data)), wait_s=wait_s)
        return answer

    def _later(self, error: Exception) -> Exception:
        """What a failed request means: trying again, or the error itself."""
        if isinstance(error, exceptions.SSLError):
            return unreachable(self.host, "anything", str(error))
        unheard = isinstance(error, exceptions.NewConnectionError | exceptions.ConnectTimeoutError)
        return Later(str(error) or type(error).__name__, unheard=unheard)


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _seconds(header: str | None) -> float | None:
    try:
        return float(header) if header else None
    except ValueError:
        return None  # a date
