"""Bad input: a clear error at the call, which names the culprit and the way out; nothing started, nothing left."""

import functools
import itertools
import re
import threading

import client_tasks as tasks
import msgspec
import pytest
from places import EVERYWHERE

import starburst
from helpers import eventually
from starburst.client import packing
from starburst.client.connection import Connection
from starburst.client.engine import engine
from starburst.client.plan import current_options
from starburst.protocol.keys import Keys
from starburst.protocol.records import encode_json
from starburst.store import open_store

both_stores = pytest.mark.parametrize("fresh", EVERYWHERE, indirect=True)


@pytest.fixture
def nothing_may_start(fresh):
    """Whatever the test does: no process, no session and no object comes of it."""
    yield fresh
    assert starburst.list_sessions() == []
    store = fresh.data_dir.parent / "store"
    assert [path for path in store.rglob("*") if path.is_file()] == []
    assert not list((fresh.data_dir / "local").glob("*"))
    assert fresh.processes() == []


class Handle:
    """An object that looks harmless and holds something that cannot be sent."""

    def __init__(self):
        self.name = "x"
        self.connection = {"socket": threading.Lock()}


LOCK = threading.Lock()
HANDLE = Handle()


def uses_lock(x):
    return LOCK, x


def lock_default(x, lock=LOCK):
    return x


def endless():
    while True:
        yield 1


def breaks():
    yield 1
    raise RuntimeError("the source broke")


async def coroutine(x):
    return x


async def stream(x):
    yield x


class Refuses:
    def __reduce__(self):
        raise ValueError("not today")


def local_closure():
    handle = HANDLE

    def work(x):
        return handle, x

    return work


def in_main(name, value):
    namespace = {"__name__": "__main__", name: value}
    exec(f"def work(x):\n    return {name}, x", namespace)
    return namespace["work"]


def m(*args, **options):
    return lambda: starburst.map(*args, **options)


def each(iterator):
    return list(iterator)


