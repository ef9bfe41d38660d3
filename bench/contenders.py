"""Starburst and its rivals behind one face: open a warm pool, map, submit, share an array.

Each is used as its own documentation shows it to users. Imports stand in the functions because a rival
may be missing, and because each contender runs in a process of its own.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

__all__ = ["ALL", "Pool", "local_plan", "open_pool"]

Function = Callable[..., Any]


_HEARTBEAT_S = 2.1


class Pool(Protocol):
    """A running pool of one contender."""

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        """All results, in order."""
        ...

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        """One future for each item, then their results."""
        ...

    def share(self, array: Any) -> Any:
        """What stands for ``array`` in calls of :meth:`map_shared`."""
        ...

    def map_shared(self, function: Function, shared: Any, items: Sequence[Any]) -> list[Any]:
        """``function(array, item)`` for all items."""
        ...


class StarburstPool:
    """Local workers, a folder as the store; large arguments are found and shared automatically."""

    def __init__(self, *, workers: int) -> None:
        import starburst

        self._starburst = starburst
        self._open = ExitStack()
        folder = self._open.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        )
        self._open.enter_context(local_plan(folder, workers))
        self._sessions = 0

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._starburst.map(function, items, progress=False))

    @cached_property
    def _executor(self) -> Any:
        return self._open.enter_context(self._starburst.Executor())

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        futures = [self._executor.submit(function, item) for item in items]
        return [future.result() for future in futures]

    def share(self, array: Any) -> Any:
        return array

    def map_shared(self, function: Function, shared: Any, items: Sequence[Any]) -> list[Any]:
        return list(self._starburst.map(function, [shared] * len(items), items, progress=False))

    def requests(self, function: Function, items: Sequence[Any]) -> int:
        """Store requests of client, workers and supervisor for one ``Executor.map`` in a session of its own.

        Other options make another session; workers report their requests with the next heartbeat.
        """
        self._sessions += 1
        with self._starburst.Executor(idle_timeout=60 + self._sessions) as executor:
            list(executor.map(function, items))
            time.sleep(_HEARTBEAT_S)
        return int(executor.requests.total)

    def close(self) -> None:
        self._open.close()


@contextmanager
def local_plan(folder: str, workers: int) -> Iterator[None]:
    """Within it starburst runs on ``workers`` local processes with ``folder`` as its store."""
    import starburst

    with starburst.plan(workers=workers, slots=1, launch_type="LOCAL", store=Path(folder).as_uri()):
        yield


class ProcessPool:
    """``ProcessPoolExecutor`` of the standard library, with the chunksize that people write: none."""

    chunksize = 1

    def __init__(self, *, workers: int) -> None:
        self._executor = ProcessPoolExecutor(workers)

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._executor.map(function, items, chunksize=self.chunksize))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        futures = [self._executor.submit(function, item) for item in items]
        return [future.result() for future in futures]

    def share(self, array: Any) -> Any:
        return array

    def map_shared(self, function: Function, shared: Any, items: Sequence[Any]) -> list[Any]:
        return list(self._executor.map(function, [shared] * len(items), items))

    def close(self) -> None:
        self._executor.shutdown()


class BestProcessPool(ProcessPool):
    """The same with the chunksize that proves best, as an expert would find it by trying."""

    def __init__(self, *, workers: int) -> None:
        super().__init__(workers=workers)
        self._best: dict[tuple[Function, int], int] = {}

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        key = (function, len(items))
        if key not in self._best:
            self._best[key] = min(
                (50, 200, 500, 1_250, 2_500, 5_000), key=lambda n: self._try(function, items, n)
            )
        return list(self._executor.map(function, items, chunksize=self._best[key]))

    def _try(self, function: Function, items: Sequence[Any], chunksize: int) -> float:
        start = time.perf_counter()
        list(self._executor.map(function, items, chunksize=chunksize))
        return time.perf_counter() - start


class JoblibPool:
    """joblib with its default backend (loky), automatic batching and memory-mapping of large arrays."""

    def __init__(self, *, workers: int) -> None:
        import joblib

        self._delayed = joblib.delayed
        self._parallel = joblib.Parallel(n_jobs=workers)
        self._parallel.__enter__()

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._parallel(self._delayed(function)(item) for item in items))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return self.map(function, items)

    def share(self, array: Any) -> Any:
        return array

    def map_shared(self, function: Function, shared: Any, items: Sequence[Any]) -> list[Any]:
        return list(self._parallel(self._delayed(function)(shared, item) for item in items))

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)


class RayPool:
    """A local Ray without dashboard and statistics."""

    def __init__(self, *, workers: int) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_DEDUP_LOGS"] = "0"
        import ray

        self._ray = ray
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2 * 1024**3,
        )
        self._remote: dict[Function, Any] = {}

    def _function(self, function: Function) -> Any:
        return self._remote.setdefault(function, self._ray.remote(function))

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        remote = self._function(function)
        return list(self._ray.get([remote.remote(item) for item in items]))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return self.map(function, items)

    def share(self, array: Any) -> Any:
        return self._ray.put(array)

    def map_shared(self, function: Function, shared: Any, items: Sequence[Any]) -> list[Any]:
        remote = self._function(function)
        return list(self._ray.get([remote.remote(shared, item) for item in items]))

    def close(self) -> None:
        self._ray.shutdown()


class DaskPool:
    """A local dask.distributed cluster of single-threaded processes without dashboard."""

    def __init__(self, *, workers: int) -> None:
        import dask.distributed

        self._cluster = dask.distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        )
        self._client = dask.distributed.Client(self._cluster)

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self._client.gather(self._client.map(function, items, pure=False)))

    def submit(self, function: Function, items: Sequence[Any]) -> list[Any]:
        futures = [self._client.submit(function, item, pure=False) for item in items]
        return list(self._client.gather(futures))

    def share(self, array: Any) -> Any:
        return self._client.scatter(array, broadcast=True)

    def map_shared(self, function: Function, shared: Any, items: Sequence[Any]) -> list[Any]:
        futures = [self._client.submit(function, shared, item, pure=False) for item in items]
        return list(self._client.gather(futures))

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


ALL: dict[str, Callable[..., Any]] = {
    "starburst": StarburstPool,
    "ppe": ProcessPool,
    "ppe-best": BestProcessPool,
    "joblib": JoblibPool,
    "ray": RayPool,
    "dask": DaskPool,
}


@contextmanager
def open_pool(name: str, *, workers: int = 2) -> Iterator[Any]:
    """A pool of ``workers`` processes that is closed at the end, whatever happens."""
    pool = ALL[name](workers=workers)
    try:
        yield pool
    finally:
        pool.close()
