"""A session as a client holds it: its store, manifest, provider; made new or found again."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import cloudpickle
from msgspec import structs

from starburst._version import __version__
from starburst.client.code import Code, OwnCode
from starburst.client.packing import Packed
from starburst.client.places import place_at, usual_places
from starburst.clock import Clock, SystemClock
from starburst.compute.base import Place, Provider
from starburst.compute.registry import load_provider
from starburst.config import default_store_url
from starburst.errors import (
    AccessDenied,
    IncompatibleVersion,
    InvalidStoreURL,
    NotSetUp,
    SessionNotFound,
    StarburstError,
    StoreUnavailable,
)
from starburst.options import CLOUD, Options, parse_memory_bytes
from starburst.protocol.keys import Keys, new_session_id
from starburst.protocol.keys import session_url as url_of
from starburst.protocol.pack import encode_pack
from starburst.protocol.records import (
    BatchHeader,
    CodeHeader,
    Environment,
    FunctionHeader,
    Manifest,
    ObjectHeader,
)
from starburst.protocol.sessions import append_event, create_session, publish_batch, read_manifest
from starburst.store.base import Store

__all__ = ["Connection", "local_environment"]

Kind = Literal["map", "session", "resume"]
_AT_ONCE = 8


@dataclass(slots=True)
class Connection:
    """One open session.

    Attributes:
        store: Where it lives.
        manifest: What it is.
        provider: What starts its workers.
        clock: Time.
        code: The program's own modules.
    """

    store: Store
    manifest: Manifest
    provider: Provider
    clock: Clock = field(default_factory=SystemClock)
    code: OwnCode = field(init=False)
    _stored: set[str] = field(default_factory=set)
    _next_seq: int = 1

    def __post_init__(self) -> None:
        """Workers elsewhere need the program's own modules: those of the cloud, and any that may join by the store.

        So do those that have packages of their own, wherever they are.
        """
        here = self.store.url.startswith(("file:", "memory:")) and self.manifest.launch_type not in CLOUD
        self.code = OwnCode(travels=not here or bool(self.manifest.environment.lock))

    @classmethod
    async def create(cls, options: Options, kind: Kind, *, session_id: str | None = None) -> Connection:
        """Make a new session; nothing is launched yet.

        Raises:
            InvalidStoreURL: The store cannot be opened or written.
            NotSetUp: The bucket of the set-up is gone.
            ProviderError: There is no such launch type.
        """
        provider = load_provider(options.launch_type)
        place = await provider.prepare(options)
        url = options.store or place.store or default_store_url()
        at = place_at(url, options)
        store = at.open()
        if options.launch_type in CLOUD and not store.url.startswith("s3:"):
            raise InvalidStoreURL(
                f"the store {store.url} is on this machine, where workers on AWS cannot reach it",
                hint="leave store= out, or use s3://bucket/prefix",
            )
        if store.url.startswith("memory:") and options.launch_type == "LOCAL":
            raise InvalidStoreURL(
                f"the store {store.url} is in this process's memory, where no worker can reach it",
                hint="leave store= out, or use file:///absolute/path",
            )
        clock = SystemClock()
        manifest = _manifest(options, kind, session_id or new_session_id(kind), clock, place)
        with at.known():
            made = await create_session(store, manifest)
        if not made:
            manifest = await read_manifest(store, manifest.session_id)
        connection = cls(store, manifest, provider, clock)
        connection.code.provided = place.environment.packages
        connection.code.how_to_add = place.environment.how_to_add
        return connection

    @classmethod
    async def open(cls, session_id: str, store: str | None = None, region: str | None = None) -> Connection:
        """Find a session again.

        Args:
            session_id: Its id.
            store: The store's URL; None means the usual one, then the buckets of all regions that are set up.
            region: Look only in the bucket of this region.

        Raises:
            SessionNotFound: It is in none of them.
            NotSetUp: Nor can it be found in the bucket of a set-up, which is gone.
        """
        why: StarburstError = SessionNotFound(f"there is no session {session_id!r}")
        for place in usual_places(store, region):
            opened = place.open()
            try:
                with place.known():
                    manifest = await read_manifest(opened, session_id)
            except NotSetUp as error:
                why = error
            except (SessionNotFound, AccessDenied, StoreUnavailable) as error:
                why = why if isinstance(why, NotSetUp) else error
            else:
                return cls(opened, manifest, load_provider(manifest.launch_type, manifest.deployment))
        raise why

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.manifest.session_id

    @property
    def keys(self) -> Keys:
        """The session's keys."""
        return Keys(self.manifest.session_id)

    @property
    def url(self) -> str:
        """The session's URL, by which any machine can join: ``starburst worker URL``."""
        return url_of(self.store.url, self.session_id)

    @property
    def lanes(self) -> int:
        """Tasks that can run at once."""
        return self.manifest.workers * self.manifest.slots

    async def check_exists(self) -> None:
        """Refuse to go on with a session that was removed; nothing may be written where it was.

        Raises:
            SessionNotFound: It is not in the store any more.
        """
        try:
            await read_manifest(self.store, self.session_id)
        except SessionNotFound:
            raise SessionNotFound(
                f"session {self.session_id} is not in {self.store.url} any more: it was removed",
                hint="starburst.session() makes a new one",
            ) from None

    def check_python(self) -> None:
        """Refuse to submit from another Python than the session's workers run.

        Raises:
            IncompatibleVersion: Their minor versions differ.
        """
        ours, theirs = Environment(), self.manifest.environment
        if (ours.python, ours.implementation) != (theirs.python, theirs.implementation):
            raise IncompatibleVersion(
                f"session {self.session_id} was made with {theirs.implementation} {theirs.python}, this is "
                f"{ours.implementation} {ours.python}: functions pickled by one cannot run on the other",
                hint=f"submit from Python {theirs.python}; results can be collected from here",
            )

    async def submit(self, packed: Packed, header: BatchHeader) -> int:
        """Write a submission; returns its number. A client that dies on the way leaves all of it or nothing."""
        self.check_python()
        code = await self.code.look(packed.function)
        await self._put_code(code)
        await self.put_objects(packed)
        await self._put_function(packed)
        header = structs.replace(header, layer=code.layer, edition=code.edition)
        body = encode_pack(header, packed.frames, compress=self.store.compresses)
        seq = await publish_batch(self.store, self.keys, lambda _: body, next_seq=self._next_seq)
        self._next_seq = seq + 1
        return seq

    async def say(self, what: str, **data: Any) -> None:
        """Write an event."""
        await append_event(self.store, self.keys, self.clock, what, data=data)

    async def put_objects(self, packed: Packed) -> None:
        """Write the large objects that are not there yet."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def put(sha256: str) -> None:
            async with gate:
                buffers, type_name = packed.large.found[sha256]
                body = encode_pack(
                    ObjectHeader(nonce=sha256[:16], type_name=type_name),
                    buffers,
                    compress=self.store.compresses,
                )
                await self.store.create(self.keys.object(sha256), body)
                self._stored.add(sha256)

        await asyncio.gather(*map(put, self._missing(packed.large.found)))

    async def _put_code(self, code: Code) -> None:
        if code.archive is None or code.layer in self._stored:
            return
        header = CodeHeader(nonce=code.layer[:16], roots=code.archive.roots, n_files=code.archive.n_files)
        body = encode_pack(header, [code.archive.data], compress=self.store.compresses)
        await self.store.create(self.keys.code(code.layer), body)
        self._stored.add(code.layer)

    async def _put_function(self, packed: Packed) -> None:
        if packed.function_sha256 in self._stored:
            return
        header = FunctionHeader(nonce=packed.function_sha256[:16], name=packed.title)
        body = encode_pack(header, [packed.function], compress=self.store.compresses)
        await self.store.create(self.keys.function(packed.function_sha256), body)
        self._stored.add(packed.function_sha256)

    def _missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._stored]


def local_environment() -> Environment:
    """This Python, and where its modules are: for workers on the same machine."""
    paths = tuple(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" means the current folder
    return Environment(
        cwd=os.getcwd(),  # noqa: PTH109
        sys_path=paths,
        starburst=__version__,
        cloudpickle=cloudpickle.__version__,
    )


def _manifest(options: Options, kind: Kind, session_id: str, clock: Clock, place: Place) -> Manifest:
    return Manifest(
        session_id=session_id,
        kind=kind,
        created_at=clock.time(),
        owner=_user(),
        host=socket.gethostname(),
        launch_type=options.launch_type,
        workers=options.workers,
        slots=options.slots,
        max_attempts=options.max_attempts,
        lease_s=options.seconds("lease"),
        idle_timeout_s=options.seconds("idle_timeout"),
        session_timeout_s=options.seconds("session_timeout"),
        absolute_timeout_s=options.seconds("absolute_timeout"),
        environment=structs.replace(
            local_environment(), lock=place.environment.lock, architecture=place.environment.architecture
        ),
        cpu=options.cpu,
        memory_bytes=None if options.memory is None else parse_memory_bytes(options.memory),
        deployment=dict(place.deployment),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return str(os.getuid())
