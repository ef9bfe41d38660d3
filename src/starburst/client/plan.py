"""Defaults for the calls inside: ``plan(...)`` as a setter and as a context manager."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from starburst.config import load_settings
from starburst.options import Options, check_names

__all__ = ["Plan", "current_options", "plan"]

log = logging.getLogger(__name__)

_planned: ContextVar[Mapping[str, Any] | None] = ContextVar("starburst_plan", default=None)
_told: set[tuple[str, tuple[str, ...]]] = set()
_main_plan: Mapping[str, Any] = {}
"""The main thread's plan, which holds in threads that have none of their own."""


class Plan:
    """What :func:`plan` returns; as a context manager it takes its defaults back at the end.

    Attributes:
        options: The defaults that hold now.
    """

    def __init__(self, before: Mapping[str, Any], options: Options) -> None:
        self._before = before
        self.options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set(self._before)

    def __repr__(self) -> str:
        return f"Plan({self.options})"


def plan(**options: Any) -> Plan:
    """Set defaults for every later call, or for those inside a ``with`` block.

    Args:
        **options: Any of :class:`starburst.Options`, such as ``workers=50`` or ``launch_type="FARGATE"``.

    Returns:
        A context manager that puts the former defaults back; ignore it to keep the new ones.

    Raises:
        OptionError: An option is unknown or wrong; nothing is changed.
    """
    check_names(options, Options.names())
    before = _current()
    merged = {**before, **options}
    checked = load_settings().options().merged(merged)
    _set(merged)
    return Plan(before, checked)


def _current() -> Mapping[str, Any]:
    own = _planned.get()
    return _main_plan if own is None else own


def _set(options: Mapping[str, Any]) -> None:
    global _main_plan  # noqa: PLW0603 - one plan per process, as users expect of a setter
    _planned.set(options)
    if threading.current_thread() is threading.main_thread():
        _main_plan = options


def current_options(changes: Mapping[str, Any], parameters: tuple[str, ...] = ()) -> Options:
    """Defaults, stored settings, plan and ``changes``, each on top of the one before.

    What plan or ``changes`` say without any effect is logged, once.

    Args:
        changes: The options of a call.
        parameters: What else the call has by name, for the list in the error.

    Raises:
        OptionError: One of ``changes`` is unknown or wrong.
        ConfigError: The stored settings cannot be read.
    """
    check_names(changes, (*Options.names(), *parameters))
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = {**_current(), **given}
    options = load_settings().options().merged(chosen)
    _tell(options.launch_type, options.without_effect(chosen))
    return options


def _tell(launch_type: str, names: tuple[str, ...]) -> None:
    """Say once what the launch type does not look at."""
    if names and (launch_type, names) not in _told:
        _told.add((launch_type, names))
        log.warning("without effect with launch_type %s: %s", launch_type, ", ".join(names))
