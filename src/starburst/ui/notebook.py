"""The display in a notebook: a bar and a line of text as a widget."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets
from IPython.display import display

from starburst.ui.render import finished, progress_line, summary_lines

if TYPE_CHECKING:
    from starburst.client.progress import Snapshot, Summary

__all__ = ["NotebookSink"]

REDRAW_EVERY_S = 0.2
"""Each drawing is a message to the browser."""


class NotebookSink:
    """A widget that shows the bar while work runs and the closing words after it.

    Args:
        monotonic: The clock that measures the pauses between drawings.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._bar: Any = ipywidgets.IntProgress(min=0, max=1, layout={"width": "100%"})
        self._line: Any = ipywidgets.HTML()
        self._notes: list[str] = []
        self._next = 0.0

    def start(self, snapshot: Snapshot) -> None:
        """Show the widget."""
        display(ipywidgets.VBox([self._bar, self._line]))
        self._draw(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Draw the state if the last drawing is old enough."""
        if self._monotonic() >= self._next:
            self._draw(snapshot)

    def note(self, line: str) -> None:
        """A line below the bar that stays."""
        self._notes.append(line)
        self._show([])

    def close(self, summary: Summary | None) -> None:
        """Replace the bar by the closing words."""
        self._bar.layout.display = "none"
        if summary is not None:
            self._show(summary_lines(summary))

    def _draw(self, snapshot: Snapshot) -> None:
        self._next = self._monotonic() + REDRAW_EVERY_S
        self._bar.max = snapshot.total or 1
        self._bar.value = finished(snapshot)
        self._bar.bar_style = "danger" if snapshot.failed else "info"
        self._show([progress_line(snapshot)])

    def _show(self, lines: list[str]) -> None:
        self._line.value = "<br>".join(html.escape(line.strip()) for line in [*self._notes, *lines])
