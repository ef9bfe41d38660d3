"""Every error that starburst raises, in one tree.

    StarburstError
    ├── OptionError             an option of the call is wrong            (also a ValueError)
    ├── ConfigError             the stored settings are wrong
    ├── EnvironmentBuildError   the workers' packages or code could not be put together
    ├── SerializationError      a function, argument or result cannot be pickled (also a TypeError)
    ├── StoreError              the bucket or folder did not do what was asked
    │   ├── InvalidStoreURL     the address is not one we can open
    │   ├── ObjectNotFound      no object under that key
    │   ├── AccessDenied        the store refused us
    │   ├── StoreFull           no space left
    │   ├── StoreUnavailable    it did not answer, or answered "later"; trying again may help
    │   └── CorruptObject       an object is truncated or changed: its checksum does not match
    ├── ProviderError           workers could not be started, described or stopped
    │   └── CloudError          AWS did not do what was asked
    │       ├── CredentialsError    no credentials, expired ones, or ones that AWS does not know
    │       ├── PermissionDenied    the credentials lack a permission; the message names it
    │       ├── QuotaExceeded       the account may not have more of it
    │       ├── CloudUnavailable    no answer, "later", or no capacity; trying again may help
    │       └── NotSetUp            a resource that `starburst setup` makes is missing or not ours
    ├── SessionError
    │   ├── SessionNotFound     no session of that id in this store
    │   ├── SessionEnded        expired, cancelled or terminated: no more work is taken
    │   └── IncompatibleVersion written by a newer starburst, or by another Python
    ├── CollectTimeout          results were not all there in time       (also a TimeoutError)
    └── TaskError               one task has no result
        ├── TaskFailed          it raised; the user's exception is ``__cause__``
        ├── TaskTimeout         it ran longer than ``timeout``           (also a TimeoutError)
        ├── TaskCancelled       it was cancelled before it ran
        └── WorkerLost          its worker died each time it ran

Each error says what happened, to what and why; ``hint`` is the next thing to do.
"""

from __future__ import annotations

import pickle
from typing import Any


class StarburstError(Exception):
    """Root of all errors raised by starburst.

    Attributes:
        message: What happened, to what, and why.
        hint: What to do next, often a command; None where there is nothing useful to say.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__, _portable(self.__cause__))


def _rebuild(
    kind: type[StarburstError], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None
) -> StarburstError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


def _portable(cause: BaseException | None) -> BaseException | None:
    """The cause, if it survives pickling; the exceptions of many libraries do not."""
    try:
        pickle.loads(pickle.dumps(cause))
    except Exception:  # noqa: BLE001 - its text is in the message
        return None
    return cause


class OptionError(StarburstError, ValueError):
    """An option of a call is unknown or out of range; nothing was started."""


class ConfigError(StarburstError):
    """The stored settings cannot be read or hold a wrong value."""


class EnvironmentBuildError(StarburstError):
    """The workers' environment cannot be built: a lock, a package, an image, or the code of a project is at fault."""


class SerializationError(StarburstError, TypeError):
    """A function, argument or result cannot be pickled; the message names the part."""


class StoreError(StarburstError):
    """The object store did not do what was asked."""


class InvalidStoreURL(StoreError):  # noqa: N818 - named for the condition
    """The store's address is malformed, of an unknown kind, or cannot be written."""


class ObjectNotFound(StoreError):  # noqa: N818
    """There is no object under that key."""


class AccessDenied(StoreError):  # noqa: N818
    """The store refused: credentials are missing, wrong, or lack a permission."""


class StoreFull(StoreError):  # noqa: N818
    """There is no space left in the store."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The store did not answer in time, or said "try later", more often than we retry."""


class CorruptObject(StoreError):  # noqa: N818
    """An object is truncated or damaged: what it holds does not match its checksum."""


class ProviderError(StarburstError):
    """Workers could not be started, described or stopped."""


class CloudError(ProviderError):
    """AWS did not do what was asked.

    Attributes:
        code: The error code in AWS's answer, such as ``ClusterNotFoundException``; empty if none came.
        operation: What was asked, such as ``ecs:RunTask``.
    """

    def __init__(self, message: str, *, hint: str | None = None, code: str = "", operation: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.operation = operation


class CredentialsError(CloudError):
    """There are no AWS credentials, they have expired, or AWS does not know them."""


class PermissionDenied(CloudError):  # noqa: N818
    """The credentials are good but lack a permission."""


class QuotaExceeded(CloudError):  # noqa: N818
    """The account may not have more of what was asked for."""


class CloudUnavailable(CloudError):  # noqa: N818
    """AWS did not answer, said "later" more often than we retry, or has no capacity just now."""


class NotSetUp(CloudError):  # noqa: N818
    """Something that ``starburst setup`` makes is missing, half done or belongs to somebody else."""


class SessionError(StarburstError):
    """Something is wrong with a session."""


class SessionNotFound(SessionError):  # noqa: N818
    """There is no session of that id in this store."""


class SessionEnded(SessionError):  # noqa: N818
    """The session has expired, was cancelled or was terminated; it takes no more work."""


class IncompatibleVersion(SessionError):  # noqa: N818
    """An object was written by a newer starburst, or by a Python that this one cannot read."""


class CollectTimeout(StarburstError, TimeoutError):  # noqa: N818
    """Not all results were there in time; those that are can be collected again later."""


class TaskError(StarburstError):
    """One task has no result.

    Attributes:
        task_id: The task's name in its session, such as ``000001-00000042``.
        index: The position of its arguments in the call, from 0.
        worker: The worker that ran it last; None if none did.
        attempt: How often it was tried, from 1.
        session_id: The session it belongs to.
        output: The last lines that it printed.
        remote_traceback: The traceback on the worker, as text; empty if there is none.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        task_id: str = "",
        index: int = -1,
        worker: str | None = None,
        attempt: int = 1,
        session_id: str = "",
        output: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.task_id = task_id
        self.index = index
        self.worker = worker
        self.attempt = attempt
        self.session_id = session_id
        self.output = output
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        parts = [self.message]
        if self.remote_traceback:
            parts.append(self.remote_traceback.rstrip())
        if self.output:
            parts.append("Last output of the task:\n" + self.output.rstrip())
        if self.hint:
            parts.append(f"  → {self.hint}")
        return "\n".join(parts)


class TaskFailed(TaskError):  # noqa: N818
    """The task raised; its exception is ``__cause__``."""


class TaskTimeout(TaskError, TimeoutError):  # noqa: N818
    """The task ran longer than ``timeout`` seconds and was stopped."""


class TaskCancelled(TaskError):  # noqa: N818
    """The task was cancelled before it ran."""


class WorkerLost(TaskError):  # noqa: N818
    """The task's worker died each time it ran: exit code, signal or lack of memory is in the message."""
