"""Chunks that cost workers, what fails and what is shared, in virtual time. Only tasks and time are make-believe."""

import asyncio

import pytest
from worker_parts import Session

from starburst.protocol.claims import first_claim, takeover
from starburst.protocol.keys import ChunkId
from starburst.protocol.records import encode_json
from starburst.testing import FaultyStore
from starburst.testing.simulation import Act, SimulatedRunner

FOR_EVER = Act(float("inf"))


class Diary:
    """When which task begins, on which worker; tasks behave as ``act(task, how often it has begun)`` says."""

    def __init__(self, session, act=lambda task, n: Act(1.0)):
        self.session = session
        self.act = act
        self.begun = []

    def __call__(self, job, task, args):
        return self.note("w", task)

    def on(self, worker):
        """The behaviour for another worker."""
        return lambda job, task, args: self.note(worker, task)

    def note(self, worker, task):
        self.begun.append((self.session.clock.monotonic(), worker, task))
        return self.act(task, self.times(task))

    def times(self, task):
        return self.of().count(task)

    def of(self, worker=None):
        return [task for _, w, task in self.begun if worker in (None, w)]

    def at(self, task):
        """When it began last."""
        return max(at for at, _, t in self.begun if t == task)


def working(agent):
    return asyncio.ensure_future(agent.run())


def negatives(n):
    return [-i for i in range(n)]


async def write_claims(s, chunk, *records):
    for n, record in enumerate(records, 1):
        assert await s.store.create(s.keys.claim(ChunkId(1, chunk), n), encode_json(record))


async def lose(s, chunk, *workers):
    """Each of ``workers`` claims the chunk and is lost before it has any result."""
    log = []
    for worker in workers:
        log.append(takeover(log, worker, chunk, 0.0) if log else first_claim(worker, chunk, 0.0))
        await s.say("worker-lost", worker=worker, reason=f"{worker} burnt down")
    await write_claims(s, chunk, *log)
    return log


# ---- tasks that take their process down ----


def test_several_killers_in_one_chunk_fail_each_by_itself():
    session = Session(max_attempts=2)
    diary = Diary(session, lambda task, n: Act(0.1, f"crash of {task}" if task in (0, 3, 4) else None))

    async def scenario(s):
        await s.submit(abs, negatives(6), chunksize=6)
        await s.agent("w", diary).run()
        results = await s.results()
        assert {i: r.value for i, r in results.items() if r.failure is None} == {1: 1, 2: 2, 5: 5}
        for i in (0, 3, 4):
            assert results[i].failure.message == f"its process died each time it ran, 2 times: crash of {i}"
        assert await s.marks() == {0: (3, 3)}

    session.run(scenario)


def test_attempts_of_lost_workers_count_for_the_task_at_which_they_were_lost():
    """Two workers were lost on task 0, so one crash more is the third; another task has its three."""
    session = Session(max_attempts=3)
    diary = Diary(session, lambda task, n: Act(0.1, "crash"))

    async def scenario(s):
        await s.submit(abs, negatives(2), chunksize=2)
        await lose(s, 0, "w-1", "w-2")
        await s.agent("w", diary).run()
        results = await s.results()
        assert diary.times(0) == 1
        assert diary.times(1) == 3
        assert results[0].failure.attempt == results[1].failure.attempt == 3

    session.run(scenario)


def test_a_task_that_holds_too_much_memory_is_stopped_and_told_so():
    session = Session(max_attempts=2)

    class Hungry(SimulatedRunner):
        def memory_bytes(self):
            return 300 * 2**20 if self.current()[0] == 1 else 90 * 2**20

    async def scenario(s):
        async def launch(locate):
            return Hungry(diary, s.clock)

        diary = Diary(s)
        await s.submit(abs, negatives(3), chunksize=3)
        # Each of two slots has half of the worker's memory.
        await s.agent("w", launch_runner=launch, slots=2, memory_bytes=400 * 2**20).run()
        results = await s.results()
        assert (results[0].value, results[2].value) == (0, 2)
        assert results[1].failure.kind == "lost"
        assert "2 times: out of memory: it held 300 MB of 200 MB" in results[1].failure.message

    session.run(scenario)


