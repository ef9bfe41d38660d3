"""From a task's recorded outcome to the error that its caller sees."""

from __future__ import annotations

from starburst.errors import TaskCancelled, TaskError, TaskFailed, TaskTimeout, WorkerLost
from starburst.protocol.records import Failure
from starburst.protocol.results import Outcome

__all__ = ["task_error"]

_KINDS: dict[str, type[TaskError]] = {
    "raised": TaskFailed,
    "unpicklable": TaskFailed,
    "load": TaskFailed,
    "timeout": TaskTimeout,
    "lost": WorkerLost,
    "cancelled": TaskCancelled,
}
_DAMAGED = "submit the task again; on_error='return' collects all the others"
_HINTS = {
    "unpicklable": "return plain data (numbers, arrays, data frames, dicts), or write a file and return its path",
    "load": "workers need the modules that this program has; classes with __slots__ and functions under lru_cache, "
    "if the script itself defines them, belong into a module beside it",
    "timeout": "give it longer with timeout=, or make the task smaller",
    "lost": "if memory ran out, use fewer slots or more memory per worker",
}


def task_error(
    outcome: Outcome,
    *,
    session_id: str,
    batch: int,
    index: int,
    worker: str | None,
    position: int | None = None,
) -> TaskError:
    """The error for a task that has no value.

    Args:
        outcome: What was recorded; its ``failure`` is set.
        session_id: For the error's text and attributes.
        batch: The submission.
        index: The task's number in the submission.
        worker: Who ran it last.
        position: The number that the caller knows it by; None means ``index``.
    """
    failure = outcome.failure or Failure(kind="lost", message="it has no outcome")
    number = index if position is None else position
    task_id = f"{batch:06d}-{index:08d}"
    verb = {"raised": "raised", "cancelled": "was cancelled:"}.get(failure.kind, "failed:")
    tried = f" (attempt {failure.attempt})" if failure.attempt > 1 else ""
    where = f" on {failure.host}" if failure.host else ""
    error = _KINDS[failure.kind](
        f"task {number} {verb} {failure.message}{tried}{where}",
        hint=_DAMAGED
        if failure.type_name == "CorruptObject"
        else failure.hint or _HINTS.get(failure.kind) or _logs_hint(session_id, task_id),
        task_id=task_id,
        index=number,
        worker=worker,
        attempt=failure.attempt,
        session_id=session_id,
        output=failure.output,
        remote_traceback=failure.traceback,
    )
    error.__cause__ = outcome.error
    return error


def _logs_hint(session_id: str, task_id: str) -> str | None:
    """Where to read more; nothing for ``map`` and ``Executor``, whose sessions end with the program."""
    return None if session_id.startswith("map-") else f"starburst logs {session_id} --task {task_id}"
