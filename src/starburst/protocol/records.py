"""The records in the bucket: msgspec structs, JSON where a person may look, msgpack inside packs.

Every record has ``v``, its major version: readers ignore fields they do not know and refuse a newer major.
Every record that is created once has ``nonce``, a unique id, so that a writer whose reply was lost recognises
its own object.
"""

from __future__ import annotations

import platform
import secrets
import sys
from typing import Any, Literal, TypeVar

import msgspec

from starburst.errors import CorruptObject, IncompatibleVersion

__all__ = [
    "BatchHeader",
    "Claim",
    "CodeHeader",
    "Environment",
    "Event",
    "Failure",
    "FunctionHeader",
    "Heartbeat",
    "Leader",
    "Manifest",
    "ObjectHeader",
    "ResultHeader",
    "Segment",
    "decode_json",
    "decode_msgpack",
    "encode_json",
    "encode_msgpack",
    "nonce",
]

VERSION = 1

R = TypeVar("R", bound="Record")


def nonce() -> str:
    """A unique id for one write."""
    return secrets.token_hex(8)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every record has."""

    v: int = VERSION
    nonce: str = msgspec.field(default_factory=nonce)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The Python that wrote the functions, where workers on this machine find its modules, what others must have.

    ``cloudpickle``, ``architecture`` and ``lock`` bind workers only where they are not empty.
    """

    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    implementation: str = sys.implementation.name
    platform: str = msgspec.field(default_factory=platform.platform)
    executable: str = sys.executable
    cwd: str = ""
    sys_path: tuple[str, ...] = ()
    starburst: str = ""
    cloudpickle: str = ""
    architecture: str = ""
    lock: str = ""


class Manifest(Record, frozen=True, kw_only=True):
    """``manifest.json``: what a session is; written once."""

    session_id: str
    kind: Literal["map", "session", "resume"]
    created_at: float
    owner: str
    host: str
    launch_type: str
    workers: int
    slots: int
    max_attempts: int
    lease_s: float
    idle_timeout_s: float
    session_timeout_s: float
    absolute_timeout_s: float
    environment: Environment
    cpu: float | None = None
    memory_bytes: int | None = None
    deployment: dict[str, Any] = {}
    """What the provider needs to find and start workers from anywhere; names and addresses, never a key."""

    @property
    def heartbeat_s(self) -> float:
        """Seconds between two signs of life of a worker; hundreds of workers beat less often, if the lease allows."""
        return min(max(2.0, self.workers / 50), self.lease_s / 5)

    @property
    def news_s(self) -> float:
        """Seconds between two looks of a worker at the session's events."""
        return max(self.heartbeat_s / 2, self.workers / 100)


class BatchHeader(Record, frozen=True, kw_only=True):
    """Header of ``batches/<seq>``: the index of one submission; frame ``i`` holds the arguments of chunk ``i``.

    A share (``source`` set) has no frames: it announces parts of chunks of batch ``source``.
    """

    n_tasks: int
    firsts: tuple[int, ...]
    counts: tuple[int, ...]
    function: str = ""
    layout: Literal["columns", "stream"] = "stream"
    lanes: int = 1
    timeout_s: float | None = None
    retries: int = 0
    source: int | None = None
    title: str = ""
    has_keys: bool = False
    code: str = ""
    at: float = 0.0
    layer: str = ""
    edition: str = ""


class FunctionHeader(Record, frozen=True, kw_only=True):
    """Header of ``functions/<sha256>``; frame 0 is the pickle."""

    name: str = ""


class CodeHeader(Record, frozen=True, kw_only=True):
    """Header of ``code/<sha256>``; frame 0 is a tar archive, ``roots`` its folders in the order of the module path."""

    roots: tuple[str, ...] = ()
    n_files: int = 0


class ObjectHeader(Record, frozen=True, kw_only=True):
    """Header of ``objects/<sha256>``; frame 0 is the pickle, the others are its out-of-band buffers."""

    type_name: str = ""