ONE = [1, 2]
OPTION, PICKLE = starburst.OptionError, starburst.SerializationError
ROWS = {
    # how many workers, slots, tries
    "no workers": (m(tasks.square, ONE, workers=0), OPTION, "workers=0", "at least 1"),
    "negative workers": (m(tasks.square, ONE, workers=-3), OPTION, "workers=-3", "at least 1"),
    "too many workers": (m(tasks.square, ONE, workers=501), OPTION, "workers=501", "500", "quota"),
    "workers as text": (m(tasks.square, ONE, workers="4"), OPTION, "workers='4'", "whole number"),
    "workers as a fraction": (m(tasks.square, ONE, workers=1.5), OPTION, "workers=1.5", "whole number"),
    "workers as a truth": (m(tasks.square, ONE, workers=True), OPTION, "workers=True", "whole number"),
    "no slots": (m(tasks.square, ONE, slots=0), OPTION, "slots=0"),
    "too many slots": (m(tasks.square, ONE, slots=1000), OPTION, "slots=1000", "256"),
    "negative retries": (m(tasks.square, ONE, retries=-1), OPTION, "retries=-1"),
    "no attempts": (m(tasks.square, ONE, max_attempts=0), OPTION, "max_attempts=0"),
    # times and sizes
    "timeout of nothing": (m(tasks.square, ONE, timeout=0), OPTION, "timeout=0", "90m"),
    "negative timeout": (m(tasks.square, ONE, timeout=-1), OPTION, "timeout=-1"),
    "timeout that is no time": (m(tasks.square, ONE, timeout="soon"), OPTION, "timeout='soon'", "90m"),
    "timeout that is no number": (m(tasks.square, ONE, timeout=float("nan")), OPTION, "timeout=nan"),
    "endless timeout": (m(tasks.square, ONE, timeout=float("inf")), OPTION, "timeout=inf"),
    "idle_timeout": (m(tasks.square, ONE, idle_timeout="1 week"), OPTION, "idle_timeout='1 week'"),
    "absolute_timeout": (m(tasks.square, ONE, absolute_timeout=[1]), OPTION, "absolute_timeout=[1]"),
    "session_timeout": (m(tasks.square, ONE, session_timeout=0), OPTION, "session_timeout=0"),
    "lease": (m(tasks.square, ONE, lease="none"), OPTION, "lease='none'"),
    "memory": (m(tasks.square, ONE, memory="lots"), OPTION, "memory='lots'", "8GB"),
    "cpu": (m(tasks.square, ONE, cpu=0), OPTION, "cpu=0", "0.25"),
    # the names of options
    "a misspelt option": (
        m(tasks.square, ONE, worker=3),
        OPTION,
        "'worker'",
        "did you mean 'workers'",
        "slots",
    ),
    "a misspelt parameter": (m(tasks.square, ONE, chunk_size=3), OPTION, "'chunk_size'", "'chunksize'"),
    "another misspelt one": (m(tasks.square, ONE, on_errors="skip"), OPTION, "'on_errors'", "'on_error'"),
    "an argument of the function": (m(tasks.add, ONE, ONE, c=5), OPTION, "'c'", "functools.partial"),
    "an option that imap has not": (
        lambda: starburst.imap(tasks.square, ONE, chunksize=3),
        OPTION,
        "'chunksize'",
        "valid names",
    ),
    "an option of plan": (lambda: starburst.plan(wokers=3), OPTION, "'wokers'", "'workers'"),
    "an option of Executor": (lambda: starburst.Executor(worker=3), OPTION, "'worker'", "'workers'"),
    "an option of session": (lambda: starburst.session(wrokers=3), OPTION, "'wrokers'", "'workers'"),
    # words
    "on_error": (m(tasks.square, ONE, on_error="ignore"), OPTION, "on_error='ignore'", '"skip"'),
    "on_error of imap": (lambda: starburst.imap(tasks.square, ONE, on_error=None), OPTION, "on_error=None"),
    "on_error of starmap": (lambda: starburst.starmap(tasks.add, [(1, 2)], on_error=1), OPTION, "on_error=1"),
    "chunksize of nothing": (m(tasks.square, ONE, chunksize=0), OPTION, "chunksize=0", '"auto"'),
    "chunksize as text": (m(tasks.square, ONE, chunksize="big"), OPTION, "chunksize='big'"),
    "chunksize as a fraction": (m(tasks.square, ONE, chunksize=2.0), OPTION, "chunksize=2.0"),
    "resume": (m(tasks.square, ONE, resume="always"), OPTION, "resume='always'", '"code"'),
    "resume as a number": (m(tasks.square, ONE, resume=2), OPTION, "resume=2"),
    "launch_type": (m(tasks.square, ONE, launch_type="LOKAL"), starburst.StarburstError, "LOKAL", "LOCAL"),
    "launch_type that is no text": (m(tasks.square, ONE, launch_type=3), OPTION, "launch_type=3", "LOCAL"),
    # functions
    "no function": (m(None, ONE), OPTION, "NoneType", "not a function"),
    "a called function": (m(tasks.square(2), ONE), OPTION, "int", "without calling it"),
    "arguments the wrong way round": (m(ONE, tasks.square), OPTION, "list", "not a function"),
    "no function for imap": (lambda: starburst.imap("square", ONE), OPTION, "str", "not a function"),
    "no function for starmap": (lambda: starburst.starmap(5, [(1,)]), OPTION, "int", "not a function"),
    "an async function": (m(coroutine, ONE), OPTION, "coroutine is an async function", "asyncio.run"),
    "an async function in a partial": (
        m(functools.partial(coroutine, 1), ONE),
        OPTION,
        "coroutine is an async function",
    ),
    "a generator function": (m(endless, ONE), OPTION, "endless is a generator function", "list"),
    "an async generator function": (lambda: starburst.imap(stream, ONE), OPTION, "stream is a generator"),
    # iterables
    "no iterable": (m(tasks.square), OPTION, "at least one iterable"),
    "a number for an iterable": (m(tasks.square, 10), OPTION, "argument 2", "int", "range"),
    "the second iterable": (m(tasks.add, ONE, None), OPTION, "argument 3", "NoneType"),
    "a number for imap": (lambda: starburst.imap(tasks.square, 10), OPTION, "argument 2", "int"),
    "no iterable for imap": (lambda: starburst.imap(tasks.square), OPTION, "at least one iterable"),
    "endless count": (m(tasks.square, itertools.count()), OPTION, "endless", "imap"),
    "endless cycle": (m(tasks.square, itertools.cycle([1])), OPTION, "endless", "imap"),
    "endless repeat": (m(tasks.square, itertools.repeat(1)), OPTION, "endless", "imap"),
    "all endless": (m(tasks.add, itertools.count(), itertools.repeat(1)), OPTION, "endless", "imap"),
    "endless generator": (m(tasks.square, endless()), OPTION, "more than", "imap"),
    "endless generators": (m(tasks.add, endless(), endless()), OPTION, "more than", "imap"),
    "more items than one call may have": (m(tasks.square, range(10**30)), OPTION, "10,000,000", "imap"),
    "an async generator": (m(tasks.square, stream(1)), OPTION, "argument 2", "async_generator"),
    "a generator that raises": (
        lambda: starburst.map(tasks.square, breaks()),
        RuntimeError,
        "the source broke",
    ),
    "a generator that raises for imap": (
        lambda: each(starburst.imap(tasks.square, breaks())),
        RuntimeError,
        "the source broke",
    ),
    "rows that are no rows": (lambda: starburst.starmap(tasks.square, [(1,), 2]), OPTION, "row 1", "int"),
    "rows of text": (
        lambda: starburst.starmap(tasks.square, ["ab"]),
        OPTION,
        "row 0",
        "str",
        "starburst.map",
    ),
    # what cannot be pickled
    "a global": (m(in_main("gate", LOCK), ONE), PICKLE, "work", "global variable 'gate'", "lock"),
    "an attribute of a global": (
        m(in_main("client", HANDLE), ONE),
        PICKLE,
        "global variable 'client'",
        "'connection'",
        "'socket'",
        "lock",
    ),
    "a closed-over object": (
        m(local_closure(), ONE),
        PICKLE,
        "closed-over variable 'handle'",
        "'connection'",
    ),
    "a bound method": (m(HANDLE.__init__, ONE), PICKLE, "'connection'", "lock"),
    "a partial": (m(functools.partial(tasks.add, LOCK), ONE), PICKLE, "argument 0", "lock"),
    "an argument": (m(tasks.square, [1, LOCK]), PICKLE, "task 1", "argument 0", "lock"),
    "a part of an argument": (m(tasks.add, ONE, [1, HANDLE]), PICKLE, "task 1", "argument 1", "'connection'"),
    "a generator as an argument": (m(tasks.square, [(x for x in ONE)]), PICKLE, "task 0", "generator"),
    "an argument that refuses": (m(tasks.square, [Refuses()]), PICKLE, "task 0", "Refuses", "not today"),
    "an argument of starmap": (
        lambda: starburst.starmap(tasks.add, [(1, 2), (1, LOCK)]),
        PICKLE,
        "task 1",
        "argument 1",
        "lock",
    ),
    "a function for imap": (
        lambda: each(starburst.imap(in_main("gate", LOCK), ONE)),
        PICKLE,
        "global variable 'gate'",
    ),
    "an argument of imap": (lambda: each(starburst.imap(tasks.square, [1, LOCK])), PICKLE, "lock"),
    "a function to resume": (m(in_main("gate", LOCK), ONE, resume=True), PICKLE, "gate", "lock"),
    "an argument to resume": (m(tasks.square, [LOCK], resume=True), PICKLE, "lock"),
    # stores
    "a store of an unknown kind": (m(tasks.square, ONE, store="ftp://x"), starburst.InvalidStoreURL, "ftp"),
    "a store that is no address": (
        m(tasks.square, ONE, store="my bucket"),
        starburst.InvalidStoreURL,
        "my bucket",
    ),
    "a store that is no text": (m(tasks.square, ONE, store=5), OPTION, "store=5"),
    "a memory store": (m(tasks.square, ONE, store="memory://"), starburst.StarburstError, "memory"),
    "a bucket without a name": (m(tasks.square, ONE, store="s3://"), starburst.InvalidStoreURL, "s3://"),
    "a path for a store": (
        m(tasks.square, ONE, store="/data/store"),
        starburst.InvalidStoreURL,
        "has no scheme",
        "file:///data/store",
    ),
    "a machine for a store": (
        m(tasks.square, ONE, store="file://data/store"),
        starburst.InvalidStoreURL,
        "'data'",
        "three slashes",
    ),
    "a bucket that cannot be one": (
        m(tasks.square, ONE, store="s3://My_Bucket/x"),
        starburst.InvalidStoreURL,
        "'My_Bucket'",
        "small letters",
    ),
    "a store that cannot be listed": (
        lambda: starburst.list_sessions("ftp://x"),
        starburst.InvalidStoreURL,
        "ftp",
    ),
    "a store to list that is no text": (lambda: starburst.list_sessions(5), OPTION, "store=5", "file:///"),
    # other calls than map
    "no workers for Executor": (lambda: starburst.Executor(workers=0), OPTION, "workers=0", "at least 1"),
    "too many workers for session": (lambda: starburst.session(workers=501), OPTION, "workers=501", "quota"),
    "too little time for session": (lambda: starburst.session(lease=0), OPTION, "lease=0"),
    "no workers planned": (lambda: starburst.plan(workers=0), OPTION, "workers=0", "at least 1"),
    "no store planned": (lambda: starburst.plan(store=3), OPTION, "store=3"),
    # sessions
    "a store to attach from that is no text": (lambda: starburst.attach("session-1", store=5), OPTION, "=5"),
    "a session's address of an unknown kind": (
        lambda: starburst.attach("http://x/sessions/session-1"),
        starburst.InvalidStoreURL,
        "http://x",
    ),
    "no such session": (
        lambda: starburst.attach("session-20200101-000000-abcdef"),
        starburst.SessionNotFound,
        "session-20200101-000000-abcdef",
        "starburst sessions",
    ),
    "a session id that is no text": (lambda: starburst.attach(5), OPTION, "5"),
    "an empty session id": (lambda: starburst.attach(""), starburst.StarburstError, "''"),
    "a session id with a slash": (lambda: starburst.attach("../x"), starburst.StarburstError, "../x"),
}


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(name, nothing_may_start, monkeypatch):
    call, kind, *words = ROWS[name]
    if "endless generator" in name:
        monkeypatch.setattr(packing, "MAX_TASKS", 1000)  # the real limit takes seconds to reach
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize("fn", [starburst.map, starburst.imap, starburst.imap_unordered, starburst.starmap])
def test_every_call_lists_the_names_that_are_valid(fn, nothing_may_start):
    with pytest.raises(starburst.OptionError) as caught:
        fn(tasks.square, ONE, colour="red")
    for name in ("workers", "slots", "timeout", "retries", "on_error", "progress"):
        assert re.search(rf"\b{name}\b", str(caught.value)), name


