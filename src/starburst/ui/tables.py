"""Sessions and their state as tables: plain columns that read well on a terminal and in a pipe."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from starburst.ui import text

if TYPE_CHECKING:
    from starburst.client.status import SessionStatus, SessionSummary, WorkerView
    from starburst.protocol.records import Event

__all__ = ["ABANDONED", "columns", "print_to", "sessions_table", "status_view"]

STATE_STYLES = {"open": "green", "finished": "cyan", "running": "green", "lost": "red", "refused": "red"}
PIPE_WIDTH = 200
"""Columns when nobody's terminal limits them: whole rows for grep."""
EVENTS_SHOWN = 8
ABANDONED = (
    "its program is gone and no worker is left: `starburst collect ID -o FILE` goes on with it, "
    "`starburst cleanup ID` ends it"
)


def print_to(stream: TextIO, *views: RenderableType) -> None:
    """Print to a terminal in its width and colours, to anything else in whole plain lines."""
    if stream.isatty():
        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        console.print(*views, sep="\n")
        return
    plain = io.StringIO()
    console = Console(
        file=plain, width=PIPE_WIDTH, highlight=False, markup=False, emoji=False, color_system=None
    )
    console.print(*views, sep="\n")
    stream.writelines(f"{line.rstrip()}\n" for line in plain.getvalue().splitlines())
    stream.flush()


def columns(*heads: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table of the one look that all have; the columns in ``numbers`` stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    right = set(numbers)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", no_wrap=True)
    return table


def sessions_table(sessions: Sequence[SessionSummary], *, now: float) -> RenderableType:
    """One row per session, the newest first."""
    if not sessions:
        return Text("No sessions in this store.", style="dim")
    figures = ("TASKS", "DONE", "FAILED", "PENDING", "WORKERS")
    table = columns("SESSION", "KIND", "STATE", "AGE", *figures, numbers=("AGE", *figures))
    for session in sorted(sessions, key=lambda each: each.created_at, reverse=True):
        table.add_row(
            session.session_id,
            session.kind,
            _state("abandoned" if session.abandoned else session.state),
            text.ago(now - session.created_at),
            text.count(session.total),
            text.count(session.completed),
            _failed(session.failed),
            text.count(session.pending),
            text.count(session.workers),
        )
    return table


def status_view(status: SessionStatus, *, now: float) -> RenderableType:
    """A session as a few lines, its workers as a table, and its last events."""
    parts: list[RenderableType] = [_facts(status, now=now)]
    if status.worker_list:
        parts += [Text(), _workers_table(status.worker_list)]
    if status.events:
        parts += [Text(), _events_table(status.events[-EVENTS_SHOWN:])]
    return Group(*parts)


def _facts(status: SessionStatus, *, now: float) -> Table:
    left = status.deadline_at - now
    when = f"{text.seconds(left)} left" if left > 0 else f"{text.ago(left)} ago"
    tasks = Text(f"{text.count(status.total)} in all: {text.count(status.completed)} done, ")
    tasks.append(f"{text.count(status.failed)} failed", style="bold red" if status.failed else "")
    tasks.append(f", {text.count(status.running)} running, {text.count(status.pending)} pending")
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    facts.add_row("session", f"{status.session_id} ({status.kind}, {status.launch_type})")
    facts.add_row("state", _state("abandoned" if status.abandoned else status.state))
    if status.abandoned:
        facts.add_row("", ABANDONED.replace("ID", status.session_id))
    facts.add_row("tasks", tasks)
    facts.add_row("workers", text.count(status.workers))
    facts.add_row("created", f"{_when(status.created_at)} ({text.ago(now - status.created_at)} ago)")
    facts.add_row("deadline", f"{_when(status.deadline_at)} ({when})")
    return facts


def _workers_table(workers: Sequence[WorkerView]) -> Table:
    figures = ("DONE", "FAILED", "CPU", "MEMORY", "SEEN")
    table = columns("WORKER", "STATE", *figures, "HOST", "PID", "TASK", numbers=(*figures, "PID"))
    for worker in workers:
        table.add_row(
            worker.worker,
            _state(worker.state),
            text.count(worker.tasks_done),
            _failed(worker.tasks_failed),
            f"{worker.cpu_percent:.0f}%",
            text.size(worker.memory_bytes),
            f"{text.ago(worker.age_s)} ago",
            worker.host,
            str(worker.pid),
            Text(worker.task or worker.reason or "-"),
        )
    return table


def _events_table(events: Sequence[Event]) -> Table:
    table = columns("AT", "EVENT", "BY", "WHAT")
    for event in events:
        what = ", ".join(f"{name}={value}" for name, value in event.data.items())
        table.add_row(_when(event.at), event.what, event.by or "-", Text(what or "-"))
    return table


def _state(state: str) -> Text:
    return Text(state, style=STATE_STYLES.get(state, "yellow"))


def _failed(number: int) -> Text:
    return Text(text.count(number), style="bold red" if number else "")


def _when(at: float) -> str:
    return dt.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
