"""Workers as detached processes of this machine.

    <data dir>/local/<session>/<worker>.json    what was started: pid, time of creation, command
    <data dir>/local/<session>/<worker>.log     what it printed

Any process of the same user can describe and stop what another one launched. A pid counts only together with
the time of creation that was recorded with it: nothing is looked up by name, a reused pid is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starburst.clock import Clock, Deadline, SystemClock
from starburst.compute import processes
from starburst.compute.base import (
    Launched,
    LaunchSpec,
    Place,
    ProviderStatus,
    supervisor_command,
    worker_command,
)
from starburst.compute.isolated import Isolated, prepare_isolated
from starburst.compute.local_status import find, judge, started
from starburst.compute.records import RECORD_VERSION, BadRecord, ProcessRecord, SessionFolder
from starburst.config import data_path
from starburst.errors import ProviderError
from starburst.options import Options

__all__ = ["LocalProvider"]

_POLL_S = 0.02
_KILL_WAIT_S = 10.0
_SUPERVISOR_TRIES = 100

_log = logging.getLogger(__name__)


class LocalProvider:
    """Starts workers on this machine. They survive their launcher.

    A deadline is not enforced from here: with no service to ask, each worker keeps its session's deadline itself.

    Args:
        data_dir: Where records and logs go; None for the user's data folder.
        clock: Measures the waits.
        worker_command: The command line of a worker; by default ``python -m starburst.worker …``.
        supervisor_command: The command line of a supervisor; by default ``python -m starburst.supervisor …``.
    """

    name = "LOCAL"

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        clock: Clock | None = None,
        worker_command: Callable[[LaunchSpec, str, int], Sequence[str]] = worker_command,
        supervisor_command: Callable[[str, str | None], Sequence[str]] = supervisor_command,
    ) -> None:
        self._root = (data_dir or data_path()).absolute() / "local"
        self._clock = clock or SystemClock()
        self._worker_command = worker_command
        self._supervisor_command = supervisor_command
        self._isolated: Isolated | None = None

    async def prepare(self, options: Options) -> Place:
        """Install the packages that workers are to have, unless they use what is installed here.

        Raises:
            OptionError: The option ``environment`` names no list of packages.
            EnvironmentBuildError: These cannot be had for this machine.
        """
        if options.environment is None:
            self._isolated = None
            return Place()
        self._isolated, environment = await prepare_isolated(options)
        return Place(environment=environment, deployment=self._isolated.deployment)

    def attach(self, deployment: Mapping[str, Any]) -> None:
        """Learn what its workers run; the records are in this machine's data folder.

        Raises:
            ProviderError: It cannot be read.
        """
        self._isolated = Isolated.of(deployment)

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start all workers of ``spec``, or none; they run at once, side by side.

        Raises:
            ProviderError: One could not be started; those before it are stopped and leave no trace.
        """
        isolated = self._isolated
        if isolated is not None:
            isolated.check()
            spec = isolated.spec(spec)
        folder = SessionFolder(self._root, spec.session_id)
        begun: dict[str, int | None] = {}
        statuses = []
        try:
            for ordinal, worker in enumerate(spec.workers, start=spec.first_ordinal):
                command = self._worker_command(spec, worker, ordinal)
                if isolated is not None:
                    command = isolated.command(command)
                record = self._start(folder, worker, command, cwd=spec.cwd, env=spec.env, begun=begun)
                statuses.append(started(record))
                await self._clock.sleep(0)  # a launch of many must not hold up the caller's loop
        except BaseException:
            await self._undo(folder, begun)
            raise
        return Launched(workers=tuple(statuses))

    async def launch_supervisor(
        self,
        session_url: str,
        session_id: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> ProviderStatus:
        """Start a detached supervisor; it is recorded beside the workers as ``supervisor-<n>``.

        Raises:
            ProviderError: It could not be started; nothing is left.
        """
        folder = SessionFolder(self._root, session_id)
        command = self._supervisor_command(session_url, python)
        used = [name.removeprefix("supervisor-") for name in folder.names() if name.startswith("supervisor-")]
        number = 1 + max((int(text) for text in used if text.isdecimal()), default=0)
        for attempt in range(number, number + _SUPERVISOR_TRIES):  # others may start one at the same time
            begun: dict[str, int | None] = {}
            try:
                return started(
                    self._start(folder, f"supervisor-{attempt}", command, cwd=cwd, env=env or {}, begun=begun)
                )
            except _NameTaken:
                continue
            except BaseException:
                await self._undo(folder, begun)
                raise
        raise ProviderError(
            f"No supervisor was started for session {session_id}: each name tried was taken by another one.",
            hint=f"starburst status {session_id}",
        )

    async def extend(self, session_id: str, deadline_at: float) -> None:
        """Nothing to move: workers keep the deadline themselves."""

    async def describe(self, session_id: str) -> list[ProviderStatus]:
        """All processes that are recorded for a session; a record that cannot be read is ``unknown``."""
        folder = SessionFolder(self._root, session_id)
        found = (find(folder, worker, now=self._clock.time()) for worker in folder.names())
        return [status for status in found if status is not None]

    async def stop(
        self,
        session_id: str,
        workers: Sequence[str] | None = None,
        *,
        grace_s: float = 10.0,
        wait: bool = True,  # noqa: ARG002 - only he who waits can kill
    ) -> None:
        """SIGTERM, then SIGKILL for a worker and all of its group; returns when they are gone.

        With ``workers=None`` also those are stopped that a supervisor starts before it ends itself.

        Raises:
            ProviderError: Some may not be signalled by this user, or survived SIGKILL.
        """
        folder = SessionFolder(self._root, session_id)
        left = await self._end(folder, workers, processes.terminate, Deadline(self._clock, grace_s))
        left = await self._end(folder, workers, processes.kill, Deadline(self._clock, _KILL_WAIT_S), ran=left)
        if left:
            raise ProviderError(
                f"Workers of session {session_id} still run after SIGKILL: "
                + ", ".join(f"{record.worker} (pid {record.pid})" for record in left)
                + ". They belong to another user, or wait in the kernel for a device.",
                hint="ps -o pid,user,stat,wchan,args -p " + ",".join(str(record.pid) for record in left),
            )
        for status in await self.describe(session_id):
            if status.state == "unknown" and (workers is None or status.worker in workers):
                _log.warning("%s of session %s was not stopped: %s", status.worker, session_id, status.reason)

    async def logs(self, session_id: str, worker: str, *, offset_bytes: int = 0) -> bytes:
        """What a worker printed, from ``offset_bytes`` on; negative counts from the end.

        Raises:
            ProviderError: There is no log of that worker, or it cannot be read.
        """
        path = SessionFolder(self._root, session_id).log_path(worker)
        try:
            with path.open("rb") as log:
                size_bytes = log.seek(0, os.SEEK_END)
                log.seek(offset_bytes if offset_bytes >= 0 else max(0, size_bytes + offset_bytes))
                return log.read()
        except OSError as error:
            raise ProviderError(
                f"The log of {worker} in session {session_id} cannot be read: {error.strerror} ({path}).",
                hint=f"starburst status {session_id}",
            ) from error

    async def tend(self, session_id: str) -> None:
        """Nothing: the machine is there."""

    async def forget(self, session_id: str) -> None:
        """Remove records and logs of workers that are gone.

        What is ``unknown`` stays, except a log without a record: nothing more can be learned from that.

        Raises:
            ProviderError: Files cannot be removed.
        """
        folder = SessionFolder(self._root, session_id)
        gone = [
            status.worker
            for status in await self.describe(session_id)
            if status.state == "exited"
            or (status.state == "unknown" and not folder.record_path(status.worker).exists())
        ]
        try:
            folder.remove(gone)
        except OSError as error:
            raise ProviderError(
                f"Records of session {session_id} cannot be removed from {folder.path}: {error.strerror}.",
                hint=f"ls -la {folder.path}",
            ) from error

    def _start(
        self,
        folder: SessionFolder,
        worker: str,
        command: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        begun: dict[str, int | None],
    ) -> ProcessRecord:
        """Start and record one process; ``begun`` learns of it as soon as there is something to undo."""
        try:
            log_fd = folder.create_log(worker)
        except OSError as error:
            if isinstance(error, FileExistsError) and folder.log_path(worker).exists():
                raise _NameTaken(
                    f"{worker} was launched before in this session: {folder.log_path(worker)} is there.",
                    hint="Give each worker a name of its own.",
                ) from error
            raise ProviderError(
                f"{worker} cannot be started: {folder.path} cannot be written ({error.strerror}).",
                hint="Make room there, or name another folder in STARBURST_DATA_DIR.",
            ) from error
        begun[worker] = None
        try:
            begun[worker] = pid = processes.spawn(command, log_fd=log_fd, cwd=cwd, env=env)
            record = self._record(folder, worker, pid, command)
            folder.write(worker, record)
        except OSError as error:
            raise _launch_error(worker, command, cwd, error) from error
        finally:
            os.close(log_fd)
        return record

    def _record(self, folder: SessionFolder, worker: str, pid: int, command: Sequence[str]) -> ProcessRecord:
        seen = processes.look(pid)
        if seen is None:  # as a child that nobody waited for it should be there, as a zombie at least
            raise ChildProcessError(errno.ECHILD, "it ended at once and the caller's program reaped it")
        return ProcessRecord(
            version=RECORD_VERSION,
            worker=worker,
            pid=pid,
            create_time=seen.create_time,
            boot_id=processes.boot_id(),
            host=processes.host_name(),
            started_at=self._clock.time(),
            command=tuple(command),
            log=str(folder.log_path(worker)),
        )

    async def _undo(self, folder: SessionFolder, begun: Mapping[str, int | None]) -> None:
        """Remove all traces of a launch that failed."""
        pids = [pid for pid in begun.values() if pid is not None]
        deadline = Deadline(self._clock, _KILL_WAIT_S)
        while pids := [pid for pid in pids if not processes.kill_child(pid)]:
            if deadline.passed:
                break
            await self._clock.sleep(_POLL_S)
        with contextlib.suppress(OSError, ProviderError):  # the error that led here says more
            folder.remove(list(begun))

    async def _end(
        self,
        folder: SessionFolder,
        workers: Sequence[str] | None,
        signal_process: Callable[[int], None],
        deadline: Deadline,
        *,
        ran: Iterable[ProcessRecord] = (),
    ) -> list[ProcessRecord]:
        """Signal each worker once and wait; returns those that still run when the deadline has passed.

        Args:
            folder: Where their records are.
            workers: Which; None for all.
            signal_process: How.
            deadline: When to give up.
            ran: Those that ran a moment ago.
        """
        seen = {record.worker: record for record in ran}
        signalled: set[str] = set()
        while True:
            running = {record.worker: record for record in self._running(folder, workers)}
            for worker in seen.keys() - running.keys():
                # It ran a moment ago, so the group is still its own: what it left behind ends too.
                _signal(seen.pop(worker), processes.kill_group)
            for worker in running.keys() - signalled:
                _signal(running[worker], signal_process)
                signalled.add(worker)
            seen.update(running)
            if not running or deadline.passed:
                return list(running.values())
            await self._clock.sleep(_POLL_S)

    def _running(self, folder: SessionFolder, workers: Sequence[str] | None) -> list[ProcessRecord]:
        records = []
        for worker in folder.names() if workers is None else dict.fromkeys(workers):
            with contextlib.suppress(BadRecord):
                record = folder.read(worker)
                if record and record.pid != os.getpid() and judge(folder, record).state == "running":
                    records.append(record)
        return records


class _NameTaken(ProviderError):  # noqa: N818 - named for the condition
    pass


def _signal(record: ProcessRecord, signal_process: Callable[[int], None]) -> None:
    # Another user's process is left as it is; it then counts among those that still run.
    with contextlib.suppress(PermissionError):
        signal_process(record.pid)


def _launch_error(worker: str, command: Sequence[str], cwd: str | None, error: OSError) -> ProviderError:
    if cwd is not None and not Path(cwd).is_dir():
        return ProviderError(
            f"{worker} cannot be started: its folder {cwd} does not exist.", hint="Choose another cwd."
        )
    if error.filename == command[0]:
        return ProviderError(
            f"{worker} cannot be started: {command[0]} cannot be run ({error.strerror}).",
            hint=f"Name a Python interpreter that exists, such as {sys.executable}.",
        )
    if error.errno == errno.EAGAIN:
        return ProviderError(
            f"{worker} cannot be started: the system allows this user no more processes.",
            hint="ulimit -u    (the limit; start fewer workers or raise it)",
        )
    return ProviderError(
        f"{worker} cannot be started: {error.strerror or error}.",
        hint="df -h; free -m; ulimit -a    (room, memory and limits of this machine)",
    )
