"""What the exit codes of the command line mean; scripts may rely on them."""

from __future__ import annotations

from starburst.errors import (
    CollectTimeout,
    ConfigError,
    IncompatibleVersion,
    ObjectNotFound,
    OptionError,
    ProviderError,
    SessionEnded,
    SessionNotFound,
    StarburstError,
    StoreError,
)

__all__ = [
    "ENDED",
    "FAILED",
    "INTERRUPTED",
    "MEANINGS",
    "NOT_FOUND",
    "OK",
    "PIPE_CLOSED",
    "PROVIDER",
    "STORE",
    "TIMEOUT",
    "USAGE",
    "code_of",
]

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
TIMEOUT = 4
STORE = 5
PROVIDER = 6
ENDED = 7
INTERRUPTED = 130
PIPE_CLOSED = 141

MEANINGS = {
    OK: "done",
    FAILED: "a task failed, or the command did",
    USAGE: "the command line or a setting is wrong; nothing was started",
    NOT_FOUND: "no such session, task, worker or file",
    TIMEOUT: "not finished in the time given",
    STORE: "the store cannot be reached, refused, or is full or damaged",
    PROVIDER: "workers could not be started or stopped",
    ENDED: "the session has ended, or another version wrote it",
    INTERRUPTED: "interrupted from the keyboard",
    PIPE_CLOSED: "whoever read the output went away",
}

# The first that fits counts: subclasses stand before their bases.
_BY_ERROR: tuple[tuple[type[StarburstError], int], ...] = (
    (OptionError, USAGE),
    (ConfigError, USAGE),
    (SessionNotFound, NOT_FOUND),
    (ObjectNotFound, NOT_FOUND),
    (CollectTimeout, TIMEOUT),
    (SessionEnded, ENDED),
    (IncompatibleVersion, ENDED),
    (StoreError, STORE),
    (ProviderError, PROVIDER),
    (StarburstError, FAILED),
)


def code_of(error: StarburstError) -> int:
    """The exit code of a command that ended with ``error``."""
    return next(code for kind, code in _BY_ERROR if isinstance(error, kind))