@pytest.mark.parametrize("damage", ["function gone", "function damaged", "arguments damaged"])
def test_what_cannot_be_loaded_fails_its_tasks_and_the_next_chunk_is_worked_on(damage):
    session = Session()

    async def scenario(s):
        await s.submit(abs, negatives(2), chunksize=2)
        (function,) = [key for key in s.store._objects.keys if key.startswith(s.keys.prefix + "functions/")]
        if damage == "function gone":
            await s.store.delete([function])
        elif damage == "function damaged":
            await s.store.overwrite(function, bytes(await s.store.get(function))[:-70])
        else:
            body = bytearray(await s.store.get(s.keys.batch(1)))
            body[body.rindex(b"\x80\x05") + 3] ^= 1  # in the pickle of the only frame
            await s.store.overwrite(s.keys.batch(1), bytes(body))
        await s.submit(negate, [5])
        await s.agent("w").run()
        broken = await s.results(1)
        assert [r.failure.kind for r in broken.values()] == ["load", "load"]
        key = s.keys.batch(1) if damage == "arguments damaged" else function
        assert all(key in r.failure.message for r in broken.values())
        assert await s.marks(1) == {0: (0, 2)}
        assert await s.values(2) == {0: -5}

    session.run(scenario)


def negate(x):
    return -x


# ---- chunks that have cost workers ----


def test_a_suspect_chunk_runs_with_nothing_else_at_stake():
    """Whatever this worker had finished before is in the store, and it holds no other chunk in reserve."""
    session = Session(max_attempts=5)
    seen = {}

    async def scenario(s):
        store = FaultyStore(s.store, clock=s.clock)
        await s.submit(abs, negatives(6), chunksize=2)
        await lose(s, 2, "w-1")
        store.delay("create", "*/done/*", delay_s=1.0, times=2)

        def act(task, n):
            if task == 2:
                keys = list(s.store._objects.keys)
                seen["marks"] = sum("/done/" in key for key in keys)
                seen["claims"] = {s.keys.parse_claim(key)[0].first for key in keys if "/claims/" in key}
            return Act(1.0)

        await s.agent("w", Diary(s, act), store=store).run()
        assert await s.values() == {i: i for i in range(6)}
        assert seen["marks"] == 2
        assert seen["claims"] == {0, 2, 4}

    session.run(scenario)


def test_while_a_suspect_chunk_runs_no_other_one_is_claimed():
    """Not even one that was submitted after the suspect was claimed, which is when others are fetched."""
    session = Session(max_attempts=5)
    claimed = []

    async def scenario(s):
        await s.submit(abs, negatives(2), chunksize=2)
        await lose(s, 0, "w-1")

        def act(task, n):
            claimed.append(any("claims/000002" in key for key in s.store._objects.keys))
            return Act(1.0)

        async def launch(locate):
            await s.clock.sleep(2.0)
            return SimulatedRunner(Diary(s, act), s.clock)

        running = working(s.agent("w", launch_runner=launch))
        await s.until(lambda: has_claims(s, 0, 2), 1.0)
        await s.submit(abs, negatives(2), chunksize=2)
        await running
        assert claimed == [False, False, True, True]
        assert await s.values(2) == {0: 0, 1: 1}

    session.run(scenario)


async def has_claims(s, chunk, n):
    return len(await s.claims(chunk)) == n


