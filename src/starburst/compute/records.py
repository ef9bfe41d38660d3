"""What the local provider writes down: one folder per session, one record and one log per process."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from starburst.errors import ProviderError

__all__ = ["RECORD_VERSION", "BadRecord", "ProcessRecord", "SessionFolder"]

RECORD_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process that was started: enough to find it again and never to take another one for it."""

    version: int
    worker: str
    pid: Annotated[int, msgspec.Meta(gt=1)]
    create_time: float
    boot_id: str
    host: str
    started_at: float
    command: tuple[str, ...]
    log: str
    exit_code: int | None = None


class BadRecord(Exception):  # noqa: N818 - named for the condition; never leaves the provider
    """A record cannot be read; the text says why."""


class SessionFolder:
    """The records and logs of one session.

    Args:
        root: The folder of all sessions.
        session_id: Whose folder.
    """

    __slots__ = ("path",)

    def __init__(self, root: Path, session_id: str) -> None:
        self.path = root / _checked(session_id, "session id")

    def record_path(self, worker: str) -> Path:
        """Where the record of a worker is."""
        return self.path / f"{_checked(worker, 'worker name')}.json"

    def log_path(self, worker: str) -> Path:
        """Where the log of a worker is."""
        return self.path / f"{_checked(worker, 'worker name')}.log"

    def names(self) -> list[str]:
        """Names that have a record or a log, sorted."""
        try:
            stems = {entry.stem for entry in self.path.iterdir() if entry.suffix in (".json", ".log")}
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ProviderError(
                f"The records in {self.path} cannot be listed: {error.strerror}.", hint=f"ls -la {self.path}"
            ) from error
        return sorted(stem for stem in stems if _NAME.fullmatch(stem))

    def create_log(self, worker: str) -> int:
        """Open a new log; this reserves the name, because exactly one creator wins.

        Returns:
            The open file, for appending.

        Raises:
            FileExistsError: The name was used before.
            OSError: It cannot be created.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        return os.open(self.log_path(worker), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, worker: str, record: ProcessRecord) -> None:
        """Write a record whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        temporary = self.path / f".{worker}.{uuid.uuid4().hex}.tmp"
        try:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
            temporary.replace(self.record_path(worker))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, worker: str) -> ProcessRecord | None:
        """The record of a worker, or None if there is none.

        Raises:
            BadRecord: It is there but cannot be read.
        """
        path = self.record_path(worker)
        try:
            body = path.read_bytes()
            version = msgspec.json.decode(body, type=_Versioned).version
            if version > RECORD_VERSION:
                raise BadRecord(f"record {path} was written by a newer starburst (version {version})")
            return msgspec.json.decode(body, type=ProcessRecord)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadRecord(f"record {path} cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise BadRecord(f"record {path} is damaged: {error}") from error

    def remove(self, workers: Sequence[str]) -> None:
        """Remove records and logs; the folder too once it is empty."""
        for worker in workers:
            # In this order: the log holds the name until nothing is left that a new owner could lose.
            self.record_path(worker).unlink(missing_ok=True)
            self.log_path(worker).unlink(missing_ok=True)
        if not self.names():
            for left_over in self.path.glob(".*.tmp"):
                left_over.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()


class _Versioned(msgspec.Struct):
    version: int


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ProviderError(
            f"{name!r} cannot be a {what}: it names a file.",
            hint="Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )
    return name
