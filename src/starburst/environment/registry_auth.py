"""How a registry wants to be told who asks: nobody, a password with each request, or a token bought with it.

Source: Distribution's "Token Authentication Specification"; RFC 9110, section 11.6.1.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field

__all__ = ["Challenge", "Credentials", "token_of"]

_CHALLENGE = re.compile(r"\s*(?P<scheme>[A-Za-z]+)\s+(?P<rest>.*)", re.DOTALL)
_PARAMETER = re.compile(r"([A-Za-z_]+)=(?:\"([^\"]*)\"|([^\s,]+))")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry; the password is never shown.

    Attributes:
        username: ``AWS`` for ECR.
        password: A password or token.
    """

    username: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        both = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(both).decode()}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for.

    Attributes:
        scheme: ``basic`` or ``bearer``, or another one that we cannot answer.
        parameters: ``realm``, ``service``, ``scope``.
    """

    scheme: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Read a ``WWW-Authenticate`` header."""
        match = _CHALLENGE.fullmatch(header)
        if match is None:
            return cls(header.strip().lower(), {})
        found = _PARAMETER.findall(match["rest"])
        return cls(match["scheme"].lower(), {name.lower(): quoted or bare for name, quoted, bare in found})


def token_of(data: bytes) -> str:
    """The token in a token server's answer; empty if there is none."""
    try:
        answer = json.loads(data)
        return str(answer.get("token") or answer.get("access_token") or "")
    except (ValueError, AttributeError):
        return ""