def test_errors_of_options_are_value_errors_and_errors_of_pickling_type_errors():
    assert issubclass(starburst.OptionError, ValueError)
    assert issubclass(starburst.SerializationError, TypeError)


def test_an_executor_takes_no_bad_calls_and_goes_on(fresh):
    with starburst.Executor(progress=False) as pool:
        for call, kind in (
            (lambda: pool.submit(5), starburst.OptionError),
            (lambda: pool.submit(coroutine, 1), starburst.OptionError),
            (lambda: pool.map(endless, ONE), starburst.OptionError),
            (lambda: pool.submit(uses_lock_in_main(), 1), starburst.SerializationError),
            (lambda: pool.submit(tasks.square, LOCK), starburst.SerializationError),
            (lambda: pool.submit(tasks.add, a=1, b=HANDLE), starburst.SerializationError),
            (lambda: pool.map(tasks.square), starburst.OptionError),
            (lambda: pool.map(tasks.square, 5), starburst.OptionError),
            (lambda: pool.map(tasks.square, [LOCK]), starburst.SerializationError),
            (lambda: pool.map(tasks.square, ONE, chunksize=0), ValueError),
            (lambda: pool.map(tasks.square, itertools.count()), starburst.OptionError),
        ):
            with pytest.raises(kind):
                call()
        assert fresh.processes() == []
        assert pool.submit(tasks.square, 3).result() == 9
        [session] = starburst.list_sessions()
        assert session.total == 1


