"""Every key in the bucket is made and taken apart here."""

from __future__ import annotations

import re
import secrets
import time
from typing import NamedTuple

from starburst.errors import InvalidStoreURL

__all__ = [
    "ChunkId",
    "DoneMark",
    "Keys",
    "new_session_id",
    "new_worker_id",
    "session_url",
    "split_session_url",
    "worker_of_task",
]

SESSIONS = "sessions/"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ChunkId(NamedTuple):
    """A chunk is named by its batch and its first task; its end is in the index that announced it."""

    batch: int
    first: int

    def __str__(self) -> str:
        return f"{self.batch:06d}-{self.first:08d}"

    @classmethod
    def parse(cls, text: str) -> ChunkId:
        """The inverse of ``str``."""
        batch, _, first = text.partition("-")
        return cls(int(batch), int(first))


class DoneMark(NamedTuple):
    """A finished chunk and how its tasks ended, as the key alone tells."""

    chunk: ChunkId
    ok: int
    failed: int


class Keys:
    """The keys of one session.

    Args:
        session_id: Its id; letters, digits, ``.``, ``_`` and ``-``.

    Raises:
        InvalidStoreURL: The id has other characters, or none.
    """

    __slots__ = ("prefix", "session_id")

    def __init__(self, session_id: str) -> None:
        if not _ID.fullmatch(session_id):
            raise InvalidStoreURL(
                f"{session_id!r} is not a session id",
                hint="ids look like session-20261124-061500-3fa9c1; `starburst sessions` lists them",
            )
        self.session_id = session_id
        self.prefix = f"{SESSIONS}{session_id}/"

    @property
    def manifest(self) -> str:
        """What the session is."""
        return f"{self.prefix}manifest.json"

    def function(self, sha256: str) -> str:
        """A pickled callable."""
        return f"{self.prefix}functions/{sha256}"

    def code(self, sha256: str) -> str:
        """A code layer: the local modules of a program."""
        return f"{self.prefix}code/{sha256}"

    def object(self, sha256: str) -> str:
        """A large argument."""
        return f"{self.prefix}objects/{sha256}"

    @property
    def batches(self) -> str:
        """The folder of all submissions."""
        return f"{self.prefix}batches/"

    def batch(self, seq: int) -> str:
        """One submission."""
        return f"{self.batches}{seq:06d}"

    def claims(self, batch: int) -> str:
        """Prefix of the claim logs of a batch's chunks."""
        return f"{self.prefix}claims/{batch:06d}-"

    def claim_log(self, chunk: ChunkId) -> str:
        """Prefix of one chunk's claim log."""
        return f"{self.prefix}claims/{chunk}."

    def claim(self, chunk: ChunkId, n: int) -> str:
        """Record ``n`` (from 1) of a chunk's claim log."""
        return f"{self.claim_log(chunk)}{n:04d}"

    def parse_claim(self, key: str) -> tuple[ChunkId, int]:
        """The inverse of :meth:`claim`."""
        chunk, n = key.rsplit("/", 1)[1].split(".")
        return ChunkId.parse(chunk), int(n)

    @property
    def all_results(self) -> str:
        """The folder of all results."""
        return f"{self.prefix}results/"

    def results(self, batch: int) -> str:
        """Prefix of the results of a batch's chunks."""
        return f"{self.prefix}results/{batch:06d}-"

    def chunk_results(self, chunk: ChunkId) -> str:
        """Prefix of one chunk's results."""
        return f"{self.prefix}results/{chunk}."

    def result(self, chunk: ChunkId, first: int) -> str:
        """A run of finished tasks, from task ``first``."""
        return f"{self.chunk_results(chunk)}{first:08d}"

    def parse_result(self, key: str) -> tuple[ChunkId, int]:
        """The inverse of :meth:`result`."""
        return self.parse_claim(key)

    def done(self, mark: DoneMark) -> str:
        """The marker of a finished chunk."""
        return f"{self.prefix}done/{mark.chunk}.{mark.ok}.{mark.failed}"

    def done_marks(self, batch: int | None = None) -> str:
        """Prefix of the markers of a batch, or of all."""
        return f"{self.prefix}done/" + (f"{batch:06d}-" if batch is not None else "")

    def parse_done(self, key: str) -> DoneMark:
        """The inverse of :meth:`done`."""
        chunk, ok, failed = key.rsplit("/", 1)[1].split(".")
        return DoneMark(ChunkId.parse(chunk), int(ok), int(failed))

    @property
    def workers(self) -> str:
        """The folder of the workers' heartbeats."""
        return f"{self.prefix}workers/"

    def worker(self, worker: str) -> str:
        """One worker's heartbeat."""
        return f"{self.workers}{worker}"

    @property
    def wanted(self) -> str:
        """The folder in which idle workers ask for a share of what others hold."""
        return f"{self.prefix}wanted/"

    def wanted_by(self, worker: str) -> str:
        """One idle worker's request; it removes it itself."""
        return f"{self.wanted}{worker}"

    @property
    def events(self) -> str:
        """The folder of what happened."""
        return f"{self.prefix}events/"

    def event(self, n: int) -> str:
        """Event ``n``, from 1; create decides whose it is, so that all readers see one order."""
        return f"{self.events}{n:06d}.json"

    def parse_event(self, key: str) -> int:
        """The inverse of :meth:`event`."""
        return int(key.rsplit("/", 1)[1].removesuffix(".json"))

    @property
    def leaders(self) -> str:
        """The folder of the supervisors' terms of office."""
        return f"{self.prefix}supervisors/"

    def leader(self, term: int) -> str:
        """The supervisor of ``term``; create decides."""
        return f"{self.leaders}{term:04d}"

    def leader_beat(self, term: int) -> str:
        """That supervisor's heartbeat."""
        return f"{self.leaders}{term:04d}.beat"


def session_url(root_url: str, session_id: str) -> str:
    """The URL by which a worker or a supervisor is told its session."""
    return f"{root_url.rstrip('/')}/{SESSIONS}{session_id}"


def split_session_url(url: str) -> tuple[str, str]:
    """Root URL and session id of a session's URL.

    Raises:
        InvalidStoreURL: It does not end in ``/sessions/<id>``.
    """
    root, found, session_id = url.rstrip("/").rpartition(f"/{SESSIONS}")
    if not found or "/" in session_id:
        raise InvalidStoreURL(
            f"{url!r} is not the URL of a session",
            hint="it ends in /sessions/<id>, for example s3://bucket/sessions/session-20261124-061500-3fa9c1",
        )
    Keys(session_id)
    return root, session_id


def new_session_id(kind: str = "session") -> str:
    """A fresh id that sorts by time: ``<kind>-<date>-<time>-<random>``."""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def worker_of_task(ecs_task: str) -> str:
    """The name of the worker that is a task of ECS; both sides derive it.

    Args:
        ecs_task: The task's ARN or id.
    """
    return f"w-{ecs_task.rsplit('/', 1)[-1].replace('-', '')[:12]}"


def new_worker_id() -> str:
    """A fresh worker name."""
    return f"w-{secrets.token_hex(5)}"
