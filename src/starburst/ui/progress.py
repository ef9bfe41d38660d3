"""Which progress display fits where we run, and the plain one; nothing here may disturb the caller's work.

A display is told about snapshots as often as the caller likes and draws as rarely as it pays. Everything
goes to stderr: stdout belongs to the user's program.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from starburst.ui.render import progress_line, summary_lines

if TYPE_CHECKING:
    from starburst.client.progress import ProgressSink, Snapshot, Summary

__all__ = ["PlainSink", "QuietSink", "open_sink"]

PLAIN_EVERY_S = 5.0
"""A log that someone reads later needs no more than a line each few seconds."""


def open_sink(stream: TextIO | None = None) -> ProgressSink:
    """The display for where we are: a widget in a notebook, a live bar on a terminal, else plain lines.

    Args:
        stream: Where to write; None means stderr as it is now.
    """
    stream = stream if stream is not None else sys.stderr
    # Rich, and even more so ipywidgets, are loaded for those who see them; a display that cannot be
    # opened (a broken installation, a stream that is closed) must not stop the work that it would show.
    with contextlib.suppress(Exception):
        if in_notebook():
            from starburst.ui.notebook import NotebookSink

            return QuietSink(NotebookSink())
    with contextlib.suppress(Exception):
        if stream.isatty() and os.environ.get("TERM") != "dumb":
            from starburst.ui.live import LiveSink

            return QuietSink(LiveSink(stream))
    return QuietSink(PlainSink(stream))


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs us and ipywidgets is there."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return False
    import importlib.util

    return importlib.util.find_spec("ipywidgets") is not None


class QuietSink:
    """Passes everything on to a display until that raises once; from then on it shows nothing.

    Args:
        inner: The display.
    """

    def __init__(self, inner: ProgressSink) -> None:
        self._inner: ProgressSink | None = inner

    def start(self, snapshot: Snapshot) -> None:
        """Show the first state."""
        self._try(lambda inner: inner.start(snapshot))

    def update(self, snapshot: Snapshot) -> None:
        """Show another state, or leave it out if the last one was just drawn."""
        self._try(lambda inner: inner.update(snapshot))

    def note(self, line: str) -> None:
        """Show one line of text that stays."""
        self._try(lambda inner: inner.note(line))

    def close(self, summary: Summary | None) -> None:
        """Take the display away and show the closing words, if any."""
        self._try(lambda inner: inner.close(summary))
        self._inner = None

    def _try(self, action: Callable[[ProgressSink], None]) -> None:
        inner = self._inner
        if inner is None:
            return
        try:
            action(inner)
        except Exception:  # noqa: BLE001 - a closed terminal must not end the work that it shows
            self._inner = None
            with contextlib.suppress(Exception):
                inner.close(None)


class PlainSink:
    """Plain lines, at most one each few seconds.

    Args:
        stream: Where to write.
        every_s: Seconds between two lines.
        monotonic: The clock that measures them.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        every_s: float = PLAIN_EVERY_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._every_s = every_s
        self._monotonic = monotonic
        self._next = 0.0

    def start(self, snapshot: Snapshot) -> None:  # noqa: ARG002 - the protocol's name
        """Start the first pause; short work prints nothing but its closing words."""
        self._next = self._monotonic() + self._every_s

    def update(self, snapshot: Snapshot) -> None:
        """A line if the last one is old enough."""
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + self._every_s
            self._write(progress_line(snapshot))

    def note(self, line: str) -> None:
        """A line at once."""
        self._write(line)

    def close(self, summary: Summary | None) -> None:
        """The closing words."""
        if summary is not None:
            for line in summary_lines(summary):
                self._write(line)

    def _write(self, line: str) -> None:
        line = line.strip()
        self._stream.write(f"{line}\n" if line.startswith("starburst") else f"starburst: {line}\n")
        self._stream.flush()