def uses_lock_in_main():
    return in_main("gate", LOCK)


def test_a_keyword_argument_that_cannot_be_pickled_is_named(fresh):
    with starburst.Executor(progress=False) as pool, pytest.raises(starburst.SerializationError) as caught:
        pool.submit(tasks.add, 1, b=HANDLE)
    assert "argument 'b'" in str(caught.value)
    assert "'connection'" in str(caught.value)


def test_a_session_takes_no_bad_calls_and_goes_on(fresh):
    session = starburst.session(workers=1)
    for call, kind in (
        (lambda: session.map(5, ONE), starburst.OptionError),
        (lambda: session.map(tasks.square), starburst.OptionError),
        (lambda: session.map(tasks.square, itertools.count()), starburst.OptionError),
        (lambda: session.map(tasks.square, [LOCK]), starburst.SerializationError),
        (lambda: session.map(tasks.square, ONE, timeout="soon"), starburst.OptionError),
        (lambda: session.map(tasks.square, ONE, retries=-1), starburst.OptionError),
        (lambda: session.map(tasks.square, ONE, chunksize=0), starburst.OptionError),
        (lambda: session.submit(tasks.square, LOCK), starburst.SerializationError),
        (lambda: session.submit("f"), starburst.OptionError),
        (lambda: session.put(LOCK), starburst.SerializationError),
        (lambda: session.collect(on_error="x"), starburst.OptionError),
        (lambda: session.submit(coroutine, 1), starburst.OptionError),
        (lambda: session.map(endless, ONE), starburst.OptionError),
        (lambda: session.collect(timeout=-1), starburst.OptionError),
        (lambda: session.collect(timeout="soon"), starburst.OptionError),
        (lambda: session.extend("soon"), starburst.OptionError),
        (lambda: session.extend(-5), starburst.OptionError),
        (lambda: session.extend(float("nan")), starburst.OptionError),
        (lambda: session.scale(0), starburst.OptionError),
        (lambda: session.scale(501), starburst.OptionError),
        (lambda: session.scale(True), starburst.OptionError),
        (lambda: session.scale("4"), starburst.OptionError),
    ):
        with pytest.raises(kind):
            call()
    assert session.status().total == 0
    assert fresh.processes() == []
    assert [row.total for row in starburst.list_sessions()] == [0]
    session.cleanup(force=True)
    assert starburst.list_sessions() == []