class Claim(Record, frozen=True, kw_only=True):
    """``claims/<chunk>/<n>``: one record of a chunk's log; whoever creates record ``n`` decides it.

    ``claim``: ``worker`` holds the chunk from ``position`` on. ``share``: its holder gave ``parts`` away and
    keeps what is before the first of them. ``release``: its holder gave it back.
    """

    kind: Literal["claim", "share", "release"]
    worker: str
    attempt: int = 1
    position: int = 0
    parts: tuple[tuple[int, int], ...] = ()
    at: float = 0.0


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive tasks of a result object: values pickled together, or one failure."""

    kind: Literal["values", "failure"]
    count: int
    n_frames: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task has no value; the pickled exception, where it can be pickled, is the frame behind it."""

    kind: Literal["raised", "timeout", "lost", "cancelled", "unpicklable", "load"]
    message: str
    type_name: str = ""
    traceback: str = ""
    output: str = ""
    host: str = ""
    attempt: int = 1
    hint: str = ""


class ResultHeader(Record, frozen=True, kw_only=True):
    """Header of ``results/<chunk>/<first>``: how tasks ``first`` … ``first + count - 1`` ended."""

    first: int
    count: int
    worker: str
    attempt: int = 1
    segments: tuple[Segment, ...] = ()
    task_s: float = 0.0
    retried: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """``workers/<worker>``: overwritten by its worker every few seconds."""

    worker: str
    beat: int
    state: Literal["starting", "idle", "running", "draining", "stopped", "refused"]
    started_at: float
    at: float
    slots: int = 1
    host: str = ""
    pid: int = 0
    python: str = ""
    running: tuple[str, ...] = ()
    tasks_done: int = 0
    tasks_failed: int = 0
    tasks_retried: int = 0
    task_s: float = 0.0
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    launch: str = ""
    reason: str = ""
    v: int = VERSION


class Event(Record, frozen=True, kw_only=True):
    """``events/<n>.json``: something that happened to the session."""

    what: str
    at: float
    by: str = ""
    data: dict[str, Any] = {}


class Leader(Record, frozen=True, kw_only=True):
    """``supervisors/<term>``: who supervises the session in this term."""

    host: str
    pid: int
    at: float
    detached: bool = False


_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


def encode_json(record: msgspec.Struct) -> bytes:
    """The record as JSON that a person can read."""
    return msgspec.json.format(_json.encode(record), indent=2)


def encode_msgpack(record: msgspec.Struct) -> bytes:
    """The record as msgpack."""
    return _msgpack.encode(record)


class _Versioned(msgspec.Struct):
    v: int = VERSION


def decode_json(kind: type[R], data: bytes | memoryview, key: str) -> R:
    """A record from JSON.

    Raises:
        CorruptObject: It is not JSON or lacks a field; the message names ``key``.
        IncompatibleVersion: It was written by a newer major version.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).v
        if version <= VERSION:
            return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise _corrupt(kind, key, error) from error
    raise _newer(key, version)


def decode_msgpack(kind: type[R], data: bytes | memoryview, key: str) -> R:
    """A record from msgpack; raises as :func:`decode_json`."""
    try:
        version = msgspec.msgpack.decode(data, type=_Versioned).v
        if version <= VERSION:
            return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise _corrupt(kind, key, error) from error
    raise _newer(key, version)


def _corrupt(kind: type[Any], key: str, error: Exception) -> CorruptObject:
    return CorruptObject(
        f"{key} does not hold a {kind.__name__}: {error}",
        hint="the object was damaged or written by another program; the rest of the session is not affected",
    )


def _newer(key: str, version: int) -> IncompatibleVersion:
    return IncompatibleVersion(
        f"{key} was written in version {version} of the protocol, this starburst reads up to {VERSION}",
        hint="pip install --upgrade starburst-cloud",
    )
