"""How the demo runs its workloads, times them, and compares each result with a sequential run."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import starburst
from starburst.cli.demo_workloads import (
    Workload,
    cross_validate,
    mapped_workloads,
    portfolio_year,
    search_grid,
)
from starburst.cli.output import CommandError
from starburst.client.pool import close_all

if TYPE_CHECKING:
    from starburst.client.executor import Executor

__all__ = ["Row", "Suite", "difference"]

CHILD_TIMEOUT_S = 120.0
"""No child process of the demo takes longer than some seconds; this ends one that hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one workload took, and whether its results are right."""

    name: str
    tasks: int
    seconds: float
    sequential_s: float
    requests: int
    check: str
    mismatch: str = ""

    @property
    def ok(self) -> bool:
        """Whether every result agrees with the sequential run."""
        return not self.mismatch

    @property
    def speedup(self) -> float:
        """Sequential time by parallel time."""
        return self.sequential_s / self.seconds

    @property
    def tasks_per_s(self) -> float:
        """Tasks by parallel time."""
        return self.tasks / self.seconds

    @property
    def requests_per_task(self) -> float:
        """Requests to the store per task, of client and workers together; an upper bound.

        Workers tell theirs with each heartbeat, so they are asked for after the sequential run, and what idle
        workers ask meanwhile is counted too.
        """
        return self.requests / self.tasks

    def as_json(self) -> dict[str, Any]:
        """All figures, those that are worked out too."""
        names = ("ok", "speedup", "tasks_per_s", "requests_per_task")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in names}


def difference(expected: Sequence[Any], got: Sequence[Any], *, rtol: float) -> str:
    """The first place where two lists of results disagree, in words; empty if they do not.

    Args:
        expected: Results of the sequential run.
        got: Results to judge.
        rtol: Relative tolerance, and the absolute one for values near 0; 0 means bit for bit.
    """
    if len(expected) != len(got):
        return f"{len(got)} results instead of {len(expected)}"
    for index, (one, other) in enumerate(zip(expected, got, strict=True)):
        if isinstance(other, BaseException):
            return f"task {index} failed: {other}"
        left, right = np.asarray(one), np.asarray(other)
        if left.shape != right.shape or left.dtype != right.dtype:
            return f"task {index}: {right.dtype}{right.shape} instead of {left.dtype}{left.shape}"
        same = np.array_equal(left, right) if rtol == 0 else np.allclose(left, right, rtol=rtol, atol=rtol)
        if not same:
            return f"task {index}: {other!r} instead of {one!r}"
    return ""


class Suite:
    """The demo from beginning to end; a context manager, which removes what it kept.

    Args:
        note: Told, line by line, what is going on.
        quick: A fraction of the work.
        workers: How many workers.
        store: URL of the store; None for a folder of its own that is removed at the end.
    """

    def __init__(
        self, note: Callable[[str], None], *, quick: bool, workers: int, store: str | None = None
    ) -> None:
        self.workers = workers
        self._note = note
        self._quick = quick
        self._folder = Path(tempfile.mkdtemp(prefix="starburst-demo-"))
        self._store = store or (self._folder / "store").as_uri()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close_all()  # no worker is to look for a store that is gone
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self) -> list[Row]:
        """Run everything.

        Returns:
            One row per workload; a wrong result is in its row, not an exception.
        """
        with starburst.plan(workers=self.workers, launch_type="LOCAL", store=self._store):
            self._note(f"{self.workers} workers on this machine, store {self._store}")
            started = time.perf_counter()
            starburst.map(abs, [-1], progress=False)
            self._note(f"first call, workers started: {time.perf_counter() - started:.2f} s")
            # With equal options it shares the workers, and so counts the requests, of the calls of map.
            with starburst.Executor(progress=False) as pool:
                rows = [self._map(pool, each) for each in mapped_workloads(quick=self._quick)]
                rows.append(self._search(pool))
            rows.append(self._detached())
            return rows

    def _map(self, pool: Executor, workload: Workload) -> Row:
        self._note(f"\n{workload.name}: {len(workload.columns[0]):,} tasks by starburst.map")
        before = pool.requests.total
        started = time.perf_counter()
        got = starburst.map(workload.function, *workload.columns)
        seconds = time.perf_counter() - started
        return self._row(workload, got, seconds, lambda: pool.requests.total - before)

    def _search(self, pool: Executor) -> Row:
        candidates = search_grid(quick=self._quick)
        workload = Workload(
            name="scikit-learn grid, digits", function=cross_validate, columns=(candidates,), rtol=1e-12
        )
        self._note(f"\n{workload.name}: {len(candidates)} tasks by starburst.Executor")
        before = pool.requests.total
        started = time.perf_counter()
        futures = [pool.submit(cross_validate, candidate) for candidate in candidates]
        got = [future.result() for future in futures]
        seconds = time.perf_counter() - started
        scores = [float(each.mean()) for each in got]
        self._note(f"best: {candidates[int(np.argmax(scores))]} with accuracy {max(scores):.4f}")
        return self._row(workload, got, seconds, lambda: pool.requests.total - before)

    def _detached(self) -> Row:
        seeds = range(50_000, 50_000 + (500 if self._quick else 2_000))
        workload = Workload(name="detached session", function=portfolio_year, columns=(seeds,), rtol=1e-12)
        self._note(f"\n{workload.name}: {len(seeds):,} tasks, submitted by a process that ends at once")
        started = time.perf_counter()
        submit = [str(seeds.start), str(seeds.stop), str(self.workers), self._store]
        left = _child("starburst.cli.demo_detached", *submit)
        session_id = left["session_id"]
        self._note(f"left: {session_id}; a new process attaches and collects")
        file = self._folder / "results.pkl"
        told = self._cli("collect", session_id, "-o", str(file), "--timeout", "90")
        seconds = time.perf_counter() - started
        got = pickle.loads(file.read_bytes())
        row = self._row(workload, got, seconds, lambda: int(left["requests"] + told["requests"]))
        self._cli("cleanup", session_id, "--force")
        if session_id in [each["session_id"] for each in self._cli("sessions")["sessions"]]:
            return dataclasses.replace(row, mismatch="the session is still there after its cleanup")
        return row

    def _cli(self, *arguments: str) -> Any:
        return _child("starburst.cli.main", *arguments, "--store", self._store, "--json")

    def _row(
        self, workload: Workload, got: Sequence[Any], seconds: float, requests: Callable[[], int]
    ) -> Row:
        calls = workload.calls()
        started = time.perf_counter()
        expected = [workload.function(*arguments) for arguments in calls]
        sequential_s = time.perf_counter() - started
        mismatch = difference(expected, got, rtol=workload.rtol)
        self._note(f"sequentially: {sequential_s:.2f} s; results {mismatch or 'are equal'}")
        return Row(
            name=workload.name,
            tasks=len(calls),
            seconds=seconds,
            sequential_s=sequential_s,
            requests=requests(),
            check=f"rtol {workload.rtol:g}" if workload.rtol else "exactly",
            mismatch=mismatch,
        )


def _child(module: str, *arguments: str) -> Any:
    """What another process answers on its stdout, which is one JSON object.

    Raises:
        CommandError: It answered with an error, with nothing, or not in time.
    """
    command = [sys.executable, "-m", module, *arguments]
    shown = f"python -m {module} {' '.join(arguments)}"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=CHILD_TIMEOUT_S, check=False
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{shown} did not end in {CHILD_TIMEOUT_S:.0f} s") from error
    except ValueError as error:
        raise CommandError(f"{shown} ended with exit code {done.returncode} and no answer") from error
    if "error" in answer:
        raise CommandError(f"{shown}: {answer['error']['message']}", hint=answer["error"]["hint"])
    return answer
