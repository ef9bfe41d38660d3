"""Making sessions, and finding them again."""

from __future__ import annotations

from typing import Any

from starburst.client.connection import Connection
from starburst.client.engine import engine
from starburst.client.plan import current_options
from starburst.client.session import Session
from starburst.errors import OptionError
from starburst.options import MAX_WORKERS, Options
from starburst.protocol.keys import SESSIONS, split_session_url
from starburst.protocol.records import Manifest

__all__ = ["attach", "find", "session"]


def session(**options: Any) -> Session:
    """Make a detached session: its workers and its supervisor go on when this process ends.

        session = starburst.session(workers=50, absolute_timeout="12h")
        session.map(align, samples)
        print(session.session_id)

    Args:
        **options: Any of :class:`starburst.Options`.

    Returns:
        The session; workers start with the first submission.

    Raises:
        OptionError: An option is unknown or wrong; nothing was made.
        InvalidStoreURL: The store cannot be opened or written.
    """
    chosen = current_options(options)
    return Session(engine.run(Connection.create(chosen, "session")), chosen)


def attach(session_id: str, store: str | None = None, region: str | None = None) -> Session:
    """Find a session again, from any process or machine that reaches its store.

    If it has work left, and its workers or supervisor are gone, it is brought back to life.

    Args:
        session_id: Its id, or its URL.
        store: The store's URL; None means the planned or configured one, then the buckets of all regions in which
            ``starburst setup`` has run.
        region: Look only in the bucket of this region.

    Raises:
        OptionError: The id is not text.
        SessionNotFound: It is not in that store; the message lists ids that look like it.
    """
    found = find(session_id, store, region)
    status = found.status()
    if status.state == "open" and status.pending + status.running:
        engine.run(found._wake())  # noqa: SLF001 - a part of the session, and no business of its users
    return found


def find(session_id: str, store: str | None = None, region: str | None = None) -> Session:
    """As :func:`attach`, without waking anything: for looking at a session.

    Args:
        session_id: Its id, or its URL.
        store: The store's URL; None means the planned or configured one, then the buckets of all regions in which
            ``starburst setup`` has run.
        region: Look only in the bucket of this region.

    Raises:
        OptionError: The id is not text.
        SessionNotFound: It is not in that store.
    """
    if not isinstance(session_id, str):
        raise OptionError(f"{session_id!r} is not a session id", hint="`starburst sessions` lists them")
    if f"/{SESSIONS}" in session_id:
        store, session_id = split_session_url(session_id)
    connection = engine.run(Connection.open(session_id, store, region))
    return Session(connection, _options_of(connection.manifest))


def _options_of(manifest: Manifest) -> Options:
    """The options that a session was made with, as far as they matter for more work in it."""
    return Options(
        workers=manifest.workers,
        slots=manifest.slots,
        launch_type=manifest.launch_type,
        cpu=manifest.cpu,
        memory=None if manifest.memory_bytes is None else manifest.memory_bytes / 2**30,
        max_attempts=manifest.max_attempts,
        lease=manifest.lease_s,
        idle_timeout=manifest.idle_timeout_s,
        session_timeout=manifest.session_timeout_s,
        absolute_timeout=manifest.absolute_timeout_s,
        max_workers=max(MAX_WORKERS, manifest.workers),
    )
