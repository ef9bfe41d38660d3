"""One ``map`` call from inside: what is submitted, what has come back, what to show of it."""

from __future__ import annotations

import threading
import time
from typing import Any

from starburst.client.collector import Run
from starburst.client.failures import task_error
from starburst.client.pool import Pool
from starburst.client.progress import ProgressSink, Snapshot, Summary
from starburst.errors import StarburstError, TaskError
from starburst.protocol.results import Outcome

__all__ = ["Call", "Slice"]

_REFRESH_S = 0.1


class Slice:
    """Where a submission's tasks stand in the call: task ``i`` is the call's item ``places[i]``, or none if < 0."""

    __slots__ = ("places", "seq")

    def __init__(self, places: range | list[int]) -> None:
        self.places = places
        self.seq = 0


class Call:
    """Gathers outcomes in the engine's loop and hands them to the caller's thread.

    Args:
        pool: Where it runs.
        title: For the display.
        total: How many items; 0 while it is not known.
        sink: The display.
    """

    def __init__(self, pool: Pool, title: str, total: int, sink: ProgressSink) -> None:
        self.pool = pool
        self.title = title
        self.total = total
        self.outcomes: dict[int, tuple[Outcome, Run, int]] = {}
        self.done = self.failed = 0
        self.error: StarburstError | None = None
        self._sink = sink
        self._changed = threading.Condition()
        self._first_failure: int | None = None
        self.task_s = 0.0
        self._retried = 0
        self._started = time.monotonic()
        counts = pool.connection.store.counts
        self._before = (counts.total, counts.bytes_in, counts.bytes_out)
        self._shown_at = float("-inf")
        sink.start(self.snapshot())

    def taker(self, part: Slice) -> Any:
        """What the collector calls with each run of a submission."""

        def take(run: Run) -> None:
            with self._changed:
                for i, outcome in enumerate(run.outcomes, run.first):
                    place = part.places[i]
                    if place < 0:
                        continue
                    self.outcomes[place] = (outcome, run, i)
                    self.done += 1
                    if outcome.failure is not None:
                        self.failed += 1
                        if self._first_failure is None or place < self._first_failure:
                            self._first_failure = place
                self.task_s += run.task_s
                self._retried += run.retried
                self._changed.notify_all()

        return take

    def give_up(self, error: StarburstError) -> None:
        """What the collector calls when no more will come."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def first_failure(self) -> TaskError | None:
        """The failed task with the lowest number so far."""
        with self._changed:
            return None if self._first_failure is None else self.failure(self._first_failure)

    def failure(self, place: int) -> TaskError:
        """The error of a failed item."""
        outcome, run, index = self.outcomes[place]
        return task_error(
            outcome,
            session_id=self.pool.session_id,
            batch=run.batch,
            index=index,
            worker=run.worker,
            position=place,
        )

    def any_place(self) -> int:
        """An item that has an outcome which was not taken yet; there must be one."""
        with self._changed:
            return next(iter(self.outcomes))

    def value(self, place: int, *, keep: bool = False) -> Any:
        """The value of an item that has one, or its error as an object."""
        outcome = self.outcomes[place][0]
        result = outcome.value if outcome.failure is None else self.failure(place)
        if not keep:
            del self.outcomes[place]
        return result

    def wait_for(self, done: int, *, stop_at_failure: bool = False, for_s: float | None = None) -> None:
        """Wait until so many items have an outcome, or one has failed, showing progress meanwhile.

        Args:
            done: How many.
            stop_at_failure: Return when one has failed.
            for_s: Return after so many seconds in any case.

        Raises:
            StarburstError: The rest will not come.
        """
        until = None if for_s is None else time.monotonic() + for_s
        while until is None or time.monotonic() < until:
            with self._changed:
                if self.done >= done or (stop_at_failure and self._first_failure is not None):
                    return
                if self.error is not None:
                    raise self.error
                self._changed.wait(
                    _REFRESH_S if until is None else min(_REFRESH_S, max(0.0, until - time.monotonic()))
                )
            self.show()

    def wait_for_all(self, on_error: str) -> None:
        """Wait for every item; with "raise", until one has failed.

        Raises:
            TaskError: The first failed item's, with "raise".
            StarburstError: The rest will not come.
        """
        self.wait_for(self.total, stop_at_failure=on_error == "raise")
        if on_error == "raise" and (failure := self.first_failure()) is not None:
            raise failure from failure.__cause__

    def show(self) -> None:
        """Tell the display, at most some times a second."""
        now = time.monotonic()
        if now - self._shown_at >= _REFRESH_S:
            self._shown_at = now
            self._sink.update(self.snapshot())

    def snapshot(self) -> Snapshot:
        """How far it is."""
        elapsed = time.monotonic() - self._started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        left = self.total - self.done
        report = self.pool.supervisor.report
        working = report.live - report.starting - report.waiting
        return Snapshot(
            session_id=self.pool.session_id,
            title=self.title,
            total=self.total,
            done=self.done - self.failed,
            failed=self.failed,
            running=max(0, min(working * self.pool.connection.manifest.slots, left)),
            workers=working,
            starting=report.starting,
            waiting=report.waiting,
            elapsed_s=elapsed,
            tasks_per_s=rate,
            eta_s=left / rate if rate > 0 else None,
        )

    def finish(self, *, in_order: bool) -> None:
        """Close the display."""
        if not in_order:
            self._sink.close(None)
            return
        wall = time.monotonic() - self._started
        counts = self.pool.connection.store.counts
        requests, bytes_in, bytes_out = self._before
        self._sink.close(
            Summary(
                session_id=self.pool.session_id,
                total=self.total,
                ok=self.done - self.failed,
                failed=self.failed,
                retries=self._retried,
                wall_s=wall,
                task_s=self.task_s,
                speedup=self.task_s / wall if wall > 0 else 0.0,
                bytes_in=counts.bytes_in - bytes_in,
                bytes_out=counts.bytes_out - bytes_out,
                requests=counts.total - requests,
                workers=max(1, self.pool.live_workers),
            )
        )
