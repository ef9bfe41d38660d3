"""The live bar on a terminal: one line that is redrawn in place, at most some times a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from starburst.ui import text
from starburst.ui.render import crew, finished, summary_lines

if TYPE_CHECKING:
    from starburst.client.progress import Snapshot, Summary

__all__ = ["LiveSink", "bar"]

REDRAW_EVERY_S = 0.1
TITLE_COLUMNS = 24
MIN_BAR_COLUMNS = 8
MAX_BAR_COLUMNS = 40


class LiveSink:
    """A bar with done, failed and running tasks, their rate, the workers and the time that is left.

    It has no thread of its own: it draws when it is told something new, if the last drawing is old enough.

    Args:
        stream: The terminal.
        monotonic: The clock that measures the pauses between drawings.
        console: Where to draw, instead of ``stream``.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(file=stream, stderr=True, highlight=False)
        self._monotonic = monotonic
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._next = 0.0
        self._latest: Snapshot | None = None

    def start(self, snapshot: Snapshot) -> None:
        """Draw the first state."""
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            # What the program prints meanwhile appears above the bar; where stdout is a file, it stays there.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )
        self._live.start()
        self._draw(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the state if the last drawing is old enough."""
        self._latest = snapshot
        if self._monotonic() >= self._next:
            self._draw(snapshot)

    def note(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(Text(line))

    def close(self, summary: Summary | None) -> None:
        """Replace the bar by the closing words; without any, the last state stays visible."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        if summary is not None:
            first, *rest = summary_lines(summary)
            self._console.print(Text(first, style="red" if summary.failed else "green"), soft_wrap=True)
            for line in rest:
                self._console.print(Text(line, style="dim"), soft_wrap=True)
        elif self._latest is not None:
            self._console.print(bar(self._latest, width=self._console.width))

    def _draw(self, snapshot: Snapshot) -> None:
        self._next = self._monotonic() + REDRAW_EVERY_S
        if self._live is not None:
            line = bar(snapshot, width=self._console.width, spinner=self._spinner)
            self._live.update(line, refresh=True)


def bar(snapshot: Snapshot, *, width: int, spinner: RenderableType = "") -> RenderableType:
    """One state as one line of a terminal that is ``width`` columns wide; what matters least gives way."""
    figures = _figures(snapshot)
    title = Text(snapshot.title[:TITLE_COLUMNS], style="bold")
    for droppable in ("title", "elapsed", "running", "workers", "eta"):
        used = sum(part.cell_len + 1 for part in figures.values()) + title.cell_len + 3
        if used + MIN_BAR_COLUMNS <= width:
            break
        if droppable == "title":
            title = Text()
        figures.pop(droppable, None)
    used = sum(part.cell_len + 1 for part in figures.values()) + title.cell_len + 3
    total = snapshot.total or None
    gauge = ProgressBar(
        total=total,
        completed=finished(snapshot),
        width=max(MIN_BAR_COLUMNS, min(MAX_BAR_COLUMNS, width - used)),
        pulse=total is None,
    )
    cells = [spinner, *([title] if title else []), gauge, *figures.values()]
    line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def _figures(snapshot: Snapshot) -> dict[str, Text]:
    tasks = Text(text.count(finished(snapshot)), style="bold green")
    if snapshot.total:
        tasks.append(f"/{text.count(snapshot.total)}", style="not bold default")
    figures = {"tasks": tasks}
    if snapshot.failed:
        figures["failed"] = Text(f"{text.count(snapshot.failed)} failed", style="bold red")
    figures["running"] = Text(f"{text.count(snapshot.running)} running", style="cyan")
    figures["rate"] = Text(text.rate(snapshot.tasks_per_s))
    figures["workers"] = Text(crew(snapshot), style="" if snapshot.workers else "yellow")
    figures["elapsed"] = Text(text.seconds(snapshot.elapsed_s), style="dim")
    if snapshot.eta_s:
        figures["eta"] = Text(f"{text.seconds(snapshot.eta_s)} left", style="cyan")
    return figures
