"""The steps of a build as a box with seconds: rich on a terminal, lines otherwise."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, TextIO

from starburst.ui import text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from starburst.environment.steps import Step, Steps, StepsDisplay

__all__ = ["BoxOfSteps", "LinesOfSteps", "box", "open_steps"]

_REDRAWN_PER_S = 8
_ONLY_LOOKING = ("lock", "resolve", "look up")
"""Steps of every call: as long as there are no others, nothing is built, and nothing worth a line happened."""
_MARKS = {"running": "…", "done": "✓", "cached": "=", "failed": "✗"}
_STYLES = {"running": "cyan", "done": "green", "cached": "dim", "failed": "bold red"}


def open_steps(stream: TextIO | None = None, *, everything: bool = False) -> StepsDisplay:
    """The display for where we are.

    Args:
        stream: Where to write; None means stderr as it is now.
        everything: Show also what only looks whether there is something to build.
    """
    stream = stream if stream is not None else sys.stderr
    with contextlib.suppress(Exception):
        if stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            return BoxOfSteps(Console(file=stream, highlight=False), everything=everything)
    return LinesOfSteps(stream, everything=everything)


def worth_showing(steps: Steps) -> bool:
    """Whether more was done than to look for what is there."""
    return any(
        step.state == "failed" or (step.state == "done" and step.name not in _ONLY_LOOKING)
        for step in steps.steps
    )


class LinesOfSteps:
    """A plain line for each step that has ended; none for a call that builds nothing.

    Args:
        stream: Where to write.
        everything: Write lines in any case.
    """

    def __init__(self, stream: TextIO, *, everything: bool = False) -> None:
        self._stream = stream
        self._everything = everything
        self._written: set[int] = set()

    def update(self, steps: Steps) -> None:
        """Write lines for what has ended."""
        if not self._everything and not worth_showing(steps):
            return
        for number, step in enumerate(steps.steps):
            if step.state != "running" and number not in self._written:
                self._written.add(number)
                with contextlib.suppress(OSError, ValueError):  # nobody reads; the build goes on
                    self._stream.write(f"starburst: {_line(step)}\n")
                    self._stream.flush()

    def close(self, steps: Steps) -> None:
        """Write what has not been written."""
        self.update(steps)


class BoxOfSteps:
    """A box that is drawn anew as long as a step runs; it goes if nothing was built.

    Args:
        console: The terminal.
        everything: Keep the box in any case.
    """

    def __init__(self, console: Console, *, everything: bool = False) -> None:
        self._console = console
        self._everything = everything
        self._live: Live | None = None

    def update(self, steps: Steps) -> None:
        """Open the box with the first step; it looks at the others by itself."""
        if self._live is None:
            from rich.live import Live

            self._live = Live(
                console=self._console,
                get_renderable=lambda: box(steps),
                refresh_per_second=_REDRAWN_PER_S,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            with contextlib.suppress(Exception):
                self._live.start()

    def close(self, steps: Steps) -> None:
        """Leave the last state on the screen if something was built."""
        live, self._live = self._live, None
        with contextlib.suppress(Exception):
            if live is not None:
                live.stop()
            if self._everything or worth_showing(steps):
                self._console.print(box(steps))


def box(steps: Steps) -> RenderableType:
    """All steps and their seconds, in a frame."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    total = 0.0
    for step in list(steps.steps):
        seconds = steps.monotonic() - step.began if step.state == "running" else step.seconds
        total += seconds
        style = _STYLES[step.state]
        table.add_row(
            Text(_MARKS[step.state], style=style),
            Text(step.name, style=style),
            text.seconds(seconds),
            Text(_detail(step), style="dim"),
        )
    return Panel(
        table, title=f"workers' environment · {text.seconds(total)}", title_align="left", expand=False
    )


def _line(step: Step) -> str:
    return f"{_MARKS[step.state]} {step.name:8} {text.seconds(step.seconds):>8}  {_detail(step)}".rstrip()


def _detail(step: Step) -> str:
    if step.state == "cached":
        return f"cached · {step.detail}" if step.detail else "cached"
    return step.detail
