"""What a supervisor does next, as a pure function of what it sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Action",
    "GiveUp",
    "Launch",
    "RecordLost",
    "RecordStopped",
    "Snapshot",
    "Stop",
    "Terminate",
    "WorkerView",
    "decide",
    "early_death_limit",
    "launch_delay_s",
    "runs_of",
    "why_ending",
]

MAX_LAUNCH_FAILURES = 5
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_TOP_UP_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker, as its provider and its heartbeat show it.

    Attributes:
        name: Its name.
        provider_state: What its provider says; ``foreign`` if it was started by hand.
        placed: There is a machine for it.
        begun: It has shown a sign of life.
        heartbeat_state: The state that it gave itself when its heartbeat was last read; None if it never was.
        lost: Its lease ran out.
        silent: It was not heard of for some beats, though its lease still runs.
        stopping: We asked it to stop.
        failed: It ended with an exit code other than 0.
        recorded: The events tell already that it is gone.
        inherited: It was not this supervisor that started it.
        taken: Its provider took it away, or had no capacity for it.
        hopeless: It could not start for a reason that the next one would meet, too.
        exit_reason: How it ended, as its provider tells.
        reason: What it said itself when it stopped or refused.
        age_s: How long we have known it.
    """

    name: str
    provider_state: Literal["starting", "running", "exited", "unknown", "foreign"]
    placed: bool = True
    begun: bool = False
    heartbeat_state: str | None = None
    lost: bool = False
    silent: bool = False
    stopping: bool = False
    failed: bool = False
    recorded: bool = False
    inherited: bool = False
    taken: bool = False
    hopeless: bool = False
    exit_reason: str = ""
    reason: str = ""
    age_s: float = 0.0

    @property
    def left(self) -> bool:
        """Whether it said good-bye: it stopped in good order, or refused to begin."""
        return self.heartbeat_state == "refused" or (self.heartbeat_state == "stopped" and not self.failed)

    @property
    def present(self) -> bool:
        """Whether there may be a process of it that our provider can stop."""
        return self.provider_state in ("starting", "running", "unknown") and not (
            self.recorded and self.provider_state == "unknown"
        )

    @property
    def counts(self) -> bool:
        """Whether it is one of the workers that there are: it works, or will."""
        if self.lost or self.recorded or self.stopping or self.provider_state == "exited":
            return False
        if self.heartbeat_state in ("draining", "stopped", "refused"):
            return False
        return self.provider_state != "foreign" or not self.silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a decision depends on.

    Attributes:
        now_s: Monotonic time.
        wall_s: Seconds since 1970.
        target_workers: How many workers the session may have.
        slots: Tasks at a time in each worker.
        open_tasks: Tasks that were submitted, are not cancelled, and are not known to be finished.
        last_activity_s: Monotonic time at which work was last submitted or finished.
        deadline_at: When the session ends, seconds since 1970.
        ended: Why it takes no more work, or None.
        session_timeout_s: How long it stays open with nothing to do.
        early_deaths: Workers that died in a row without having got to work.
        last_death: How the last of them ended.
        launch_failures: Launches in a row that the provider refused.
        last_failure: Why it refused the last one.
        last_trouble_s: Monotonic time of the last early death or refused launch.
        shortfalls: Launches in a row for which the provider had no room at all.
        short_s: Monotonic time of the last launch for which it had not room enough.
        sated: A worker left because it found nothing to do, though nothing was submitted, scaled or lost for as
            long: what is open is at work already, or finished but not yet marked.
        workers: The workers.
    """

    now_s: float
    wall_s: float
    target_workers: int
    slots: int
    open_tasks: int
    last_activity_s: float
    deadline_at: float
    ended: str | None = None
    session_timeout_s: float = float("inf")
    early_deaths: int = 0
    last_death: str = ""
    launch_failures: int = 0
    last_failure: str = ""
    last_trouble_s: float = float("-inf")
    shortfalls: int = 0
    short_s: float = float("-inf")
    sated: bool = False
    workers: tuple[WorkerView, ...] = ()

    @property
    def live(self) -> int:
        """How many workers there are."""
        return sum(worker.counts for worker in self.workers)

    @property
    def starting(self) -> int:
        """How many of them are on their way, and have somewhere to run."""
        return sum(worker.counts and worker.placed and not worker.begun for worker in self.workers)

    @property
    def waiting(self) -> int:
        """How many of them there is no machine for yet."""
        return sum(worker.counts and not worker.placed for worker in self.workers)

    @property
    def over(self) -> bool:
        """Whether the session has ended and none of our workers is left."""
        return why_ending(self) is not None and not any(worker.present for worker in self.workers)


@dataclass(frozen=True, slots=True)
class Launch:
    """Start ``count`` workers."""

    count: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop these workers; ``drain`` gives their running tasks time to finish."""

    workers: tuple[str, ...]
    reason: str
    drain: bool = False


