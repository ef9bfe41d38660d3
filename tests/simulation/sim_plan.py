"""What one seed stands for: sizes, work, and how badly the world treats it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

TaskKind = Literal["ok", "raises", "hangs", "kills its process", "kills its worker"]


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What one task does, wherever and however often it is run."""

    kind: TaskKind = "ok"
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One submission: tasks by number, the chunk size or None, the time limit or None."""

    tasks: range
    chunksize: int | None
    timeout_s: float | None
    columns: bool
    withdraw: tuple[int, ...] = ()
    cancel_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a seed decides beforehand. Rates are per virtual second and hold until ``chaos_s``."""

    seed: int
    workers: int
    slots: int
    lease_s: float
    max_attempts: int
    idle_timeout_s: float
    session_timeout_s: float
    absolute_timeout_s: float
    poll_max_s: float
    boot_s: float
    latency_s: float
    skew_s: float
    clients: tuple[tuple[BatchPlan, ...], ...]
    tasks: dict[int, TaskPlan] = field(repr=False)
    chaos_s: float = 0.0
    kills: float = 0.0
    mass_kills: float = 0.0
    crashes: float = 0.0
    freezes: float = 0.0
    cuts: float = 0.0
    ambushes: float = 0.0
    ambush_kills: float = 0.0
    agent_only: bool = False
    supervisor_kills: float = 0.0
    supervisor_freezes: float = 0.0
    client_kills: float = 0.0
    scalings: float = 0.0
    refusals: float = 0.0
    error: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    late: float = 0.0

    @property
    def work_s(self) -> float:
        """Seconds that all tasks take together; one that hangs takes as long as it may."""
        return sum(min(task.duration_s, 2.0) for task in self.tasks.values())


def make_plan(seed: int, *, scale: int = 1) -> Plan:
    """The plan of a seed; ``scale`` multiplies workers and tasks."""
    rng = random.Random(f"plan {seed}")
    zombies, deaths, network = rng.choice(
        ((1, 0, 0), (1, 0, 0), (1, 0, 1), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 1, 1), (1, 1, 1))
    )
    tasks: dict[int, TaskPlan] = {}
    workers = rng.randint(1, 8) * scale
    odd = rng.choice((0.0, 0.0, 0.03, 0.1))
    clients = tuple(
        tuple(_make_batch(rng, tasks, odd, scale) for _ in range(rng.randint(1, 2)))
        for _ in range(rng.choice((1, 1, 2)))
    )
    some = lambda chance, low, high: rng.uniform(low, high) if rng.random() < chance else 0.0
    doomed = rng.random() < 0.1
    return Plan(
        seed=seed,
        workers=workers,
        slots=rng.choice((1, 1, 2, 3)),
        lease_s=rng.choice((0.5, 1.0, 2.0)),
        max_attempts=rng.choice((1, 2, 3, 3)),
        idle_timeout_s=rng.choice((0.3, 1.0, 3.0, 30.0)),
        session_timeout_s=rng.choice((1.0, 600.0, 600.0)),
        absolute_timeout_s=rng.uniform(1.0, 8.0) if doomed else 100_000.0,
        poll_max_s=rng.choice((0.05, 0.05, 0.2, 0.5)),
        boot_s=rng.choice((0.05, 0.3, 1.0)),
        latency_s=rng.choice((0.0005, 0.005, 0.02)),
        skew_s=rng.choice((0.0, 0.2)),
        clients=clients,
        tasks=tasks,
        chaos_s=rng.uniform(3.0, 10.0),
        kills=deaths * some(0.8, 0.05, 1.0) * scale,
        mass_kills=deaths * some(0.3, 0.05, 0.3),
        crashes=some(0.2, 0.1, 1.0),
        freezes=zombies * rng.uniform(0.1, 0.6) * workers,
        cuts=rng.choice((0.0, 0.5, 1.0)),
        ambushes=some(0.6, 0.005, 0.1),
        ambush_kills=rng.choice((0.0, 0.0, 0.3, 1.0)),
        agent_only=rng.random() < 0.7,
        supervisor_kills=some(0.2, 0.05, 0.5),
        supervisor_freezes=zombies * some(0.3, 0.05, 0.5),
        client_kills=some(0.15, 0.05, 0.5),
        scalings=some(0.2, 0.05, 0.5),
        refusals=some(0.2, 0.05, 0.4),
        error=network * some(0.7, 0.001, 0.1),
        lost=network * some(0.7, 0.001, 0.1),
        slow=network * some(0.5, 0.001, 0.03),
        late=network * some(0.5, 0.001, 0.03),
    )


def _make_batch(rng: random.Random, tasks: dict[int, TaskPlan], odd: float, scale: int) -> BatchPlan:
    mean_s = rng.choice((0.005, 0.03, 0.1, 0.3, 0.6))
    n_tasks = rng.choice((1, rng.randint(2, 10), rng.randint(10, 50), rng.randint(10, 50))) * scale
    first = len(tasks)
    timeout_s = rng.choice((None, None, 20 * mean_s + 0.5))
    kinds: list[TaskKind] = ["raises", "kills its process", "kills its worker"]
    if timeout_s is not None:
        kinds.append("hangs")
    spread = rng.random() < 0.5
    for task in range(first, first + n_tasks):
        kind = rng.choice(kinds) if rng.random() < odd else "ok"
        duration_s = min(rng.expovariate(1.0 / mean_s), 10 * mean_s) if spread else mean_s
        tasks[task] = TaskPlan(kind, float("inf") if kind == "hangs" else duration_s)
    return BatchPlan(
        tasks=range(first, first + n_tasks),
        chunksize=rng.choice((None, 1, 5, max(1, n_tasks // 2), n_tasks)),
        timeout_s=timeout_s,
        columns=rng.random() < 0.7,
        withdraw=tuple(rng.sample(range(n_tasks), min(n_tasks, 3))) if rng.random() < 0.15 else (),
        cancel_after_s=rng.uniform(0.1, 3.0) if rng.random() < 0.1 else None,
    )
