"""What type checkers know of the public names; never run, only checked (mypy --strict, in ``make check``)."""

import concurrent.futures
import functools
from collections.abc import Iterable, Iterator
from typing import Any, assert_type

import starburst
from starburst.client.gatherer import TaskFuture
from starburst.client.plan import Plan
from starburst.client.session import Submission
from starburst.client.status import WorkerView
from starburst.options import Options
from starburst.protocol.payload import SharedObject
from starburst.protocol.records import Event
from starburst.store.base import RequestCounts


class Point:
    """A result of a class of its own."""

    def __init__(self, x: float, y: float = 0.0) -> None:
        self.x = x
        self.y = y


def name_of(number: int) -> str:
    return str(number)


def total(a: int, b: float, c: int = 0) -> float:
    return a + b + c


def items() -> Iterator[int]:
    yield 1


def maps() -> None:
    assert_type(starburst.map(name_of, range(10)), list[str])
    assert_type(starburst.map(name_of, items(), workers=4, timeout="90m", progress=False), list[str])
    assert_type(starburst.map(total, [1, 2], (3.0, 4.0)), list[float])
    assert_type(starburst.map(lambda x: str(x) + "!", [1.0]), list[str])
    assert_type(starburst.map(functools.partial(total, b=1.0), [1]), list[float])
    assert_type(starburst.map(Point, [1.0, 2.0]), list[Point])
    assert_type(starburst.map(len, ["a", "b"], chunksize="auto"), list[int])
    assert_type(starburst.map(name_of, [1], chunksize=5, on_error="return", resume="code"), list[str])
    assert_type(starburst.starmap(total, [(1, 2.0), (3, 4.0)]), list[float])
    assert_type(starburst.imap(name_of, items()), Iterator[str])
    assert_type(starburst.imap_unordered(total, items(), items(), on_error="skip"), Iterator[float])
    assert_type(next(starburst.imap(Point, [1.0])).x, float)


def executors() -> None:
    with starburst.Executor(workers=4, cpu=2, memory="8GB") as pool:
        assert_type(pool, starburst.Executor)
        assert_type(pool.session_id, str)
        assert_type(pool.requests, RequestCounts)
        future = pool.submit(total, 1, 2.0, c=3)
        assert_type(future, TaskFuture[float])
        assert_type(future.result(timeout=5), float)
        assert_type(future.exception(), BaseException | None)
        assert_type(future.task_id, str | None)
        assert_type(pool.submit(Point, 1.0).result().y, float)
        assert_type(pool.map(name_of, [1, 2], timeout=60), Iterator[str])
        futures: dict[concurrent.futures.Future[str], int] = {pool.submit(name_of, i): i for i in range(3)}
        for done in concurrent.futures.as_completed(futures):
            assert_type(done.result(), str)
            assert_type(futures[done], int)
    anywhere(pool)


def anywhere(pool: concurrent.futures.Executor) -> concurrent.futures.Future[str]:
    """Code that knows only the standard library takes ours."""
    return pool.submit(name_of, 1)


def sessions() -> None:
    session = starburst.session(workers=50, absolute_timeout="12h")
    assert_type(session, starburst.Session)
    assert_type(session.session_id, str)
    assert_type(session.url, str)
    submission = session.map(name_of, items(), chunksize=10, timeout="5m", retries=2)
    assert_type(submission, Submission)
    assert_type(len(submission), int)
    assert_type(submission.task_ids, list[str])
    assert_type(session.submit(total, 1, 2.0), TaskFuture[float])
    assert_type(session.put([1.0, 2.0]), SharedObject)
    assert_type(session.collect(wait=True, timeout="1h", on_error="skip"), list[Any])
    assert_type(session.results(), Iterator[tuple[str, Any]])
    assert_type(session.requests, RequestCounts)
    session.extend("2h")
    session.extend(7200)
    session.scale(10)
    session.cancel()
    session.cleanup(stop_workers=True, force=True)
    again = starburst.attach("session-20260101-000000-abcdef", store="s3://bucket/prefix")
    assert_type(again, starburst.Session)
    assert_type(starburst.list_sessions(), list[starburst.SessionSummary])
    show(starburst.list_sessions("file:///tmp/store"))


def show(rows: Iterable[starburst.SessionSummary]) -> None:
    for row in rows:
        assert_type((row.session_id, row.kind, row.state, row.url), tuple[str, str, str, str])
        assert_type((row.total, row.pending, row.completed, row.failed), tuple[int, int, int, int])
        assert_type((row.workers, row.created_at), tuple[int, float])


def status(session: starburst.Session) -> None:
    now = session.status()
    assert_type(now, starburst.SessionStatus)
    assert_type((now.session_id, now.kind, now.state, now.launch_type), tuple[str, str, str, str])
    assert_type((now.total, now.pending, now.running, now.completed), tuple[int, int, int, int])
    assert_type((now.failed, now.failed_tasks, now.workers, now.requests), tuple[int, int, int, int])
    assert_type((now.created_at, now.deadline_at), tuple[float, float])
    assert_type(now.events, tuple[Event, ...])
    assert_type(now.worker_list, tuple[WorkerView, ...])
    worker = now.worker_list[0]
    assert_type((worker.worker, worker.state, worker.task), tuple[str, str, str | None])


def plans() -> None:
    starburst.plan(workers=8)
    with starburst.plan(workers=50, launch_type="FARGATE") as inside:
        assert_type(inside, Plan)
        assert_type(inside.options, Options)
    assert_type(starburst.Options(workers=3).seconds("lease"), float)


def failures(error: starburst.StarburstError) -> str:
    assert_type((error.message, error.hint), tuple[str, str | None])
    if isinstance(error, starburst.TaskFailed):
        assert_type((error.task_id, error.index, error.attempt), tuple[str, int, int])
        assert_type((error.worker, error.session_id), tuple[str | None, str])
        assert_type((error.output, error.remote_traceback), tuple[str, str])
        assert_type(error.__cause__, BaseException | None)
    for also in (
        starburst.OptionError("x"),
        starburst.SerializationError("x"),
        starburst.TaskTimeout("x"),
        starburst.CollectTimeout("x"),
    ):
        assert_type(also.hint, str | None)
    value: ValueError = starburst.OptionError("x")
    kind: TypeError = starburst.SerializationError("x")
    times: list[TimeoutError] = [starburst.TaskTimeout("x"), starburst.CollectTimeout("x")]
    return f"{value}{kind}{times}"
