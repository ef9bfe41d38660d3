"""The rule of the lost reply, on a store in memory with scripted faults."""

import pytest

from starburst.errors import AccessDenied, ObjectNotFound, StoreUnavailable
from starburst.store import open_store
from starburst.store.retry import RetryingStore
from starburst.testing import Fault, FaultyStore, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def run(clock):
    return clock.run


@pytest.fixture
def faulty(clock):
    return FaultyStore(open_store("memory://"), clock=clock)


@pytest.fixture
def store(faulty, clock):
    return RetryingStore(faulty, clock=clock)


def test_lost_reply_of_our_own_create(run, store, faulty):
    faulty.lose_reply("create", "claims/*", times=3)
    assert run(store.create("claims/1", b"us")) is True
    assert run(store.create("claims/1", b"them")) is False
    assert run(store.get("claims/1")) == b"us"


def test_lost_reply_of_a_lost_create(run, store, faulty):
    run(store.create("claims/1", b"them"))
    faulty.lose_reply("create")
    assert run(store.create("claims/1", b"us")) is False


def test_failure_before_is_tried_again(run, store, faulty):
    faulty.fail("create", times=2)
    faulty.fail("get", times=2)
    faulty.fail("list", times=2)
    faulty.fail("delete", times=2)
    faulty.fail("overwrite", times=2)
    assert run(store.create("k/1", b"x")) is True
    run(store.overwrite("k/2", b"x"))
    assert run(store.get("k/1")) == b"x"
    assert len(run(store.list("k/"))) == 2
    run(store.delete(["k/1", "k/2"]))
    assert faulty.pending_faults == 0
    assert store.counts.retries == 10


def test_tries_are_bounded(run, store, faulty):
    faulty.fail("get", times=100)
    with pytest.raises(StoreUnavailable):
        run(store.get("k"))
    assert faulty.pending_faults == 92


def test_time_is_bounded(run, store, faulty, clock):
    begun_s = clock.monotonic()
    faulty.add("get", "*", Fault(delay_s=40, error=StoreUnavailable("slow")), times=100)
    with pytest.raises(StoreUnavailable):
        run(store.get("k"))
    assert clock.monotonic() - begun_s < 90
    assert faulty.pending_faults == 98


def test_refusals_are_final(run, store, faulty):
    faulty.fail("create", error=AccessDenied("no"))
    with pytest.raises(AccessDenied):
        run(store.create("k", b"x"))
    with pytest.raises(ObjectNotFound):
        run(store.get("k"))
    assert store.counts.retries == 0


def test_script_and_delay(run, clock):
    begun_s, seen = clock.monotonic(), []

    def script(verb, key):
        seen.append((verb, key))
        return Fault(lost_reply=StoreUnavailable("lost")) if verb == "overwrite" else None

    store = FaultyStore(open_store("memory://"), clock=clock, script=script)
    store.delay("get", "w/*", delay_s=30)
    with pytest.raises(StoreUnavailable):
        run(store.overwrite("w/1", b"x"))
    assert run(store.get("w/1")) == b"x"
    assert clock.monotonic() - begun_s == 30
    assert seen == [("overwrite", "w/1")]
