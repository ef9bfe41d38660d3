"""Spot interruptions of EC2 hosts, which ECS does not tell to tasks: the worker watches for the notice itself.

Source: Amazon EC2 User Guide, "Spot Instance interruption notices": two minutes' warning, best effort, at
``spot/instance-action`` of the instance metadata service (IMDSv2: a token first); 404 means none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable

from starburst.clock import Clock

__all__ = ["watch_for_interruption"]

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_TIMEOUT_S = 2.0
_TOKEN_S = 21_600
_TRIES = 12
"""So many failures in a row, and there is no metadata service that we can reach."""


async def watch_for_interruption(clock: Clock, on_notice: Callable[[str], None]) -> None:
    """Look every five seconds; call ``on_notice`` once with the reason, and end.

    Args:
        clock: Time.
        on_notice: Told why the worker has to leave.
    """
    failures = 0
    token = ""
    while failures < _TRIES:
        try:
            token = token or await asyncio.to_thread(_token)
            notice = await asyncio.to_thread(_notice, token)
            failures = 0
        except OSError as error:
            notice, token = None, ""
            failures += 1
            log.debug("the instance metadata service gives no answer: %s", error)
        if notice is not None:
            on_notice(f"the host is interrupted (Spot): {notice}")
            return
        await clock.sleep(_EVERY_S)
    log.warning("interruptions of this host are not noticed: its metadata service cannot be reached")


def _endpoint() -> str:
    return os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")


def _token() -> str:
    request = urllib.request.Request(  # noqa: S310 - a fixed address
        f"{_endpoint()}/latest/api/token",
        method="PUT",
        headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)},
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return str(answer.read().decode())


def _notice(token: str) -> str | None:
    request = urllib.request.Request(  # noqa: S310
        f"{_endpoint()}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
