"""What a provider is: launch, describe, stop, logs, forget. It starts command lines and knows no tasks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

__all__ = [
    "LaunchSpec",
    "Provider",
    "ProviderStatus",
    "WorkerState",
    "supervisor_command",
    "worker_command",
]

WorkerState = Literal["starting", "running", "exited", "unknown"]
"""``unknown`` is for what the provider cannot judge; it must not be taken for gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """Workers to start, all alike but for name and number.

    Attributes:
        session_url: Where the session is, as the worker is to open it.
        session_id: The session that the workers belong to.
        workers: One name each, chosen by the caller, never used before in this session.
        first_ordinal: The number of the first worker; the others count on from it.
        slots: Tasks at a time in each worker.
        cwd: Folder to start in; None for the caller's own, where the provider has such a thing.
        env: Environment variables on top of those that the provider sets or hands on.
        python: The interpreter; None for the one that runs now.
        deadline_at: Seconds since 1970 after which no worker may run, for providers that can enforce it.
    """

    session_url: str
    session_id: str
    workers: tuple[str, ...]
    first_ordinal: int = 0
    slots: int = 1
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    deadline_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStatus:
    """What the provider knows of one worker or supervisor.

    Attributes:
        worker: Its name.
        state: Whether its process or container lives. That it works is told by its heartbeat only.
        exit_code: Set once known; negative if a signal killed it, as in ``subprocess``.
        reason: The state in words, such as ``killed by SIGKILL``, ``exit code 3``, ``no such process``.
        pid: Its process id, where there is one on this machine.
        log: Where its output goes: a path or an address.
    """

    worker: str
    state: WorkerState
    exit_code: int | None = None
    reason: str = ""
    pid: int | None = None
    log: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it counts as one of the workers there are: starting or running."""
        return self.state in ("starting", "running")


@runtime_checkable
class Provider(Protocol):
    """Starts and stops workers, and finds them again from any process that uses the same account or machine.

    All it knows stands in what it recorded itself, so that a new instance, tomorrow, sees the same workers.
    ``starburst.testing.provider_contract.ProviderContract`` tests what is promised here.
    """

    name: str

    async def launch(self, spec: LaunchSpec) -> list[ProviderStatus]:
        """Start all workers of ``spec``, or none; does not wait until they are ready.

        Returns:
            One status per worker, in the order of ``spec.workers``.

        Raises:
            ProviderError: They could not be started; nothing of this call is left.
        """
        ...

    async def launch_supervisor(
        self,
        session_url: str,
        session_id: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> ProviderStatus:
        """Start a supervisor that outlives the caller; it is listed beside the workers as ``supervisor-<n>``.

        Args:
            session_url: Where the session is, as the supervisor is to open it.
            session_id: The session that it looks after.
            cwd: As in :class:`LaunchSpec`.
            env: As in :class:`LaunchSpec`.
            python: As in :class:`LaunchSpec`.

        Raises:
            ProviderError: It could not be started; nothing of this call is left.
        """
        ...

    async def describe(self, session_id: str) -> list[ProviderStatus]:
        """All that were launched in this session and not forgotten, sorted by name; empty if none."""
        ...

    async def stop(
        self, session_id: str, workers: Sequence[str] | None = None, *, grace_s: float = 10.0
    ) -> None:
        """Ask workers to end, and end them by force after ``grace_s``; returns when they are gone.

        Those that are gone already, or were never there, do not matter.

        Args:
            session_id: Their session.
            workers: Their names; None for all, supervisors too, save the process that calls.
            grace_s: How long they may take to flush and leave.

        Raises:
            ProviderError: Some could not be ended; the message names them.
        """
        ...

    async def logs(self, session_id: str, worker: str, *, offset_bytes: int = 0) -> bytes:
        """What a worker printed, from ``offset_bytes`` on; negative counts from the end.

        Raises:
            ProviderError: There is no log of that worker.
        """
        ...

    async def forget(self, session_id: str) -> None:
        """Remove records and logs of workers that are gone; those of all others stay."""
        ...


def worker_command(spec: LaunchSpec, worker: str, ordinal: int) -> list[str]:
    """The command line of one worker."""
    return [
        spec.python or sys.executable,
        "-m",
        "starburst.worker",
        spec.session_url,
        "--worker",
        worker,
        "--ordinal",
        str(ordinal),
        "--slots",
        str(spec.slots),
    ]


def supervisor_command(session_url: str, python: str | None = None) -> list[str]:
    """The command line of a detached supervisor."""
    return [python or sys.executable, "-m", "starburst.supervisor", session_url]
