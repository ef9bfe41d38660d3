"""A ``concurrent.futures.Executor`` whose workers are a session's."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

from starburst.client.call import Call, Slice
from starburst.client.engine import at_exit, engine
from starburst.client.gatherer import Gatherer, TaskFuture
from starburst.client.mapping import submit, tell_where
from starburst.client.packing import (
    check_callable,
    check_chunksize,
    columns_of,
    pack_map,
)
from starburst.client.plan import current_options
from starburst.client.pool import open_pool
from starburst.client.progress import Silent, open_sink
from starburst.environment.steps import builds_shown
from starburst.errors import OptionError, StarburstError, TaskError
from starburst.store.base import RequestCounts

__all__ = ["Executor"]

P = ParamSpec("P")
R = TypeVar("R")


class Executor(concurrent.futures.Executor):
    """Runs calls in parallel on a session's workers; use it as any ``concurrent.futures`` executor.

        with starburst.Executor(workers=4) as pool:
            futures = [pool.submit(fit, params) for params in grid]

    Args:
        workers: How many workers at the most.
        max_workers: The same, under the name that other executors have for it.
        progress: Say where it runs, once per process.
        **options: Any other of :class:`starburst.Options`: ``slots=``, ``timeout=``, ``retries=``, …

    Raises:
        OptionError: An option is unknown or wrong.
        StoreError: The store cannot be opened or written.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        max_workers: int | None = None,
        progress: bool = True,
        **options: Any,
    ) -> None:
        if workers is not None and max_workers is not None:
            raise OptionError("workers= and max_workers= are the same here", hint="give one of them")
        options["workers"] = max_workers if workers is None else workers
        self._options = current_options(options, ("progress",))
        with builds_shown(wanted=progress):
            self._pool = open_pool(self._options)
        self._gatherer = Gatherer(self._pool, self._options)
        self._calls: list[Call] = []
        self._shut_down = False
        self._guard = threading.Lock()
        _unfinished[id(self)] = (os.getpid(), self)
        tell_where(open_sink(progress=progress), self._options)

    @property
    def session_id(self) -> str:
        """The session that the calls belong to."""
        return self._pool.session_id

    @property
    def requests(self) -> RequestCounts:
        """Requests of all sides since the session began; workers report theirs with each heartbeat."""
        return engine.run(self._pool.requests())

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Have ``fn(*args, **kwargs)`` run by a worker.

        Args:
            fn: The function.
            *args: Its arguments; the function and they are pickled now, later changes do not matter.
            **kwargs: Its named arguments.

        Returns:
            The future of its result.

        Raises:
            OptionError: ``fn`` cannot be called.
            SerializationError: It or an argument cannot be pickled.
            RuntimeError: The executor was shut down.
        """
        check_callable(fn)
        with self._guard:
            self._check_open()
            return self._gatherer.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | str = "auto",
    ) -> Iterator[R]:
        """As :meth:`concurrent.futures.Executor.map`; ``chunksize`` needs no advice.

        Args:
            fn: The function.
            *iterables: Its arguments, side by side.
            timeout: Seconds from now after which taking the next result raises :class:`TimeoutError`.
            chunksize: Tasks that a worker claims at once.

        Returns:
            An iterator over the results, in order.

        Raises:
            OptionError: An argument is wrong.
            SerializationError: The function or an argument cannot be pickled.
        """
        check_callable(fn)
        size = check_chunksize(chunksize)
        columns = columns_of(iterables)
        with self._guard:
            self._check_open()
        lanes = self._options.workers * self._options.slots
        packed = pack_map(fn, columns, lanes=lanes, chunksize=size)
        if packed.n_tasks == 0:
            return iter(())
        call, part = Call(self._pool, packed.title, packed.n_tasks, Silent()), Slice(range(packed.n_tasks))
        submit(call, part, packed, self._options)
        self._calls.append(call)
        return _results_of(call, part, None if timeout is None else time.monotonic() + timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Workers stay warm for the next call with equal options, and leave after ``idle_timeout`` or with this
        process.

        Args:
            wait: Return when all pending calls are done.
            cancel_futures: Cancel those that no worker has claimed.
        """
        with self._guard:
            self._shut_down = True
        if cancel_futures:
            engine.run(self._gatherer.flush())
            self._gatherer.cancel_pending()
        if wait:
            concurrent.futures.wait(list(self._gatherer.pending))
            for call in self._calls:
                with contextlib.suppress(StarburstError):
                    call.wait_for(call.total)
            engine.call_soon(self._pool.delivered, *self._gatherer.submitted)
            _unfinished.pop(id(self), None)

    def _check_open(self) -> None:
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self._pool.usable:
            raise OptionError(
                f"session {self.session_id} of this executor has ended", hint="make a new starburst.Executor"
            )


_unfinished: dict[int, tuple[int, Executor]] = {}


def _finish_all() -> None:
    """As with the standard library's executors, the program ends when all that was submitted has run."""
    with contextlib.suppress(KeyboardInterrupt):
        for pid, executor in list(_unfinished.values()):
            if pid == os.getpid():
                executor.shutdown(wait=True)


at_exit(_finish_all)


def _results_of(call: Call, part: Slice, until: float | None) -> Iterator[Any]:
    """Results in order; what was not taken when the iterator is closed is cancelled."""
    try:
        for place in range(call.total):
            while place not in call.outcomes:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"result {place} of {call.total} was not there in time")
                call.wait_for(call.done + 1, for_s=left)
            value = call.value(place)
            if isinstance(value, TaskError):
                raise value from value.__cause__
            yield value
    finally:
        if call.done < call.total and call.error is None and call.pool.usable:
            engine.run(call.pool.cancel(part.seq))
            call.total = call.done
