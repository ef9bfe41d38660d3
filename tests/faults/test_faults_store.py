"""A store that errs, stalls, vanishes, or does what was asked and never says so: client and workers run through it."""

import threading

import pytest
from crew import Crew
from fault_tasks import length, slow_square
from s3_proxy import (
    CONFLICT,
    HALF_ANSWER,
    PASS,
    RESET_AFTER,
    RESET_BEFORE,
    SLOW,
    UNAVAILABLE,
    S3Proxy,
    faults_at_first,
)

import starburst
from helpers import eventually
from starburst.client.pool import close_all
from starburst.errors import StoreUnavailable

FAST = {"workers": 2, "lease": 5.0, "idle_timeout": 30, "progress": False}
N = 400
EXPECTED = [i * i for i in range(N)]


@pytest.fixture
def proxy(seaweed, s3_url, monkeypatch):
    with S3Proxy(seaweed.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        yield proxy
        proxy.script = lambda method, path: PASS
        proxy.down.clear()
        close_all()


def run_map(url):
    results = starburst.map(slow_square, range(N), [0.002] * N, store=url, chunksize=20, **FAST)
    crew = Crew.of_only_session(url)
    crew.assert_each_exactly_once()
    return results, crew


def test_the_proxy_passes_everything_on(proxy, s3_url):
    results, _ = run_map(s3_url)
    assert results == EXPECTED
    assert proxy.met[PASS, "PUT"] > 40
    assert {fault for fault, _ in proxy.met} == {PASS}


def test_replies_of_successful_creates_are_lost(proxy, s3_url):
    """Each object's first PUT is done, and its answer never comes: manifest, batch, claims, results, markers …"""

    def script(method, path):
        return lose(method, path) if method == "PUT" else PASS

    lose = faults_at_first(RESET_AFTER)
    proxy.script = script
    results, crew = run_map(s3_url)
    assert results == EXPECTED
    assert proxy.met[RESET_AFTER, "PUT"] >= len(crew.list(crew.keys.prefix))
    assert crew.claimed() == len(crew.run(crew.store.list(crew.keys.done_marks())))
    assert not [event for event in crew.happened() if event == "worker-lost"]


def test_everything_fails_at_first_in_one_way_or_another(proxy, s3_url):
    puts = faults_at_first(UNAVAILABLE, CONFLICT, RESET_BEFORE, RESET_AFTER, SLOW)
    others = faults_at_first(UNAVAILABLE, RESET_BEFORE, RESET_AFTER, SLOW, HALF_ANSWER)
    proxy.script = lambda method, path: (puts if method == "PUT" else others)(method, path)
    results, _ = run_map(s3_url)
    assert results == EXPECTED
    met = {(fault, method) for fault, method in proxy.met if method in ("PUT", "GET")}
    assert met >= {(fault, "PUT") for fault in (UNAVAILABLE, CONFLICT, RESET_BEFORE, RESET_AFTER, SLOW)}
    assert met >= {(fault, "GET") for fault in (UNAVAILABLE, RESET_BEFORE, RESET_AFTER, SLOW, HALF_ANSWER)}


def test_a_third_of_all_requests_fails_all_the_time(proxy, s3_url):
    turn = threading.Lock()
    count = [0]
    faults = (UNAVAILABLE, RESET_AFTER, RESET_BEFORE)

    def script(method, path):
        with turn:
            count[0] += 1
            return faults[count[0] // 3 % 3] if count[0] % 3 == 0 else PASS

    proxy.script = script
    results, _ = run_map(s3_url)
    assert results == EXPECTED


def test_every_request_is_slow(proxy, s3_url):
    proxy.script = lambda method, path: SLOW
    results = starburst.map(slow_square, range(40), [0.0] * 40, store=s3_url, chunksize=10, **FAST)
    assert results == EXPECTED[:40]
    Crew.of_only_session(s3_url).assert_each_exactly_once()


def test_large_objects_through_a_bad_connection(proxy, s3_url):
    data = bytes(range(256)) * 20_000  # stored once as a large object, read by each worker
    gets = faults_at_first(HALF_ANSWER, RESET_AFTER)
    puts = faults_at_first(RESET_AFTER, RESET_BEFORE)
    proxy.script = lambda method, path: (puts if method == "PUT" else gets)(method, path)
    results = starburst.map(length, [data] * 20, range(20), store=s3_url, chunksize=5, **FAST)
    assert results == [len(data) + i for i in range(20)]
    crew = Crew.of_only_session(s3_url)
    assert len(crew.list(f"{crew.keys.prefix}objects/")) == 1
    crew.assert_each_exactly_once()


def test_the_store_is_gone_for_longer_than_a_lease(proxy, s3_url):
    """Nobody can beat meanwhile; workers and client wait, and go on."""
    outcome = []
    thread = threading.Thread(
        target=lambda: outcome.append(
            starburst.map(
                slow_square,
                range(N),
                [0.01] * N,
                store=s3_url,
                workers=2,
                lease=1.5,
                idle_timeout=30,
                progress=False,
            )
        )
    )
    thread.start()
    crew = Crew.of_only_session(s3_url)
    eventually(lambda: crew.claimed() >= 2, what="two chunks are claimed")
    proxy.down.set()
    proxy.stopping.wait(3.0)  # how long the store is gone is the fault itself
    assert proxy.met[RESET_BEFORE, "GET"]
    proxy.down.clear()
    thread.join(60)
    assert outcome == [EXPECTED]
    crew.assert_each_exactly_once()


def test_a_store_that_does_not_come_back_is_an_error_at_the_call(proxy, s3_url):
    proxy.down.set()
    with pytest.raises(StoreUnavailable, match=r"could not create .*manifest"):
        starburst.map(slow_square, range(4), [0.0] * 4, store=s3_url, **FAST)