def test_at_its_last_attempt_a_chunk_runs_alone_in_its_worker():
    """It waits for the other slot to finish and write, and the other slot waits for it to do the same."""
    session = Session(max_attempts=3)
    marks_at_its_start = []

    async def scenario(s):
        store = FaultyStore(s.store, clock=s.clock)
        store.delay("create", "*/done/000001-00000004*", delay_s=3.0)
        store.delay("create", "*/results/000001-00000000.*", delay_s=3.0, times=9)
        await s.submit(abs, negatives(6), chunksize=2)
        await lose(s, 0, "w-1", "w-2")

        def act(task, n):
            if task == 0 and n == 1:
                marks_at_its_start.append(sum("/done/" in key for key in s.store._objects.keys))
            return Act(10.0 if task in (4, 5) else 2.0)

        diary = Diary(s, act)
        agent = working(s.agent("w", diary, slots=2, store=store))
        await s.until(lambda: diary.times(0))
        await s.submit(abs, [-1, -2, -3], chunksize=1)  # enough for the other slot to begin, if it might
        await agent
        began = {task: at for at, _, task in reversed(diary.begun)}
        assert diary.of()[:6] == [2, 4, 3, 5, 0, 1]
        assert began[0] >= began[5] + 10.0
        assert marks_at_its_start == [2]
        assert len(diary.begun[6:]) == 3
        assert min(at for at, _, _ in diary.begun[6:]) >= began[1] + 2.0 + 3.0
        assert [c.attempt for c in await s.claims(0)] == [1, 2, 3]

    session.run(scenario)


def test_after_max_attempts_the_first_task_runs_alone_and_the_others_become_chunks_of_their_own():
    session = Session(max_attempts=2)

    async def scenario(s):
        await s.submit(abs, negatives(4), chunksize=4)
        await lose(s, 0, "w-1", "w-2")
        diary = Diary(s)
        await s.agent("w", diary).run()
        assert await s.values() == {0: 0, 1: 1, 2: 2, 3: 3}
        assert diary.of() == [0, 1, 2, 3]
        kinds = [(c.kind, c.attempt, c.parts) for c in await s.claims(0)]
        assert kinds[2:] == [("claim", 3, ()), ("share", 3, ((1, 2), (2, 3), (3, 4)))]
        assert await s.marks() == {0: (1, 0), 1: (1, 0), 2: (1, 0), 3: (1, 0)}

    session.run(scenario)


def test_a_task_that_was_alone_when_its_worker_was_lost_fails_without_being_run_again():
    session = Session(max_attempts=2)

    async def scenario(s):
        await s.submit(abs, negatives(3), chunksize=3)
        await lose(s, 0, "w-1", "w-2", "w-3")  # the third ran task 0 alone
        diary = Diary(s)
        await s.agent("w", diary).run()
        results = await s.results()
        assert diary.of() == [1, 2]
        assert results[0].failure.kind == "lost"
        assert results[0].failure.message == (
            "its worker was lost each time it ran, 3 times; the last time: w-3 burnt down"
        )
        assert results[0].failure.attempt == 3
        assert await s.marks() == {0: (0, 1), 1: (1, 0), 2: (1, 0)}

    session.run(scenario)


def test_a_single_task_fails_after_max_attempts_at_once():
    session = Session(max_attempts=2, lease_s=2.0)

    async def scenario(s):
        await s.submit(abs, [-1])
        log = [first_claim("w-1", 0, 0.0)]
        log.append(takeover(log, "w-2", 0, 0.0))
        await write_claims(s, 0, *log)  # nobody says why they are lost
        diary = Diary(s)
        await s.agent("w", diary).run()
        (result,) = (await s.results()).values()
        assert diary.begun == []
        assert result.failure.message.endswith("2 times; the last time: it gave no sign of life any more")

    session.run(scenario)


# ---- sharing out ----


def test_nobody_shares_with_a_worker_that_is_lost():
    session = Session()

    async def scenario(s):
        await s.submit(abs, negatives(30), chunksize=30)
        await s.store.overwrite(s.keys.wanted_by("w-gone"), b"")
        await s.say("worker-lost", worker="w-gone", reason="x")
        await s.agent("w", Diary(s)).run()
        assert [c.kind for c in await s.claims(0)] == ["claim"]

    session.run(scenario)


