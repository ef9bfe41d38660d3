"""What a provider is: launch, describe, tend, stop, logs, forget. It starts command lines and knows no tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from starburst.options import Options

if TYPE_CHECKING:  # workers on this machine do without, and it takes long to import
    from starburst.environment.lock import Lock

__all__ = [
    "LaunchSpec",
    "Launched",
    "Place",
    "Provider",
    "ProviderStatus",
    "WorkerState",
    "outcomes_of",
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
        workers: One name each, never used before in this session. A provider whose workers get their names from the
            service that runs them takes the number only.
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
        taken: It was taken away, or could not start, for want of capacity: no fault of the worker's.
        hopeless: It could not start for a reason that the next one would meet, too.
        placed: There is a machine for it, or one is not needed; False while it waits for a host to come.
        waits_for: Why it has not started after a time in which others do: quota, capacity.
        details: What else its provider knows, for the session's events: zone, capacity, stop code.
    """

    worker: str
    state: WorkerState
    exit_code: int | None = None
    reason: str = ""
    pid: int | None = None
    log: str | None = None
    taken: bool = False
    hopeless: bool = False
    placed: bool = True
    waits_for: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether it counts as one of the workers there are: starting or running."""
        return self.state in ("starting", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """What came of a launch.

    Attributes:
        workers: Those that were started.
        shortfall: Why others were not, for now: quota, capacity; empty if all were.
        fallback: Why they run on capacity that is not the first choice, for now; empty if that was tried.
    """

    workers: tuple[ProviderStatus, ...]
    shortfall: str = ""
    fallback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceEnvironment:
    """What is known of the packages that workers will have.

    Attributes:
        lock: Hash of their list; empty if that is not known.
        architecture: What they are for; empty if that is not known.
        packages: Their names; None if these are not known.
        how_to_add: What a person does to have one more; ``{}`` stands for its name.
    """

    lock: str = ""
    architecture: str = ""
    packages: frozenset[str] | None = None
    how_to_add: str = "uv add {}"

    @classmethod
    def of(cls, lock: Lock) -> PlaceEnvironment:
        """What workers have whose packages were installed from a lock."""
        return cls(
            lock=lock.sha256,
            architecture=lock.platform.architecture,
            packages=frozenset(lock.versions),
            how_to_add=lock.how_to_add,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a session's workers will run.

    Attributes:
        store: URL of the store to use unless the user names one; None for the usual one.
        deployment: What the manifest keeps, for whoever supervises or attaches later.
        environment: The packages that workers will have.
    """

    store: str | None = None
    environment: PlaceEnvironment = field(default_factory=PlaceEnvironment)
    deployment: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Provider(Protocol):
    """Starts and stops workers, and finds them again from any process that uses the same account or machine.

    All it knows stands in what it recorded itself, so that a new instance, tomorrow, sees the same workers.
    ``starburst.testing.provider_contract.ProviderContract`` tests what is promised here.
    """

    name: str

    async def prepare(self, options: Options) -> Place:
        """Check that workers of these options can be started, before anything is; this instance then starts those.

        Raises:
            OptionError: An option does not fit the provider.
            ProviderError: Something that workers need is missing; the hint says how to get it.
        """
        ...

    def attach(self, deployment: Mapping[str, Any]) -> None:
        """Look after a session that was prepared elsewhere.

        Args:
            deployment: What :meth:`prepare` gave for it.

        Raises:
            ProviderError: It was not made by this kind of provider.
        """
        ...

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start the workers of ``spec``, as many as there is room for; does not wait until they are ready.

        Returns:
            One status per worker that was started, in order, and why others were not.

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

    async def extend(self, session_id: str, deadline_at: float) -> None:
        """The session may go on until then, for providers that enforce :attr:`LaunchSpec.deadline_at`.

        Args:
            session_id: The session.
            deadline_at: Seconds since 1970.

        Raises:
            ProviderError: The former deadline could not be moved.
        """
        ...

    async def describe(self, session_id: str) -> list[ProviderStatus]:
        """All that were launched in this session and not forgotten, sorted by name; empty if none.

        It only looks: anybody may call it, as often as they like.
        """
        ...

    async def tend(self, session_id: str) -> None:
        """Do what follows from what :meth:`describe` saw last, where there is such a thing: keep or free machines, say.

        Only the supervisor that leads calls it, once a tick at the most, and once more when the session is over. It
        runs beside the loop, which does not wait for it: a slow service holds up no worker.

        Raises:
            ProviderError: Something was not done; it is tried again at the next call.
        """
        ...

    async def stop(
        self,
        session_id: str,
        workers: Sequence[str] | None = None,
        *,
        grace_s: float = 10.0,
        wait: bool = True,
    ) -> None:
        """Ask workers to end, and end them by force after ``grace_s``; returns when they are gone.

        Those that are gone already, or were never there, do not matter.

        Args:
            session_id: Their session.
            workers: Their names; None for all, supervisors too, save the process that calls.
            grace_s: How long they may take to flush and leave, where the provider lets us choose.
            wait: False: return as soon as it is certain that they will be gone.

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


def outcomes_of(statuses: Iterable[ProviderStatus]) -> dict[str, dict[str, str]]:
    """How workers ended, by name, as far as their provider knows more than this machine: for the session's events."""
    return {
        status.worker: {"reason": status.reason, **status.details}
        for status in statuses
        if status.state == "exited" and status.details
    }


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
