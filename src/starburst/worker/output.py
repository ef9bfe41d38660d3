"""What a task prints: whole into the worker's log with the task's id on each line, its tail kept for failures."""

from __future__ import annotations

import io
import os

__all__ = ["TAIL_CHARS", "TaskOutput", "TaskStream"]

TAIL_CHARS = 8_000


class TaskOutput:
    """Where both streams of a runner go.

    Args:
        log_fd: The worker's log, opened for appending; None drops what is printed.
    """

    def __init__(self, log_fd: int | None) -> None:
        self._log_fd = log_fd
        self._task = ""
        self._tail: list[str] = []
        self._tail_chars = 0

    def begin(self, task_id: str) -> None:
        """What is printed from now on belongs to ``task_id``."""
        self._task = task_id
        if self._tail:
            self._tail = []
            self._tail_chars = 0

    def tail(self) -> str:
        """The last characters that the present task printed."""
        return "".join(self._tail)[-TAIL_CHARS:]

    def keep(self, text: str) -> None:
        """Add to the tail."""
        self._tail.append(text)
        self._tail_chars += len(text)
        if self._tail_chars > 4 * TAIL_CHARS:
            self._tail = ["".join(self._tail)[-TAIL_CHARS:]]
            self._tail_chars = len(self._tail[0])

    def log(self, line: str) -> None:
        """Write one whole line into the log; one write each, so that lines of several runners do not mix."""
        if self._log_fd is not None:
            os.write(self._log_fd, f"[{self._task}] {line}\n".encode(errors="replace"))


class TaskStream(io.TextIOBase):
    """Stands in for ``sys.stdout`` and ``sys.stderr`` while tasks run.

    Args:
        output: Where the lines go.
        fd: The descriptor of the stream that it replaces, for code that asks for ``fileno()``.
    """

    def __init__(self, output: TaskOutput, fd: int) -> None:
        super().__init__()
        self._output = output
        self._fd = fd
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Lines are UTF-8."""
        return "utf-8"

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """No one is looking."""
        return False

    def fileno(self) -> int:
        """The descriptor below; what is written to it directly reaches the log without a task's tail."""
        return self._fd

    def write(self, text: str) -> int:
        """Keep the text and log the lines that are complete."""
        self._output.keep(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._output.log(line)
        return len(text)

    def end_task(self) -> None:
        """Log what stands without an end of line."""
        if self._line:
            self._output.log(self._line)
            self._line = ""