def test_a_chunk_that_was_taken_over_is_shared_only_after_a_flush_was_won():
    session = Session()

    async def scenario(s):
        await s.submit(abs, negatives(40), chunksize=40)
        await lose(s, 0, "w-1")
        await s.store.overwrite(s.keys.wanted_by("w-idle"), b"")
        await s.agent("w", Diary(s)).run()
        n = 1 + [c.kind for c in await s.claims(0)].index("share")
        when = {i.key: int(i.version) for i in await s.store.list(s.keys.prefix)}
        assert when[s.keys.result(ChunkId(1, 0), 0)] < when[s.keys.claim(ChunkId(1, 0), n)]

    session.run(scenario)


# ---- results on their way ----


def test_much_is_flushed_at_once_however_long_the_interval():
    session = Session(poll_max_s=100.0)  # the flush interval is twice that

    async def scenario(s):
        await s.submit(bytes, [3_000_000] * 9, chunksize=9)
        links = []

        def act(task, n):
            links.append(sum("/results/" in key for key in s.store._objects.keys))
            return Act(1.0)

        await s.agent("w", Diary(s, act)).run()
        assert [len(value) for value in (await s.values()).values()] == [3_000_000] * 9
        assert links[3:5] == [0, 1]  # 9 MB are more than 8; reports come a task later
        assert links[-1] == 2

    session.run(scenario)


def test_the_next_chunk_runs_while_the_last_writes_of_the_one_before_are_under_way():
    session = Session()

    async def scenario(s):
        store = FaultyStore(s.store, clock=s.clock)
        store.delay("create", "*/results/000001-00000000.*", delay_s=5.0)
        await s.submit(abs, negatives(3), chunksize=1)
        diary = Diary(s)
        await s.agent("w", diary, store=store).run()
        assert diary.at(2) - diary.at(0) < 3.0
        assert await s.marks() == {0: (1, 0), 1: (1, 0), 2: (1, 0)}

    session.run(scenario)


def test_what_is_finished_does_not_wait_until_the_next_chunk_is_claimed():
    """In a crowd of hundreds it takes long until one of few free chunks is won."""
    session = Session()

    async def scenario(s):
        store = FaultyStore(s.store, clock=s.clock)
        store.delay("create", "*/claims/000001-00000001.*", delay_s=30.0)
        await s.submit(abs, negatives(2), chunksize=1)
        running = asyncio.ensure_future(s.agent("w", Diary(s), store=store).run())
        await s.clock.sleep(10)
        assert await s.marks() == {0: (1, 0)}
        await running
        assert await s.marks() == {0: (1, 0), 1: (1, 0)}

    session.run(scenario)


def test_a_chunk_taken_over_while_its_task_runs_is_left_to_the_other_one():
    """The flush of what was finished is lost: the task that runs is stopped, and the worker goes on elsewhere."""
    session = Session()

    async def scenario(s):
        await s.submit(abs, negatives(4), chunksize=2)
        diary = Diary(s, lambda task, n: FOR_EVER if task == 1 else Act(1.0))
        running = working(s.agent("w", diary))
        await s.until(lambda: s.claims(0))
        await s.clock.sleep(0.5)
        log = await s.claims(0)
        await s.store.create(s.keys.claim(ChunkId(1, 0), 2), encode_json(takeover(log, "w-2", 0, 0.0)))
        assert await s.write_result(0, ["theirs", "theirs"])
        await running
        assert diary.of() == [0, 1, 2, 3]
        assert await s.values() == {0: "theirs", 1: "theirs", 2: 2, 3: 3}
        assert [c.kind for c in await s.claims(0)] == ["claim", "claim"]  # not given back: it is not ours
        assert (await s.marks())[2] == (2, 0)

    session.run(scenario)