@dataclass(frozen=True, slots=True)
class RecordLost:
    """Tell everybody that a worker is gone without having given back what it held."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordStopped:
    """Tell that a worker left in good order."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """The session ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The session cannot go on: no worker gets to work."""

    reason: str


Action = Launch | Stop | RecordLost | RecordStopped | Terminate | GiveUp


def early_death_limit(target_workers: int) -> int:
    """How many workers may die in a row without having got to work."""
    return max(4, 2 * target_workers)


def launch_delay_s(early_deaths: int, launch_failures: int, target_workers: int) -> float:
    """How long to wait with the next launch; it doubles whenever all workers have died early once more."""
    rounds = -(-early_deaths // max(1, target_workers)) + launch_failures
    return min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(rounds - 1, 10)) if rounds > 0 else 0.0


def _top_up_delay_s(shortfalls: int) -> float:
    """How long to wait until asking again for what there was no room for: quota and capacity come back in minutes."""
    return min(_MAX_DELAY_S, _TOP_UP_S * 1.5 ** min(shortfalls, 10))


def why_ending(snapshot: Snapshot) -> str | None:
    """Why the session ends or has ended, or None while it goes on."""
    if snapshot.ended is not None:
        return snapshot.ended
    if snapshot.wall_s >= snapshot.deadline_at:
        return "expired"
    quiet_s = snapshot.now_s - snapshot.last_activity_s
    if snapshot.open_tasks <= 0 and quiet_s >= snapshot.session_timeout_s:
        return "idle"
    return None


def decide(snapshot: Snapshot) -> tuple[Action, ...]:
    """What to do next; the same snapshot always gives the same answer."""
    ending = why_ending(snapshot)
    if ending is not None:
        return _wind_down(snapshot, ending)
    actions = _departures(snapshot)
    hopeless = _hopeless(snapshot)
    if hopeless is not None:
        return (*actions, GiveUp(hopeless))
    surplus = _surplus(snapshot)
    if surplus:
        return (*actions, Stop(surplus, f"scaled to {snapshot.target_workers}", drain=True))
    missing = _missing(snapshot)
    return (*actions, Launch(missing)) if missing > 0 else actions


def _wind_down(snapshot: Snapshot, ending: str) -> tuple[Action, ...]:
    present = tuple(worker.name for worker in snapshot.workers if worker.present and not worker.stopping)
    stop: tuple[Action, ...] = (
        (Stop(present, f"the session is {ending}", drain=ending == "closed"),) if present else ()
    )
    # An idle session is closed before its workers go, so that nobody submits to it in between.
    if snapshot.over or (ending == "idle" and snapshot.ended is None):
        return (Terminate(ending), *stop)
    return stop


def _departures(snapshot: Snapshot) -> tuple[Action, ...]:
    actions: list[Action] = []
    for worker in snapshot.workers:
        exited = worker.provider_state == "exited"
        if not worker.recorded:
            if worker.left and (exited or worker.provider_state == "foreign"):
                actions.append(RecordStopped(worker.name, worker.reason))
            elif exited:
                actions.append(RecordLost(worker.name, worker.exit_reason or worker.reason or "ended"))
            elif worker.lost and not worker.left:
                actions.append(RecordLost(worker.name, "no sign of life for the length of its lease"))
        # Recorded or not: a process that froze must not wake up one day, nor one hang after its good-bye.
        if worker.lost and worker.present and not worker.stopping:
            actions.append(Stop((worker.name,), "lost"))
    return tuple(actions)


def _hopeless(snapshot: Snapshot) -> str | None:
    works = any(worker.counts and worker.heartbeat_state == "running" for worker in snapshot.workers)
    for worker in snapshot.workers:
        # What kept an inherited one from working may be over: ours will tell.
        ours = worker.provider_state != "foreign" and not worker.inherited
        if worker.heartbeat_state == "refused" and not worker.recorded and ours:
            return worker.reason or "a worker refused to begin"
        # Where one works, the next one may, too: of hundreds of pulls one fails now and then.
        if worker.hopeless and not worker.recorded and ours and not works:
            return f"workers cannot start: {worker.exit_reason}"
    if works:
        return None
    if snapshot.early_deaths >= early_death_limit(snapshot.target_workers):
        return f"workers stop before they get to work: {snapshot.last_death}"
    if snapshot.launch_failures >= MAX_LAUNCH_FAILURES and snapshot.live == 0:
        return f"no worker can be started: {snapshot.last_failure}"
    return None


def _surplus(snapshot: Snapshot) -> tuple[str, ...]:
    """Whom to send away after the session was scaled down: the idle first, of the busy the youngest."""
    excess = snapshot.live - snapshot.target_workers
    if excess <= 0:
        return ()
    ours = [worker for worker in snapshot.workers if worker.counts and worker.provider_state != "foreign"]
    ours.sort(key=lambda worker: (worker.heartbeat_state == "running", worker.age_s, worker.name))
    return tuple(worker.name for worker in ours[:excess])


def _missing(snapshot: Snapshot) -> int:
    wanted = min(snapshot.target_workers, -(-max(0, snapshot.open_tasks) // snapshot.slots))
    if snapshot.sated and snapshot.live > 0:
        return 0
    delay_s = launch_delay_s(snapshot.early_deaths, snapshot.launch_failures, snapshot.target_workers)
    if snapshot.now_s < snapshot.last_trouble_s + delay_s:
        return 0
    if snapshot.now_s < snapshot.short_s + _top_up_delay_s(snapshot.shortfalls):
        return 0
    return wanted - snapshot.live


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs (first, length)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and sum(runs[-1]) == number:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs
