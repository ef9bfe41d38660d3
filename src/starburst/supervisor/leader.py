"""Which of several supervisors is at work: a term of office is created once, and shown to be alive by its beat.

    supervisors/<term>        who, created once
    supervisors/<term>.beat   overwritten every few seconds; says at the end that its leader resigned

A term is over when its leader resigned, when it names this host and a process that is gone, or when its beat has
not changed for a lease of the observer's own monotonic time. The successor creates the next term; whoever sees a
term after its own steps down and leaves the workers to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from starburst.clock import Clock
from starburst.container import host_of_container
from starburst.errors import CorruptObject, ObjectNotFound, StoreError
from starburst.protocol.keys import Keys
from starburst.protocol.records import Leader, Manifest, decode_json, encode_json
from starburst.store.base import Store

__all__ = ["Identity", "LeaderBeat", "Standing", "Term", "latest_term", "lead", "process_is_alive"]

log = logging.getLogger(__name__)

_PID_REUSE_S = 5.0


class LeaderBeat(msgspec.Struct, frozen=True, kw_only=True):
    """``supervisors/<term>.beat``."""

    beat: int
    at: float
    resigned: bool = False
    v: int = 1


def process_is_alive(pid: int, since: float) -> bool:
    """Whether a process of this machine that ran at ``since`` (seconds since 1970) still does.

    A frozen one is alive: only its beat can tell that it does not work.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.create_time() > since + _PID_REUSE_S:
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who wants to lead.

    Attributes:
        detached: Whether it outlives the client that started it.
        host: This machine.
        pid: This process.
        is_alive: Whether another process of this machine is; takes its pid and when it was known to run.
    """

    detached: bool
    host: str = field(default_factory=lambda: host_of_container() or os.uname().nodename)
    pid: int = field(default_factory=os.getpid)
    is_alive: Callable[[int, float], bool] = process_is_alive


@dataclass(frozen=True, slots=True)
class Standing:
    """The latest term, as one look shows it.

    Attributes:
        term: Its number.
        leader: Who; None if the record is damaged.
        version: Changes with each beat.
        resigned: Whether its leader said that it is over.
    """

    term: int
    leader: Leader | None
    version: str
    resigned: bool

    def is_gone(self, me: Identity) -> bool:
        """Whether it is certain at once that nobody leads in this term."""
        if self.resigned:
            return True
        here = self.leader is not None and self.leader.host == me.host
        return here and self.leader is not None and not me.is_alive(self.leader.pid, self.leader.at)


async def latest_term(store: Store, keys: Keys) -> Standing | None:
    """The latest term of a session, or None if there was none."""
    listed = {info.key: info.version for info in await store.list(keys.leaders)}
    terms = [key for key in listed if not key.endswith(".beat")]
    if not terms:
        return None
    term = int(terms[-1].rsplit("/", 1)[1])
    try:
        leader = decode_json(Leader, await store.get(terms[-1]), terms[-1])
    except (CorruptObject, ObjectNotFound) as error:
        log.warning("who supervises in term %d cannot be read: %s", term, error)
        leader = None
    beat_key = keys.leader_beat(term)
    resigned = beat_key in listed and await _has_resigned(store, beat_key)
    return Standing(term, leader, listed.get(beat_key, ""), resigned)


async def _has_resigned(store: Store, key: str) -> bool:
    try:
        return msgspec.json.decode(await store.get(key), type=LeaderBeat).resigned
    except (ObjectNotFound, msgspec.MsgspecError):
        return False


class Term:
    """Our own term of office.

    Args:
        store: The session's store.
        manifest: Its manifest: length of a beat and of the lease.
        clock: Time.
        number: The term's number.
    """

    def __init__(self, store: Store, manifest: Manifest, clock: Clock, *, number: int) -> None:
        self._store = store
        self._keys = Keys(manifest.session_id)
        self._clock = clock
        self._heartbeat_s = manifest.heartbeat_s
        self._lease_s = manifest.lease_s
        self._beats = 0
        self._renewed_s = float("-inf")
        self.number = number
        self.deposed = False

    async def renew(self) -> bool:
        """Show that we are alive; False if another supervisor has taken over.

        Raises:
            StoreError: The store does not answer.
        """
        if not self.deposed:
            own = self._keys.leader(self.number)
            later = await self._store.list(self._keys.leaders, start_after=f"{own}~")
            self.deposed = bool(later)
        if self.deposed:
            return False
        await self._beat(resigned=False)
        self._renewed_s = self._clock.monotonic()
        return True

    async def keep(self, deposed: Callable[[], None]) -> None:
        """Renew until cancelled, or until another one has taken over; then call ``deposed``."""
        while True:
            try:
                if not await self.renew():
                    log.warning("another supervisor has taken over; stepping down")
                    deposed()
                    return
            except StoreError as error:
                log.warning("no sign of life as supervisor: %s", error)
            await self._clock.sleep(self._heartbeat_s)

    async def confirm(self) -> bool:
        """Whether we still lead; asks only if we may have slept through half of our lease.

        Raises:
            StoreError: The store does not answer.
        """
        if self.deposed:
            return False
        fresh = self._clock.monotonic() - self._renewed_s < self._lease_s / 2
        return fresh or await self.renew()

    async def resign(self) -> None:
        """Say that the term is over, so that a successor need not wait for the lease."""
        if not self.deposed:
            try:
                await self._beat(resigned=True)
            except StoreError as error:
                log.warning("could not resign as supervisor, a successor has to wait: %s", error)

    async def _beat(self, *, resigned: bool) -> None:
        self._beats += 1
        beat = LeaderBeat(beat=self._beats, at=self._clock.time(), resigned=resigned)
        await self._store.overwrite(self._keys.leader_beat(self.number), encode_json(beat))


async def lead(
    store: Store,
    manifest: Manifest,
    clock: Clock,
    *,
    me: Identity,
    wait: bool = False,
    is_over: Callable[[], Awaitable[bool]] | None = None,
) -> Term | None:
    """Become the session's supervisor.

    Where a leader stands that may be dead, this watches its beat for as long as its lease at the most.

    Args:
        store: The session's store.
        manifest: Its manifest.
        clock: Time.
        me: Who wants to lead.
        wait: Stand by while another one leads, until its term is over, instead of giving up.
        is_over: Whether the session needs no supervisor any more; ends the wait.

    Returns:
        Our term; None if another supervisor is at work, or the session is over.

    Raises:
        StoreError: The store does not answer.
    """
    keys = Keys(manifest.session_id)
    watch = _Watch(manifest.lease_s)
    while True:
        try:
            standing = await latest_term(store, keys)
        except StoreError as error:
            if not watch.began:
                raise
            log.warning("cannot tell who supervises the session: %s", error)
        else:
            watch.look(clock.monotonic(), standing)
            if standing is None or watch.lease_is_over or standing.is_gone(me):
                number = 1 if standing is None else standing.term + 1
                term = await _take_office(store, manifest, clock, me=me, number=number)
                if term is not None:
                    return term
            elif watch.has_changed and not wait:
                return None
            if is_over is not None and await is_over():
                return None
        await clock.sleep(manifest.heartbeat_s / (1 if wait else 4))


class _Watch:
    """Whether the leader of the latest term shows signs of life."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._term = 0
        self._version = ""
        self._since_s = 0.0
        self.began = False
        self.has_changed = False
        self.lease_is_over = False

    def look(self, now_s: float, standing: Standing | None) -> None:
        self.began = True
        if standing is None:
            return
        if standing.term != self._term:
            self._term, self._version, self._since_s = standing.term, standing.version, now_s
        elif standing.version != self._version:
            self._version, self._since_s, self.has_changed = standing.version, now_s, True
        self.lease_is_over = now_s - self._since_s >= self._lease_s


async def _take_office(
    store: Store, manifest: Manifest, clock: Clock, *, me: Identity, number: int
) -> Term | None:
    record = Leader(host=me.host, pid=me.pid, at=clock.time(), detached=me.detached)
    if not await store.create(Keys(manifest.session_id).leader(number), encode_json(record)):
        return None
    term = Term(store, manifest, clock, number=number)
    return term if await term.renew() else None
