"""``python -m starburst.supervisor URL``: supervise one session, detached from whoever started it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence

from starburst.clock import SystemClock, leave_after
from starburst.compute.registry import load_provider
from starburst.errors import StarburstError
from starburst.protocol.keys import Keys, split_session_url
from starburst.protocol.sessions import read_manifest
from starburst.store.url import open_store
from starburst.supervisor.leader import latest_term
from starburst.supervisor.loop import Supervisor

__all__ = ["EXIT_ERROR", "EXIT_OK", "main", "supervise"]

EXIT_OK = 0
"""The session is over, another supervisor is at work, or this one was told to stop."""
EXIT_ERROR = 1
"""There is no such session, or its store or provider cannot be used; standard error says why."""

log = logging.getLogger(__name__)

_LAST_RESORT_S = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m starburst.supervisor",
        description="Keep the workers of one session alive until it is over. SIGTERM ends the supervisor and "
        "leaves the workers; the next one goes on where it was.",
    )
    parser.add_argument("url", help="URL of the session, such as s3://bucket/sessions/<id>")
    url = parser.parse_args(argv).url
    _log_to_stderr()
    # Whoever started it may log out or press Ctrl-C: that is what it is detached for.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(supervise(url))
    except StarburstError as error:
        log.critical("%s", error)
        return EXIT_ERROR
    return EXIT_OK


async def supervise(url: str) -> None:
    """Supervise the session at ``url`` until it is over or SIGTERM comes.

    Raises:
        StarburstError: There is no such session, or its store or provider cannot be used.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock = SystemClock()
    root_url, session_id = split_session_url(url)
    store = open_store(root_url, clock=clock)
    manifest = await read_manifest(store, session_id)
    provider = load_provider(manifest.launch_type, manifest.deployment)
    supervisor = Supervisor(store, manifest, provider, clock, root_url=root_url, detached=True)
    leave_after(lambda: supervisor.deadline_at, grace_s=_LAST_RESORT_S, exit_code=EXIT_ERROR)
    # A leader that lives in a client goes with it: stand by. Another detached one needs no second.
    standing = await latest_term(store, Keys(session_id))
    wait = standing is not None and standing.leader is not None and not standing.leader.detached
    report = await supervisor.run(stop, wait=wait)
    if report is None:
        log.info("nothing to do: another supervisor is at work, or the session is over")
    else:
        log.info(
            "leaving: session %s is %s, %d workers started, %d lost",
            session_id,
            report.state,
            report.launched,
            report.lost,
        )


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("starburst")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
