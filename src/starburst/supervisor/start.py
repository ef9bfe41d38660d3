"""Making sure that a session has a supervisor."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from starburst.compute.base import Provider, ProviderStatus
from starburst.protocol.keys import Keys, session_url
from starburst.protocol.records import Manifest
from starburst.store.base import Store
from starburst.supervisor.leader import Identity, latest_term

__all__ = ["ensure_supervisor", "launch_place"]


async def ensure_supervisor(
    store: Store,
    manifest: Manifest,
    provider: Provider,
    root_url: str,
    *,
    silent: bool = False,
    me: Identity | None = None,
) -> ProviderStatus | None:
    """Start a detached supervisor, unless one is known to be alive: on this machine, or at the provider.

    One too many does no harm: it leaves as soon as it sees that another is at work.

    Args:
        store: The session's store.
        manifest: Its manifest.
        provider: Who starts it.
        root_url: The store's URL, as the supervisor is to open it.
        silent: Its beat has not changed for a lease: it may be frozen, so that its process is there proves nothing;
            only one that has yet to start is waited for.
        me: Who asks; by default this process on this machine.

    Returns:
        What was started, or None if that was not necessary.

    Raises:
        StoreError: The store does not answer.
        ProviderError: It could not be started.
    """
    me = me or Identity(detached=False)
    standing = await latest_term(store, Keys(manifest.session_id))
    if silent and await _is_there(provider, manifest.session_id, ("starting",)):
        return None
    if standing is None and not silent and await _is_there(provider, manifest.session_id):
        return None  # it has not got to lead yet
    if standing is not None and not standing.resigned and standing.leader is not None:
        leader = standing.leader
        if not silent and leader.detached:
            if leader.host == me.host and me.is_alive(leader.pid, leader.at):
                return None
            if leader.host != me.host and await _is_there(provider, manifest.session_id):
                return None
    cwd, python = launch_place(manifest, me.host)
    return await provider.launch_supervisor(
        session_url(root_url, manifest.session_id), manifest.session_id, cwd=cwd, python=python
    )


def launch_place(manifest: Manifest, host: str) -> tuple[str | None, str | None]:
    """The folder and the interpreter that the session was created in, as far as they are here."""
    environment = manifest.environment
    if manifest.host != host:
        return None, None
    cwd = environment.cwd if environment.cwd and Path(environment.cwd).is_dir() else None
    python = environment.executable if Path(environment.executable).is_file() else None
    return cwd, python


async def _is_there(
    provider: Provider, session_id: str, states: Collection[str] = ("starting", "running")
) -> bool:
    """Whether the provider has a supervisor for the session that is in one of these states."""
    return any(
        status.state in states and status.worker.startswith("supervisor-")
        for status in await provider.describe(session_id)
    )
