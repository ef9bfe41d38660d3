"""SIGTERM in the middle of a call (``kill``, systemd, batch systems): what Ctrl-C does, and then the end by it.

The default action would end the program at once, and its workers would go on with what they have. So while a call is
waited for in the main thread, and nobody else handles SIGTERM, a handler of ours tidies up. It raises nothing: what
the program does with the exception of an interrupt, ``finally`` included, does not run after SIGTERM either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["LIMIT_S", "tidied_at_sigterm"]

LIMIT_S = 15.0
"""So long it may take; batch systems send SIGKILL half a minute after SIGTERM."""

Tidy = Callable[[float], str]

_tidying: list[Tidy] = []


@contextlib.contextmanager
def tidied_at_sigterm(tidy: Tidy) -> Iterator[None]:
    """Have something done, should SIGTERM come inside.

    Nothing is changed in another thread than the main one, or where SIGTERM is handled or ignored already.

    Args:
        tidy: Is told how many seconds it may take; returns what to print on standard error.
    """
    _tidying.append(tidy)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and _in_main_thread():
        signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # in the child of a fork nothing is left of it
            _tidying.remove(tidy)
        if not _tidying:
            _restore()


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as Python calls it
    # First of all: a second SIGTERM ends the program at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    calls = _tidying.copy()
    for tidy in calls:
        with contextlib.suppress(BaseException):
            # Not by way of sys.stderr: it may be just what was interrupted.
            os.write(2, tidy(LIMIT_S / len(calls)).encode())
    os.kill(os.getpid(), signal.SIGTERM)


def _restore() -> None:
    # A generator may be closed in another thread; the handler that stays then has nothing to do but end the program.
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_mask = threading.local()  # each thread has its own, and more than one may fork


def _hold() -> None:
    # A signal that came before the child has its handler would be dropped by the interpreter.
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if _tidying else None


def _let_go() -> None:
    if _mask.before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _forget() -> None:
    """In the child of a fork: the calls are its parent's."""
    _tidying.clear()
    _restore()
    _let_go()


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)
