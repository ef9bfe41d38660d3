"""Logs: what workers and their tasks printed."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import typer

from starburst.cli import exit_codes
from starburst.cli.common import SessionId, StoreURL, command, reach
from starburst.cli.output import CommandError, Output

if TYPE_CHECKING:
    from starburst.clock import Clock
    from starburst.compute.base import Provider

__all__ = ["LogLine", "LogReader", "add_to"]

_EXAMPLES = """\
starburst logs session-…
starburst logs session-… --task 000001-00000042
starburst logs session-… --worker w-3f2a-0001 --follow"""

FOLLOW_EVERY_S = 1.0
_TASK_LINE = re.compile(r"\[(\d+-\d+)\] (.*)", re.DOTALL)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "logs", short_help="Print what workers and tasks wrote.", examples=_EXAMPLES)(logs)


def logs(
    out: Output,
    *,
    session_id: SessionId,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Only lines of this task, such as 000001-00000042.")
    ] = None,
    worker: Annotated[str | None, typer.Option(metavar="WORKER", help="Only this worker.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes until the session ends.")
    ] = False,
    store: StoreURL = None,
) -> None:
    """Print what the workers of a session and their tasks wrote to stdout and stderr.

    With --json each line is an object of its own: {"worker", "task", "line"}; task is null for what the worker
    itself says.
    """
    from starburst.clock import SystemClock

    session = reach(session_id, store)
    provider = session.provider
    reader = LogReader(provider, session.session_id, worker=worker, task=task)
    asyncio.run(_print(out, reader, session if follow else None, SystemClock()))


async def _print(out: Output, reader: "LogReader", session: Any | None, clock: "Clock") -> None:
    while True:
        # The state is read before the logs, so that the last lines of a session that ends are not missed.
        going_on = session is not None and session.status().state == "open"
        for line in await reader.news(last=not going_on):
            if out.json:
                out.data(line._asdict())
            else:
                print(line, flush=True)
        if not going_on:
            return
        await clock.sleep(FOLLOW_EVERY_S)


class LogLine(NamedTuple):
    """One line of a worker's log."""

    worker: str
    task: str | None
    line: str

    @classmethod
    def of(cls, worker: str, text: str) -> Self:
        """Take the task's id off a line that a task printed."""
        match = _TASK_LINE.fullmatch(text)
        return cls(worker, match[1], match[2]) if match else cls(worker, None, text)

    def __str__(self) -> str:
        task = f"[{self.task}] " if self.task else ""
        return f"{self.worker} | {task}{self.line}"


@dataclass(slots=True)
class LogReader:
    """Reads what is new in the logs of a session's workers.

    Attributes:
        provider: Who keeps the logs.
        session_id: Whose.
        worker: Only this worker.
        task: Only lines that this task printed.
    """

    provider: "Provider"
    session_id: str
    worker: str | None = None
    task: str | None = None
    _read: dict[str, int] = field(default_factory=dict)
    _rests: dict[str, bytes] = field(default_factory=dict)

    async def news(self, *, last: bool = True) -> list[LogLine]:
        """The lines that were written since the last call, worker by worker.

        Args:
            last: Give out a line that is not finished, too.

        Raises:
            CommandError: There is no such worker.
            ProviderError: A log cannot be read.
        """
        known = [each.worker for each in await self.provider.describe(self.session_id)]
        if self.worker is not None and self.worker not in known:
            raise CommandError(
                f"there is no worker {self.worker} in session {self.session_id} on this machine or account",
                hint=f"those there are: {', '.join(known)}" if known else None,
                exit_code=exit_codes.NOT_FOUND,
            )
        found: list[LogLine] = []
        for name in known if self.worker is None else [self.worker]:
            data = await self.provider.logs(self.session_id, name, offset_bytes=self._read.get(name, 0))
            self._read[name] = self._read.get(name, 0) + len(data)
            found += [line for line in self._lines(name, data, last) if self.task in (None, line.task)]
        return found

    def _lines(self, name: str, data: bytes, last: bool) -> Iterator[LogLine]:
        *whole, rest = (self._rests.pop(name, b"") + data).split(b"\n")
        if rest and last:
            whole.append(rest)
        elif rest:
            self._rests[name] = rest
        return (LogLine.of(name, line.decode("utf-8", "replace").rstrip("\r")) for line in whole)
