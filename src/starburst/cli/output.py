"""How commands speak: results on stdout, as text or as JSON; everything else, errors too, on stderr.

With ``--json`` stdout holds JSON and nothing else: one object, or one object per line where a command goes
on (``logs``). An error is then an object too: ``{"error": {"type", "message", "hint", "exit_code"}}``.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starburst.cli import exit_codes
from starburst.errors import StarburstError, TaskError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["CommandError", "Output"]


class CommandError(StarburstError):
    """What a command itself has to complain about.

    Args:
        message: What happened.
        hint: What to do.
        exit_code: One of :mod:`starburst.cli.exit_codes`.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where one command writes.

    Attributes:
        json: Whether ``--json`` was given.
        debug: Whether ``--debug`` was given.
    """

    json: bool = False
    debug: bool = False

    def data(self, value: Any) -> None:
        """Write a result as one line of JSON."""
        import msgspec

        sys.stdout.buffer.write(msgspec.json.encode(value, enc_hook=str) + b"\n")
        sys.stdout.flush()

    def result(self, value: Any, *views: RenderableType) -> None:
        """Write a result: ``value`` with ``--json``, else ``views`` for people."""
        if self.json:
            self.data(value)
        elif views:
            from starburst.ui.tables import print_to

            print_to(sys.stdout, *views)

    def note(self, line: str) -> None:
        """Say something by the way."""
        print(line, file=sys.stderr, flush=True)

    def fail(self, error: BaseException) -> int:
        """Say why the command ends.

        Returns:
            The exit code.
        """
        if isinstance(error, KeyboardInterrupt):
            return self._say("Interrupted", "interrupted", None, exit_codes.INTERRUPTED)
        if self.debug:
            traceback.print_exception(error)
        name = type(error).__name__
        if isinstance(error, CommandError):
            return self._say(name, error.message, error.hint, error.exit_code)
        if isinstance(error, StarburstError):
            return self._say(name, _what(error), error.hint, exit_codes.code_of(error))
        hint = None if self.debug else "the same command with --debug shows where; please report it"
        return self._say(name, f"{name}: {error}", hint, exit_codes.FAILED)

    def usage(self, message: str, *, hint: str | None) -> int:
        """Say what is wrong with the command line.

        Returns:
            The exit code.
        """
        return self._say("UsageError", message, hint, exit_codes.USAGE)

    def _say(self, kind: str, message: str, hint: str | None, code: int) -> int:
        if self.json:
            self.data({"error": {"type": kind, "message": message, "hint": hint, "exit_code": code}})
        else:
            self.note(f"starburst: {message}")
            if hint:
                self.note(f"  → {hint}")
        return code


def _what(error: StarburstError) -> str:
    """The message; for a task, with the last line of its traceback, which says what it raised."""
    last = error.remote_traceback.rstrip().rpartition("\n")[2] if isinstance(error, TaskError) else ""
    return f"{error.message}\n  {last}" if last and last not in error.message else error.message
