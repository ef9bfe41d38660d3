"""The HTTP face of the control plane: says who asks for what, lets filters look at it, then asks moto."""

from __future__ import annotations

import contextlib
import http
import io
import json
import logging
import re
import socket
import urllib.parse
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moto.core.exceptions import ServiceException
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

if TYPE_CHECKING:
    from starburst.testing.aws.world import World

__all__ = ["Answer", "Call", "Filter", "Front", "Operation", "Refusal"]

_log = logging.getLogger(__name__)

# Services whose name in signatures and policies is not the one that boto3 knows them by.
_BOTO_NAMES = {
    "servicequotas": "service-quotas",
    "monitoring": "cloudwatch",
    "tagging": "resourcegroupstaggingapi",
    "elasticfilesystem": "efs",
}
_QUERY_SERVICES = {"autoscaling", "cloudformation", "iam", "monitoring", "s3", "sts"}
_CREDENTIAL = re.compile(r"Credential=([^/,]+)/(\d+)/([^/,]*)/([^/,]+)/aws4_request")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Refusal(Exception):  # noqa: N818 - named for the condition
    """An operation says no, as AWS does.

    Args:
        code: Such as ``InvalidParameterException``.
        message: What the caller reads.
        status: Of the HTTP response.
        **members: More members of the error, as the service's model names them.
    """

    def __init__(self, code: str, message: str, *, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members


class _Error(ServiceException):
    """Of this module: moto looks for the model of an error by the module of its class."""


@dataclass(slots=True)
class Call:
    """One request to the control plane.

    Attributes:
        service: As in signatures and policies, such as ``ecs``; empty if the request is not signed.
        operation: Such as ``RunTask``; empty if it cannot be told.
        region: That it was signed for.
        account: The simulated account's number.
        access_key: Who signed it.
        environ: The WSGI environment.
        body: As it came.
        lose_reply: Set by a filter: do it, then cut the connection.
    """

    service: str
    operation: str
    region: str
    account: str
    access_key: str
    environ: dict[str, Any]
    body: bytes
    lose_reply: bool = False
    _parameters: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """``service.Operation``, as in the counters."""
        return f"{self.service}.{self.operation}"

    @property
    def action(self) -> str:
        """``service:Operation``, as in policies and scripts."""
        return f"{self.service}:{self.operation}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked, as far as body and address tell: nested for JSON, flat for forms."""
        if self._parameters is None:
            self._parameters = self._parse()
        return self._parameters

    def error(self, code: str, message: str, *, status: int = 400, **members: Any) -> Answer:
        """An error as this service writes it."""
        error = _Error(code, message)
        for name, value in members.items():
            setattr(error, name, value)
        written = self._write(error)
        return Answer(status, written.headers, written.body)

    def refused(
        self, codes: tuple[str, str, str], message: str, *, ec2_message: str = "", ec2_status: int = 400
    ) -> Answer:
        """A refusal, by the code that EC2, services of the query protocol, and all others have for it."""
        ec2, query, other = codes
        if self.service == "ec2":
            return self.error(ec2, ec2_message or message, status=ec2_status)
        if self.service in _QUERY_SERVICES:
            return self.error(query, message, status=403)
        return self.error(other, message)

    def denied(self, principal: str, resource: str = "", *, action: str = "", because: str = "") -> Answer:
        """The answer to somebody whose policies do not allow this; ``resource`` as far as it is known."""
        action = action or self.action
        on = f" on resource: {resource}" if resource else ""
        because = because or f"because no identity-based policy allows the {action} action"
        message = f"User: {principal} is not authorized to perform: {action}{on} {because}"
        return self.refused(
            ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
            message,
            ec2_message=f"You are not authorized to perform this operation. {message}",
            ec2_status=403,
        )

    def result(self, result: dict[str, Any]) -> Answer:
        """A result as this service writes it; members are named as in the service's model."""
        return self._write(result)

    def _write(self, result: Any) -> Answer:
        name = _BOTO_NAMES.get(self.service, self.service)
        model = get_service_model(name)
        protocol = determine_request_protocol(model, self.environ.get("CONTENT_TYPE"))
        serializer = get_serializer_class(name, protocol)(
            operation_model=model.operation_model(self.operation)
        )
        written = serializer.serialize(result)
        headers = {key: str(value) for key, value in written["headers"].items()}
        headers |= {"x-amzn-RequestId": str(uuid.uuid4())}
        body = written["body"]
        content = body if isinstance(body, bytes) else body.encode()
        return Answer(written["status_code"], list(headers.items()), content)

    def _parse(self) -> dict[str, Any]:
        query = dict(urllib.parse.parse_qsl(self.environ.get("QUERY_STRING", ""), keep_blank_values=True))
        kind = self.environ.get("CONTENT_TYPE", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            form = urllib.parse.parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True)
            return {**query, **dict(form)}
        if "json" in kind and self.body:
            try:
                given = json.loads(self.body)
            except ValueError:
                return query
            return {**query, **given} if isinstance(given, dict) else query
        return query


Filter = Callable[[Call], Answer | None]
"""Looks at a request under the world's lock; an answer ends it, None lets it pass."""

Operation = Callable[[Call], Answer | dict[str, Any]]
"""Does what moto does not, under the world's lock; raises :class:`Refusal`."""


class Front:
    """A WSGI application.

    Each request is counted, then shown to ``filters`` in order, whose first answer counts; then it goes to the
    one of ``operations`` (by ``service:Operation``), or to moto.
    """

    def __init__(self, world: World) -> None:
        self.filters: list[Filter] = []
        self.operations: dict[str, Operation] = {}
        self._world = world

    @cached_property
    def _moto(self) -> Any:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        return DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        call = _read(environ, self._world.options.account)
        with self._world.lock:
            answer = self._answer(call)
        if call.lose_reply:
            with contextlib.suppress(OSError):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError  # what is written after this goes nowhere
        start_response(f"{answer.status} {_phrase(answer.status)}", answer.headers)
        return [answer.body]

    def _answer(self, call: Call) -> Answer:
        if call.operation:
            self._world.calls[call.name] += 1
            for each in self.filters:
                answer = each(call)
                if answer is not None:
                    return answer
        operation = self.operations.get(call.action)
        if operation is None:
            return self.ask_moto(call.environ)
        try:
            result = operation(call)
        except Refusal as no:
            return call.error(no.code, no.message, status=no.status, **no.members)
        except ServiceException as no:
            return call.error(no.code, no.message)
        return result if isinstance(result, Answer) else call.result(result)

    def ask_moto(self, environ: dict[str, Any]) -> Answer:
        """What moto answers; the caller holds the world's lock."""
        begun: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
            begun[:] = [int(status.split(maxsplit=1)[0]), headers]

        parts = self._moto(environ, start_response)
        try:
            body = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        return Answer(begun[0], begun[1], body)


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _read(environ: dict[str, Any], account: str) -> Call:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    signed = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    key, region, service = (signed[1], signed[3], signed[4]) if signed else ("", "", "")
    return Call(service, _operation(service, environ, body), region, account, key, environ, body)


def _operation(service: str, environ: dict[str, Any], body: bytes) -> str:
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return str(target.rpartition(".")[2])
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        named = re.search(rb"(?:^|&)Action=(\w+)", body)
        if named:
            return named[1].decode()
    if not service:
        return ""
    try:
        router = get_service_router(_BOTO_NAMES.get(service, service))
        operation, _ = router.match(Request(environ))
    except NotFound:
        return ""
    finally:
        environ["wsgi.input"] = io.BytesIO(body)
    return str(operation.name)
