"""What has become of a process that the local provider recorded."""

from __future__ import annotations

import contextlib

import msgspec

from starburst.compute import processes
from starburst.compute.base import ProviderStatus, WorkerState
from starburst.compute.records import BadRecord, ProcessRecord, SessionFolder

__all__ = ["find", "judge", "started"]

_RECORD_WAIT_S = 10.0
"""How long a log may stand still without a record before its launcher is thought to have died between the two."""


def started(record: ProcessRecord) -> ProviderStatus:
    """The status of a process that was started just now."""
    return _status(record, "starting", "started")


def find(folder: SessionFolder, worker: str, *, now: float) -> ProviderStatus | None:
    """What is known of a name in a session's folder; None if nothing is.

    Args:
        folder: Where its record is.
        worker: The name.
        now: Seconds since 1970.
    """
    log_path = folder.log_path(worker)
    try:
        record = folder.read(worker)
    except BadRecord as error:
        return ProviderStatus(worker=worker, state="unknown", reason=str(error), log=str(log_path))
    if record is not None:
        return judge(folder, record)
    try:
        idle_s = now - log_path.stat().st_mtime
    except FileNotFoundError:
        return None  # forgotten by another process meanwhile
    if idle_s < _RECORD_WAIT_S:
        return ProviderStatus(worker=worker, state="starting", reason="being launched", log=str(log_path))
    reason = "its launcher ended before it could record the process"
    return ProviderStatus(worker=worker, state="unknown", reason=reason, log=str(log_path))


def judge(folder: SessionFolder, record: ProcessRecord) -> ProviderStatus:
    """Whether a recorded process runs, and how it ended; an exit code learned here is recorded for others."""
    if record.exit_code is not None:
        return _status(record, "exited", processes.exit_reason(record.exit_code))
    if record.boot_id != processes.boot_id():
        if record.host == processes.host_name():
            return _status(record, "exited", "the machine was restarted")
        return _status(record, "unknown", f"started on another machine, {record.host}; ask there")
    return _judge_process(folder, record)


def _judge_process(folder: SessionFolder, record: ProcessRecord) -> ProviderStatus:
    seen = processes.look(record.pid)
    if seen is None:
        return _status(record, "exited", "no such process")
    if seen.create_time != record.create_time:
        return _status(record, "exited", f"no such process; pid {record.pid} is another one now")
    if seen.state == "zombie":
        return _ended(folder, record)
    return _status(record, "running", "frozen by a signal" if seen.state == "frozen" else "running")


def _ended(folder: SessionFolder, record: ProcessRecord) -> ProviderStatus:
    exit_code = processes.reap(record.pid)
    if exit_code is None:
        return _status(record, "exited", "ended; how is known only to the process that launched it")
    record = msgspec.structs.replace(record, exit_code=exit_code)
    # A full disk only keeps the code from others; a record that was forgotten must not come back.
    with contextlib.suppress(OSError):
        if folder.record_path(record.worker).exists():
            folder.write(record.worker, record)
    return _status(record, "exited", processes.exit_reason(exit_code))


def _status(record: ProcessRecord, state: WorkerState, reason: str) -> ProviderStatus:
    return ProviderStatus(
        worker=record.worker,
        state=state,
        exit_code=record.exit_code,
        reason=reason,
        pid=record.pid,
        log=record.log,
    )