def test_empty_input_starts_nothing(nothing_may_start):
    assert starburst.map(tasks.square, []) == []
    assert starburst.map(tasks.square, [], resume=True) == []
    assert starburst.starmap(tasks.square, []) == []
    assert list(starburst.imap(tasks.square, [])) == []
    assert list(starburst.imap_unordered(tasks.square, iter(()))) == []


@both_stores
def test_near_session_ids_are_listed(fresh):
    first = starburst.session(workers=1)
    second = starburst.session(workers=1)
    typo = first.session_id[:-1] + ("0" if first.session_id[-1] != "0" else "1")
    with pytest.raises(starburst.SessionNotFound) as caught:
        starburst.attach(typo)
    assert first.session_id in str(caught.value)
    assert "did you mean" in str(caught.value)
    with pytest.raises(starburst.SessionNotFound) as caught:
        starburst.attach(second.session_id[-6:])
    assert second.session_id in str(caught.value)
    assert typo not in [row.session_id for row in starburst.list_sessions()]
    assert fresh.processes() == []


def test_a_folder_that_cannot_be_written(fresh, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for call in (
        lambda: starburst.map(tasks.square, ONE, store=(blocked / "store").as_uri()),
        lambda: starburst.Executor(store=(blocked / "store").as_uri()),
        lambda: starburst.session(store=(blocked / "store").as_uri()),
        lambda: next(starburst.imap(tasks.square, ONE, store=(blocked / "store").as_uri())),
    ):
        with pytest.raises(starburst.InvalidStoreURL) as caught:
            call()
        assert str(blocked) in str(caught.value)
        assert "file:///" in caught.value.hint
    assert fresh.processes() == []


def test_a_folder_without_permission(fresh):
    with pytest.raises(starburst.InvalidStoreURL) as caught:  # there not even the superuser may write
        starburst.map(tasks.square, ONE, store="file:///proc/self/store")
    assert "/proc/self/store" in str(caught.value)
    assert fresh.processes() == []


def test_a_bucket_that_is_not_there(seaweed, s3_url, fresh):
    with pytest.raises(starburst.StoreError) as caught:
        starburst.map(tasks.square, ONE, store="s3://no-such-bucket-here/x")
    assert "no-such-bucket-here" in str(caught.value)
    assert caught.value.hint
    assert fresh.processes() == []


@pytest.mark.this_machine  # elsewhere there are some; tests/cloud_faults has what can be wrong with those
def test_a_bucket_without_credentials(nothing_may_start):
    with pytest.raises(starburst.AccessDenied, match="no AWS credentials") as caught:
        starburst.map(tasks.square, ONE, store="s3://some-bucket/x")
    assert "aws configure" in caught.value.hint


@pytest.mark.this_machine
def test_wrong_credentials(seaweed, s3_url, fresh, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(starburst.StoreError) as caught:
        starburst.map(tasks.square, ONE, store=s3_url)
    assert isinstance(caught.value, starburst.AccessDenied)
    assert caught.value.hint
    assert fresh.processes() == []


def write_manifest_of_another_python(place, kind="session"):
    """A session as Python 3.99 would have made it."""

    async def write():
        connection = await Connection.create(current_options({}), kind)
        manifest = connection.manifest
        environment = msgspec.structs.replace(manifest.environment, python="3.99")
        changed = msgspec.structs.replace(manifest, environment=environment)
        await connection.store.overwrite(connection.keys.manifest, encode_json(changed))
        return manifest.session_id

    return engine.run(write())


@both_stores
def test_submitting_to_a_session_of_another_python_is_refused(fresh):
    session = starburst.attach(write_manifest_of_another_python(fresh))
    for call in (
        lambda: session.map(tasks.square, ONE),
        lambda: session.submit(tasks.square, 1).result(timeout=30),
    ):
        with pytest.raises(starburst.IncompatibleVersion) as caught:
            call()
        assert "3.99" in str(caught.value)
        assert "submit from Python 3.99" in caught.value.hint
    assert session.status().total == 0
    assert session.collect() == []
    assert fresh.processes() == []


@both_stores
def test_workers_of_another_python_refuse_and_the_caller_learns_why(fresh, monkeypatch):
    session_id = write_manifest_of_another_python(fresh)
    monkeypatch.setattr(Connection, "check_python", lambda self: None)  # as if this were Python 3.99
    session = starburst.attach(session_id)
    session.map(tasks.square, ONE)
    with pytest.raises(starburst.SessionEnded) as caught:
        session.collect(timeout=60)
    assert "3.99" in str(caught.value)
    assert "pickled functions do not pass" in str(caught.value)
    status = session.status()
    assert status.state == "failed"
    assert "3.99" in status.reason
    assert {worker.state for worker in status.worker_list} == {"refused"}


def test_a_manifest_of_a_newer_protocol_is_refused(fresh):
    session = starburst.session(workers=1)
    store = open_store(fresh.url)
    key = Keys(session.session_id).manifest
    newer = bytes(engine.run(store.get(key))).replace(b'"v": 1', b'"v": 99')
    assert b'"v": 99' in newer
    engine.run(store.overwrite(key, newer))
    with pytest.raises(starburst.IncompatibleVersion) as caught:
        starburst.attach(session.session_id)
    assert "99" in str(caught.value)
    assert "upgrade" in caught.value.hint


def test_wrong_settings_are_told_with_their_place(fresh, monkeypatch):
    monkeypatch.setenv("STARBURST_WORKERS", "many")
    with pytest.raises(starburst.ConfigError) as caught:
        starburst.map(tasks.square, ONE)
    assert "STARBURST_WORKERS" in str(caught.value)
    monkeypatch.setenv("STARBURST_WORKERS", "0")
    with pytest.raises(starburst.ConfigError) as caught:
        starburst.map(tasks.square, ONE)
    assert "STARBURST_WORKERS" in str(caught.value)
    monkeypatch.setenv("STARBURST_WORKERS", "2")
    assert fresh.processes() == []


def test_a_plan_that_is_wrong_changes_nothing(nothing_may_start):
    with starburst.plan(workers=3):
        for wrong in ({"workers": 0}, {"slots": 2, "colour": "red"}, {"slots": 2, "timeout": "soon"}):
            with pytest.raises(starburst.OptionError):
                starburst.plan(**wrong)
        assert (current_options({}).workers, current_options({}).slots) == (3, 1)


REFUSED_WHEN_CLOSED = {
    "map": lambda session: session.map(tasks.square, ONE),
    "submit": lambda session: session.submit(tasks.square, 1),
}
REFUSED_WHEN_REMOVED = {
    **REFUSED_WHEN_CLOSED,
    "collect": lambda session: session.collect(),
    "results": lambda session: list(session.results()),
    "status": lambda session: session.status(),
    "put": lambda session: session.put([1]),
    "scale": lambda session: session.scale(2),
    "extend": lambda session: session.extend(60),
    "cancel": lambda session: session.cancel(),
    "cleanup": lambda session: session.cleanup(),
    "attach": lambda session: starburst.attach(session.session_id),
}


@both_stores
def test_a_closed_session_takes_no_work_and_gives_its_results(fresh):
    session = starburst.session(workers=1)
    session.map(tasks.square, [1, 2, 3])
    assert session.collect(timeout=60) == [1, 4, 9]
    elsewhere = starburst.attach(session.session_id)
    session.cleanup()
    for each_session in (session, elsewhere, starburst.attach(session.session_id)):
        for call in REFUSED_WHEN_CLOSED.values():
            with pytest.raises(starburst.SessionEnded) as caught:
                call(each_session)
            assert session.session_id in str(caught.value)
            assert "it was closed" in str(caught.value)
            assert "starburst collect" in caught.value.hint
        assert each_session.collect() == [1, 4, 9]
        assert each_session.status().total == 3
    assert fresh.processes() == []


@both_stores
def test_a_removed_session_is_not_there_for_anybody(fresh):
    session = starburst.session(workers=1)
    session.map(tasks.square, [1])
    assert session.collect(timeout=60) == [1]
    elsewhere = starburst.attach(session.session_id)
    session.cleanup(force=True)
    for each_session in (session, elsewhere):
        for name, call in REFUSED_WHEN_REMOVED.items():
            with pytest.raises(starburst.SessionNotFound) as caught:
                call(each_session)
            assert session.session_id in str(caught.value), name
            assert caught.value.hint
        each_session.cleanup(force=True)  # that it is gone is what was asked for
    assert starburst.list_sessions() == []
    assert engine.run(open_store(fresh.url).list("sessions/")) == []
    assert fresh.processes() == []


def test_who_waits_for_a_session_that_another_removes_is_told(fresh, tmp_path):
    session = starburst.session(workers=1)
    session.map(tasks.started_then_wait, [str(tmp_path / "mark")], [str(tmp_path / "never")])
    elsewhere = starburst.attach(session.session_id)
    found = []
    waiting = threading.Thread(target=lambda: found.append(raised_by(elsewhere.collect)))
    waiting.start()
    eventually((tmp_path / "mark").exists, what="the start of the task")
    session.cleanup(force=True)
    waiting.join(timeout=30)
    assert isinstance(found[0], starburst.SessionError)
    assert session.session_id in str(found[0])
    assert starburst.list_sessions() == []


def raised_by(call):
    try:
        call()
    except Exception as error:
        return error
    return None


def test_submitting_asks_the_store_now_and_then_and_not_each_time(fresh):
    session = starburst.session(workers=1)
    before = session.requests.total
    futures = [session.submit(tasks.square, i) for i in range(2000)]
    assert session.requests.total - before < 1000
    assert [future.result(timeout=60) for future in futures] == [i * i for i in range(2000)]
