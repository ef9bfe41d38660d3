"""Failures on request: which operation shall fail, how, how often, and under which circumstances."""

from __future__ import annotations

import fnmatch
import itertools
from dataclasses import dataclass
from typing import Any

__all__ = ["Script", "Scripts"]


@dataclass(slots=True)
class Script:
    """One failure that is asked for.

    Attributes:
        script_id: For :meth:`Scripts.clear`.
        operation: ``service:Operation``; ``*`` stands for anything.
        kind: What happens; its place in the simulator knows the kinds it can show.
        left: How often still; None for always.
        where: Only if these facts of the request have these values (or one of a list of values).
    """

    script_id: int
    operation: str
    kind: str
    left: int | None
    where: dict[str, Any]

    def fits(self, operation: str, kind: str, facts: dict[str, Any]) -> bool:
        """Whether this request is to fail in this way."""
        if self.left == 0 or kind != self.kind or not fnmatch.fnmatchcase(operation, self.operation):
            return False
        return all(name in facts and _one_of(facts[name], want) for name, want in self.where.items())


class Scripts:
    """The failures that are in force. Not locked: the caller holds the world's lock."""

    def __init__(self) -> None:
        self._scripts: dict[int, Script] = {}
        self._ids = itertools.count(1)

    def add(self, operation: str, kind: str, *, times: int | None, where: dict[str, Any]) -> int:
        """Ask for a failure; returns the id of the script."""
        number = next(self._ids)
        self._scripts[number] = Script(number, operation.replace(".", ":", 1), kind, times, where)
        return number

    def clear(self, script_id: int | None = None) -> None:
        """Forget one script, or all."""
        if script_id is None:
            self._scripts.clear()
        else:
            self._scripts.pop(script_id, None)

    def take(self, operation: str, kind: str, **facts: Any) -> Script | None:
        """The script that makes this request fail in this way, one time used up; None if it is to go well.

        Args:
            operation: ``service:Operation``.
            kind: What the caller can show.
            **facts: What scripts may ask for by ``where``.
        """
        for script in self._scripts.values():
            if script.fits(operation, kind, facts):
                if script.left is not None:
                    script.left -= 1
                return script
        return None


def _one_of(value: Any, want: Any) -> bool:
    return value in want if isinstance(want, list) else bool(value == want)
