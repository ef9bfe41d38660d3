"""Objects that are truncated, changed or replaced: an error that names them, and everything else goes on."""

import functools
import os
import signal

import pytest
from crew import Crew, submit_only
from fault_tasks import length, slow_square, square, square_behind_gate

import starburst
from helpers import eventually
from starburst.errors import CorruptObject, TaskFailed
from starburst.protocol.claims import first_claim
from starburst.protocol.keys import ChunkId
from starburst.protocol.records import encode_json
from starburst.protocol.results import Run, encode_result

N, CHUNK = 60, 10
EXPECTED = [i * i for i in range(N)]


def truncated(body):
    return body[: len(body) // 2]


def emptied(body):
    return b""


def changed_at_the_end(body):
    end = len(body.rstrip(b"\0")) - 1  # what fills up the last frame means nothing
    return body[:end] + bytes([body[end] ^ 1]) + body[end + 1 :]


def changed_at_the_start(body):
    return body[:9] + bytes([body[9] ^ 1]) + body[10:]


def replaced(body):
    return b"\x80\x04N." * (len(body) // 4 + 1)


DAMAGES = (truncated, emptied, changed_at_the_end, changed_at_the_start, replaced)
# JSON has no checksum: a changed digit may be a good record, so these break its form.
DAMAGES_TO_JSON = (truncated, emptied, replaced, lambda body: b"x" + body, lambda body: body[:-1] + b"x")


@pytest.fixture
def session(store_url):
    session = starburst.session(store=store_url, workers=2, lease=1.0, idle_timeout=30)
    yield session
    session.cleanup(force=True)


@pytest.fixture
def crew(session, store_url):
    return Crew(store_url, session.session_id)


def hurt(crew, key, damage):
    crew.overwrite(key, damage(crew.get(key)))


def assert_names(result, key):
    assert isinstance(result, TaskFailed)
    assert key in str(result)
    assert "modules" not in str(result)  # the advice for code that is missing would mislead


def test_results(session, crew):
    """Five of six chunks have a damaged result, each in another way."""
    session.map(square, range(N), chunksize=CHUNK)
    assert session.collect(timeout=30) == EXPECTED
    first_link = {key: crew.keys.parse_result(key)[1] for key in crew.flushed()}
    spared = max(first_link, key=first_link.get)
    covered = {}
    for i, (key, (header, _)) in enumerate(crew.links().items()):
        if key != spared:
            hurt(crew, key, DAMAGES[i % 5])
            covered.update(dict.fromkeys(range(header.first, header.first + header.count), key))
    assert len(covered) >= N - CHUNK
    results = session.collect(on_error="return", timeout=30)
    assert len(results) == N
    for i, result in enumerate(results):
        if i in covered:
            assert_names(result, covered[i])
        else:
            assert result == i * i
    good = [i * i for i in range(N) if i not in covered]
    assert session.collect(on_error="skip", timeout=30) == good
    with pytest.raises(TaskFailed, match=covered[0]) as caught:
        session.collect(timeout=30)
    assert isinstance(caught.value.__cause__, CorruptObject)
    again = starburst.attach(session.session_id, store=crew.url)  # and from elsewhere
    assert again.collect(on_error="skip", timeout=30) == good


def test_results_of_a_worker_that_is_lost(session, crew):
    """How far the chunk's results go cannot be known any more, and its holder does not know it either."""
    submit_only(session, square, range(N), chunksize=CHUNK)
    run = Run()
    run.add_values([0, 1, 4])
    damaged = {}
    for i, damage in enumerate((truncated, emptied, changed_at_the_start, replaced)):
        chunk = ChunkId(1, CHUNK * i)
        crew.overwrite(crew.keys.claim(chunk, 1), encode_json(first_claim("w-lost", chunk.first, 0.0)))
        body = encode_result(run, first=chunk.first, worker="w-lost", attempt=1, compress=False)
        damaged[chunk.first] = crew.keys.result(chunk, chunk.first)
        crew.overwrite(damaged[chunk.first], damage(b"".join(body)))
    results = session.collect(on_error="return", timeout=40)
    for i in range(4 * CHUNK):
        assert_names(results[i], damaged[i // CHUNK * CHUNK])
    assert results[4 * CHUNK :] == EXPECTED[4 * CHUNK :]
    status = session.status()
    assert (status.completed, status.failed) == (2 * CHUNK, 4 * CHUNK)


def test_arguments_of_chunks(session, crew):
    for _ in range(2):
        data = [os.urandom(1000) for _ in range(N)]
        submit_only(session, length, data, range(N), chunksize=CHUNK)
    first, second = crew.list(crew.keys.batches)
    hurt(crew, first, changed_at_the_end)
    hurt(crew, second, truncated)
    results = session.collect(on_error="return", timeout=30)
    good = [1000 + i for i in range(N)]
    assert results[: N - CHUNK] == good[: N - CHUNK]
    for result in results[N - CHUNK : N]:
        assert_names(result, first)
    assert results[N : N + CHUNK] == good[:CHUNK]  # the half that is there has whole chunks
    for result in results[-CHUNK:]:
        assert_names(result, second)
    crew.assert_each_exactly_once()


def test_submissions(session, crew):
    """The others of the session are not touched, whether they came before or after."""
    damages = (truncated, emptied, changed_at_the_start, replaced)
    for _ in range(len(damages) + 1):
        submit_only(session, square, range(N), chunksize=CHUNK)
    *bad, _ = crew.list(crew.keys.batches)
    # Cut within the header: with the header whole it is its chunks that are damaged, see above.
    for key, damage in zip(bad, (lambda body: body[:100], *damages[1:]), strict=True):
        hurt(crew, key, damage)
    assert session.collect(on_error="return", timeout=30) == EXPECTED
    with pytest.raises(CorruptObject, match=bad[0]):
        session.collect(timeout=30)
    assert session.status().completed == N
    told = "\n".join(event.data["error"] for event in crew.events() if event.what == "damaged")
    assert all(key in told for key in bad)
    session.map(square, range(5))  # it takes further work, too
    assert session.collect(on_error="return", timeout=30) == EXPECTED + EXPECTED[:5]


def test_functions(session, crew):
    for i in range(len(DAMAGES)):
        submit_only(session, functools.partial(length, "x" * i), range(5), chunksize=5)
    submit_only(session, square, range(5), chunksize=5)
    headers = crew.batches()
    keys = [crew.keys.function(headers[seq].function) for seq in sorted(headers)]
    for key, damage in zip(keys[:-1], DAMAGES, strict=True):
        hurt(crew, key, damage)
    results = session.collect(on_error="return", timeout=30)
    for i, result in enumerate(results[:-5]):
        assert_names(result, keys[i // 5])
    assert results[-5:] == EXPECTED[:5]
    crew.assert_each_exactly_once()


def test_large_objects(session, crew):
    keys = []
    for _ in range(len(DAMAGES) + 1):
        shared = session.put(os.urandom(1_100_000))
        keys.append(crew.keys.object(shared.sha256))
        submit_only(session, length, [shared] * 5, range(5), chunksize=5)
    for key, damage in zip(keys[:-1], DAMAGES, strict=True):
        hurt(crew, key, damage)
    results = session.collect(on_error="return", timeout=30)
    for i, result in enumerate(results[:-5]):
        assert_names(result, keys[i // 5].removeprefix(crew.keys.prefix))
    assert results[-5:] == [1_100_000 + i for i in range(5)]


def test_claims_of_a_worker_that_is_lost(session, crew):
    """Nobody can read who holds the chunks: others get them after a lease, and all results are right."""
    submit_only(session, square, range(N), chunksize=CHUNK)
    for i, damage in enumerate(DAMAGES_TO_JSON):
        body = encode_json(first_claim("w-lost", CHUNK * i, 0.0))
        crew.overwrite(crew.keys.claim(ChunkId(1, CHUNK * i), 1), damage(body))
    assert session.collect(timeout=40) == EXPECTED
    crew.assert_each_exactly_once()


def test_claims_of_workers_that_are_alive(session, crew, tmp_path):
    """Others may take the chunks over, though their holders are at work: still one result for each task."""
    gate = tmp_path / "gate"
    session.map(square_behind_gate, range(N), [str(gate)] * N, chunksize=CHUNK)
    eventually(lambda: crew.claimed() >= 3, what="claims")
    for key in crew.list(crew.keys.claims(1)):
        hurt(crew, key, truncated)
    gate.touch()
    assert session.collect(timeout=40) == EXPECTED
    crew.assert_each_exactly_once()


def test_heartbeats(session, crew, tmp_path):
    gate = tmp_path / "gate"
    session.map(square_behind_gate, range(N), [str(gate)] * N, chunksize=CHUNK)
    eventually(lambda: len(crew.list(crew.keys.workers)) == 2, what="both workers beat")
    victim = crew.alive("w-")[0]
    os.kill(victim.pid, signal.SIGKILL)
    hurt(crew, crew.keys.worker(victim.worker), truncated)
    crew.overwrite(crew.keys.worker("w-nobody"), b"\0\1\2")
    status = session.status()
    assert status.total == N
    assert "w-nobody" not in [view.worker for view in status.worker_list]
    gate.touch()
    assert session.collect(timeout=40) == EXPECTED
    crew.assert_each_exactly_once()


def test_events(session, crew):
    """Workers, supervisor and clients pass over them, and those after them count."""
    for _ in range(len(DAMAGES_TO_JSON) + 1):
        session.extend(3600)
    *bad, _ = crew.list(crew.keys.events)
    before = session.status().deadline_at
    for key, damage in zip(bad, DAMAGES_TO_JSON, strict=True):
        hurt(crew, key, damage)
    session.map(square, range(N), chunksize=CHUNK)
    assert session.collect(timeout=30) == EXPECTED
    again = starburst.attach(session.session_id, store=crew.url)
    assert again.collect(timeout=30) == EXPECTED
    status = again.status()
    assert status.deadline_at == before  # as the last one says
    unreadable = [event.data["error"] for event in status.events if event.what == "unreadable"]
    assert all(key in error for key, error in zip(bad, unreadable, strict=True))
    assert "worker-started" in [event.what for event in status.events]
    again.cancel()
    assert session.status().state == "cancelled"


def test_records_of_supervisors(session, crew):
    session.map(slow_square, range(N), [0.03] * N, chunksize=CHUNK)
    eventually(crew.flushed, what="the first results")
    crew.kill()
    for key in crew.list(crew.keys.leaders):
        hurt(crew, key, truncated)
    assert starburst.attach(session.session_id, store=crew.url).collect(timeout=40) == EXPECTED
    crew.assert_each_exactly_once()


def test_manifests(store_url):
    """Without it nothing can be known of the session, but others are found."""
    good, *bad = (starburst.session(store=store_url) for _ in range(len(DAMAGES_TO_JSON) + 1))
    for session, damage in zip(bad, DAMAGES_TO_JSON, strict=True):
        crew = Crew(store_url, session.session_id)
        hurt(crew, crew.keys.manifest, damage)
        with pytest.raises(CorruptObject, match=crew.keys.manifest):
            starburst.attach(session.session_id, store=store_url)
    assert [row.session_id for row in starburst.list_sessions(store_url)] == [good.session_id]
    good.cleanup(force=True)
