"""One background thread with an event loop, in which everything that talks to stores runs."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - registers its own end first, so that ours comes before it
import logging
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["Engine", "at_exit", "engine"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class Engine:
    """The thread and its loop, and a second one that calls users' code; started when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deliveries: queue.SimpleQueue[Callable[[], Any]] | None = None
        self._ended = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="starburst", daemon=True).start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T], *, wait_s: float | None = None) -> T:
        """Run a coroutine there and wait for it; an interrupt of the caller cancels it.

        Args:
            work: The coroutine.
            wait_s: Give up after so long, though the loop itself be stuck.

        Raises:
            RuntimeError: The program is ending: the thread does not run any more.
            TimeoutError: It took longer than ``wait_s``.
        """
        if self._ended:
            work.close()
            raise RuntimeError("starburst cannot work any more: the program is ending")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(wait_s)
        except BaseException:
            future.cancel()
            raise

    def run_all(self, works: Iterable[Coroutine[Any, Any, object]], *, but: type[Exception]) -> None:
        """Run coroutines there side by side and wait for all; errors of the kind ``but`` are passed over."""

        async def together() -> None:
            for found in await asyncio.gather(*works, return_exceptions=True):
                if isinstance(found, BaseException) and not isinstance(found, but):
                    raise found

        self.run(together())

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called there, soon."""
        self.loop.call_soon_threadsafe(function, *args)

    def deliver(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called in the second thread, one after another.

        What may run users' code (callbacks of futures) goes this way: it may wait for the loop.
        """
        with self._lock:
            if self._deliveries is None:
                self._deliveries = queue.SimpleQueue()
                threading.Thread(
                    target=_serve, args=(self._deliveries,), name="starburst-callbacks", daemon=True
                ).start()
        self._deliveries.put(lambda: function(*args))

    def end(self) -> None:
        """Threads like ours are about to be stopped by the interpreter: who comes now must not wait for them."""
        self._ended = True

    def forget(self) -> None:
        """After a fork the threads are not there any more."""
        self._lock = threading.Lock()
        self._loop = None
        self._deliveries = None


def _serve(deliveries: queue.SimpleQueue[Callable[[], Any]]) -> None:
    while True:
        try:
            deliveries.get()()
        except Exception:
            log.exception("a result could not be handed over")


def at_exit(function: Callable[[], None]) -> None:
    """Call a function when the program ends, while threads can still be started; the last one given comes first.

    That is earlier than ``atexit``, whose functions find the standard library's thread pools closed.
    """
    getattr(threading, "_register_atexit", atexit.register)(function)


engine = Engine()
os.register_at_fork(after_in_child=engine.forget)
at_exit(engine.end)  # the first one given, so the last one called
