"""The rule of the lost reply, on a store in memory with scripted faults."""

import asyncio

import pytest

from starburst.clock import SystemClock
from starburst.errors import AccessDenied, ObjectNotFound, StoreUnavailable
from starburst.store import open_store
from starburst.store.retry import RetryingStore
from starburst.testing import Fault, FaultyStore


class JumpingClock(SystemClock):
    """A clock that jumps over each pause."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    async def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock():
    return JumpingClock()


@pytest.fixture
def faulty(clock):
    return FaultyStore(open_store("memory://"), clock=clock)


@pytest.fixture
def store(faulty, clock):
    return RetryingStore(faulty, clock=clock)


def run(work):
    return asyncio.run(work)


def test_lost_reply_of_our_own_create(store, faulty):
    faulty.lose_reply("create", "claims/*", times=3)
    assert run(store.create("claims/1", b"us")) is True
    assert run(store.create("claims/1", b"them")) is False
    assert run(store.get("claims/1")) == b"us"


def test_lost_reply_of_a_lost_create(store, faulty):
    run(store.create("claims/1", b"them"))
    faulty.lose_reply("create")
    assert run(store.create("claims/1", b"us")) is False


def test_failure_before_is_tried_again(store, faulty):
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


def test_tries_are_bounded(store, faulty):
    faulty.fail("get", times=100)
    with pytest.raises(StoreUnavailable):
        run(store.get("k"))
    assert faulty.pending_faults == 92


def test_time_is_bounded(store, faulty, clock):
    faulty.add("get", "*", Fault(delay_s=40, error=StoreUnavailable("slow")), times=100)
    with pytest.raises(StoreUnavailable):
        run(store.get("k"))
    assert clock.now_s < 90
    assert faulty.pending_faults == 98


def test_refusals_are_final(store, faulty):
    faulty.fail("create", error=AccessDenied("no"))
    with pytest.raises(AccessDenied):
        run(store.create("k", b"x"))
    with pytest.raises(ObjectNotFound):
        run(store.get("k"))
    assert store.counts.retries == 0


def test_script_and_delay(clock):
    seen = []

    def script(verb, key):
        seen.append((verb, key))
        return Fault(lost_reply=StoreUnavailable("lost")) if verb == "overwrite" else None

    store = FaultyStore(open_store("memory://"), clock=clock, script=script)
    store.delay("get", "w/*", delay_s=30)
    with pytest.raises(StoreUnavailable):
        run(store.overwrite("w/1", b"x"))
    assert run(store.get("w/1")) == b"x"
    assert clock.now_s == 30
    assert seen == [("overwrite", "w/1")]
