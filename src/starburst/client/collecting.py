"""Everything that a session has brought forth, gathered from the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starburst.client.collector import Collector, Run, Watched
from starburst.client.connection import Connection
from starburst.client.failures import task_error
from starburst.client.status import read_batches
from starburst.clock import Deadline
from starburst.errors import CorruptObject, StarburstError, TaskError
from starburst.protocol.results import Outcome
from starburst.protocol.state import SessionState

__all__ = ["Collected", "collect_all"]


@dataclass(slots=True)
class Collected:
    """Outcomes by submission and task.

    Attributes:
        session_id: The session.
        total: Tasks that were submitted.
        damaged: Submissions that cannot be read.
        error: Why the rest does not come, if it is known.
    """

    session_id: str
    total: int = 0
    damaged: list[CorruptObject] = field(default_factory=list)
    error: StarburstError | None = None
    _found: dict[tuple[int, int], tuple[Outcome, Run]] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Tasks without an outcome."""
        return self.total - len(self._found)

    def take(self, run: Run) -> None:
        """Add outcomes."""
        for i, outcome in enumerate(run.outcomes, run.first):
            self._found[run.batch, i] = (outcome, run)

    def give_up(self, error: StarburstError) -> None:
        """The rest does not come."""
        self.error = self.error or error

    def ids(self) -> Iterator[tuple[int, int]]:
        """Submission and task of every outcome, in order of submission."""
        return iter(sorted(self._found))

    def failure(self, seq: int, i: int) -> TaskError | None:
        """The error of a task that failed; its position counts within its submission."""
        outcome, run = self._found[seq, i]
        if outcome.failure is None:
            return None
        return task_error(outcome, session_id=self.session_id, batch=seq, index=i, worker=run.worker)

    def result(self, seq: int, i: int) -> Any:
        """A task's value, or its error."""
        failure = self.failure(seq, i)
        return self._found[seq, i][0].value if failure is None else failure


async def collect_all(
    connection: Connection,
    *,
    wait: bool,
    timeout_s: float | None,
    wake: Callable[[], Awaitable[None]],
    look_after: Callable[[], Awaitable[None]],
) -> Collected:
    """Gather a session's outcomes.

    Args:
        connection: The session.
        wait: Go on until all are there, the time is up or the session has ended.
        timeout_s: Seconds to wait at the most.
        wake: Called before waiting: the session may sleep.
        look_after: Called again and again while waiting: sees that somebody works.
    """
    store, keys, clock = connection.store, connection.keys, connection.clock
    state = SessionState.of(connection.manifest)
    collector = Collector(store, keys, state, clock, news_s=connection.manifest.heartbeat_s / 2)
    found = Collected(connection.session_id)
    deadline = Deadline(clock, timeout_s)
    waiting: list[Watched] = []
    await collector.read_news()
    for seq, entry in (await read_batches(store, keys)).items():
        if isinstance(entry, CorruptObject):
            found.damaged.append(entry)
            continue
        if seq in state.delivered:
            continue
        watched = Watched(seq, entry[0].n_tasks, found.take, found.give_up)
        await collector.sweep(watched)
        if seq in state.cancelled_batches:
            found.total += watched.n_tasks - watched.missing
            continue
        found.total += watched.n_tasks
        if watched.missing:
            waiting.append(watched)
    if wait and waiting:
        await wake()
        for watched in waiting:
            collector.watch(watched)
        try:
            while found.missing and found.error is None and not deadline.passed:
                await look_after()
                await collector.pause(min(store.poll.max_s, deadline.remaining_s()))
        finally:
            await collector.close()
    return found
