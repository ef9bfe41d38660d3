"""Several workers on one store, frozen and woken at every request: each task ends with exactly one result."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model_worker import BATCH, KEYS, BrokenRules, Held, ModelWorker, World, publish
from stepping import SteppedStore, Stepper, drive

from starburst.protocol.claims import release, share
from starburst.protocol.results import decode_result
from starburst.protocol.sessions import read_done
from starburst.store.memory import MemoryStore

MAX_WORKERS = 5
ENOUGH_STEPS = 20_000


def count_results(store: MemoryStore) -> Counter[int]:
    found: Counter[int] = Counter()
    for info in drive(store.list(KEYS.results(BATCH))):
        header, outcomes = decode_result(drive(store.get(info.key)), info.key)
        for i, outcome in enumerate(outcomes):
            assert outcome.failure is not None or outcome.value == header.first + i
            found[header.first + i] += 1
    return found


class Session:
    """A session of model workers under the test's control."""

    def __init__(self, counts: list[int], broken: BrokenRules | None = None, **world: object) -> None:
        self.store = SteppedStore()
        self.plain = MemoryStore(self.store.url.removeprefix("memory://"))
        self.world = World(sum(counts), **world)  # type: ignore[arg-type]
        self.broken = broken
        self.workers: dict[str, Stepper] = {}
        drive(publish(self.plain, counts))

    def join(self, seed: int) -> str:
        name = f"w{len(self.workers)}"
        worker = ModelWorker(self.store, self.world, name, seed, self.broken)
        self.workers[name] = Stepper(worker.run())
        return name

    def kill(self, name: str) -> None:
        self.workers[name].kill()
        self.world.lost.add(name)

    def results(self) -> Counter[int]:
        """How many results each task has."""
        return count_results(self.plain)

    def check_none_twice(self) -> None:
        twice = [task for task, n in self.results().items() if n > 1]
        assert not twice, f"tasks with more than one result: {twice}"

    def finish(self) -> None:
        """Let everybody run; whoever is missing is replaced."""
        for step in range(ENOUGH_STEPS):
            working = [worker for worker in self.workers.values() if worker.step(3)]
            if not working or step % 200 == 199:
                if drive(ModelWorker(self.plain, self.world, "observer").open_chunks()) is None:
                    break
                self.join(step)
        else:
            raise AssertionError("the session does not come to an end")
        for worker in self.workers.values():
            for _ in range(ENOUGH_STEPS):
                if not worker.step():
                    break
            assert worker.ended

    def check_complete(self) -> None:
        assert self.results() == Counter(range(self.world.n_tasks))
        marks = drive(read_done(self.plain, KEYS, BATCH))
        assert len({mark.chunk for mark in marks}) == len(marks), "a chunk has two markers"
        assert sum(mark.ok + mark.failed for mark in marks) == self.world.n_tasks
        assert sum(mark.failed for mark in marks) >= len(self.world.killers)


class Workers(RuleBasedStateMachine):
    session: Session

    @initialize(
        counts=st.lists(st.integers(1, 6), min_size=1, max_size=3),
        killers=st.frozensets(st.integers(0, 8), max_size=1),
        max_attempts=st.integers(1, 2),
    )
    def submit(self, counts: list[int], killers: frozenset[int], max_attempts: int) -> None:
        killers = frozenset(task for task in killers if task < sum(counts))
        self.session = Session(counts, killers=killers, max_attempts=max_attempts)

    @precondition(lambda self: len(self.session.workers) < MAX_WORKERS)
    @rule(seed=st.integers(0, 10_000))
    def join(self, seed: int) -> None:
        self.session.join(seed)

    @precondition(lambda self: self.session.workers)
    @rule(data=st.data(), steps=st.integers(1, 25))
    def advance(self, data: st.DataObject, steps: int) -> None:
        """Everybody else is frozen meanwhile."""
        data.draw(st.sampled_from(list(self.session.workers.values()))).step(steps)

    @precondition(lambda self: self.session.workers)
    @rule(data=st.data())
    def hold_for_lost(self, data: st.DataObject) -> None:
        """Its lease runs out for all others; it knows nothing of that."""
        self.session.world.lost.add(data.draw(st.sampled_from(list(self.session.workers))))

    @precondition(lambda self: self.session.workers)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.session.kill(data.draw(st.sampled_from(list(self.session.workers))))

    @invariant()
    def no_task_has_two_results(self) -> None:
        if hasattr(self, "session"):
            self.session.check_none_twice()

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.finish()
            self.session.check_complete()


Workers.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWorkers = Workers.TestCase


@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("killer", [0, 1, 4, 9])
def test_the_task_that_kills_its_workers_fails_and_no_other(killer: int, max_attempts: int) -> None:
    session = Session([5, 5], killers=frozenset({killer}), max_attempts=max_attempts)
    session.finish()
    session.check_complete()
    marks = drive(read_done(session.plain, KEYS, BATCH))
    assert sum(mark.failed for mark in marks) == 1
    assert session.world.runs[killer] <= 2 * max_attempts + 1


class Scene:
    """Workers whose every move the test makes; their requests are not interrupted unless it says so."""

    def __init__(self, n_tasks: int) -> None:
        self.stepped = SteppedStore()
        self.store = MemoryStore(self.stepped.url.removeprefix("memory://"))
        self.world = World(n_tasks)
        drive(publish(self.store, [n_tasks]))

    def worker(self, name: str) -> ModelWorker:
        worker = ModelWorker(self.store, self.world, name)
        drive(worker.open_chunks())
        return worker

    def take_over(self, name: str, first: int = 0) -> tuple[ModelWorker, Held]:
        """A worker that claims a chunk; whoever holds it is held for lost."""
        self.world.lost |= {f"{other}" for other in "ABCXYZ" if other != name}
        self.world.lost.discard(name)
        worker = self.worker(name)
        held = drive(worker.claim(first))
        assert held is not None
        return worker, held

    def finish(self) -> None:
        self.world.lost |= set("ABCXYZ")
        drive(ModelWorker(self.store, self.world, "last", seed=1).run())


@pytest.mark.parametrize("fenced", [True, False])
def test_why_a_holder_shares_what_it_took_over_only_after_a_won_flush(fenced: bool) -> None:
    scene = Scene(6)
    a, a_holds = scene.take_over("A")  # A finishes all six tasks and is frozen before its flush
    b, b_holds = scene.take_over("B")
    if fenced:
        assert drive(b.flush(b_holds, 1))
    drive(b.give_away(b_holds, 3, 1))
    assert drive(a.flush(a_holds, 6)) is not fenced
    assert a_holds.ours is not fenced
    scene.finish()
    results = count_results(scene.store)
    assert set(results) == set(range(6))
    assert results[3] == (1 if fenced else 2), (
        "without the rule, A's results and those of the share both stand"
    )


@pytest.mark.parametrize("chain_first", [True, False])
@pytest.mark.parametrize("steps", range(3, 9))
def test_why_after_a_lost_flush_the_log_is_looked_at_after_the_chain(chain_first: bool, steps: int) -> None:
    scene = Scene(8)
    z, z_holds = scene.take_over("Z")
    y, y_holds = scene.take_over("Y")
    assert drive(z.flush(z_holds, 2)), "Z was not dead after all"
    y.store, y.broken = scene.stepped, BrokenRules(look_at_the_log_before_the_chain=not chain_first)
    losing = Stepper(y.flush(y_holds, 1))
    losing.step(steps)  # … and Y is frozen somewhere in finding out what it lost to
    x, x_holds = scene.take_over("X")
    assert drive(x.flush(x_holds, 1))
    drive(x.give_away(x_holds, 5, 1))
    while losing.step():
        pass
    if y_holds.ours:
        y.store = scene.store
        drive(y.flush(y_holds, y_holds.end - y_holds.position))
    scene.finish()
    results = count_results(scene.store)
    assert set(results) == set(range(8))
    if chain_first:
        assert max(results.values()) == 1
    elif steps == 4:
        assert results[5] == 2, "Y went on behind the fence with an end that was no longer the chunk's"


def test_a_chunk_whose_holder_died_before_its_marker_is_marked_by_whoever_looks() -> None:
    scene = Scene(4)
    a, held = scene.take_over("A")
    drive(a.flush(held, 4))
    scene.world.lost = {"A"}
    assert drive(scene.worker("B").claim(0)) is None
    assert [str(mark.chunk) for mark in drive(read_done(scene.store, KEYS))] == ["000001-00000000"]
    assert len(drive(scene.store.list(KEYS.claim_log(held.chunk)))) == 1, "no claim is needed for that"


def test_a_share_whose_holder_died_before_it_was_published_is_published_by_whoever_takes_over() -> None:
    scene = Scene(6)
    a, held = scene.take_over("A")
    given = Stepper(ModelWorker.give_away(a, held, 2, 2))
    a.store = scene.stepped
    given.step(2)  # the record of the claim log is written, the batch is not
    given.kill()
    assert len(drive(scene.store.list(KEYS.batches))) == 1
    scene.take_over("B")
    assert len(drive(scene.store.list(KEYS.batches))) == 2
    scene.finish()
    assert count_results(scene.store) == Counter(range(6))


def test_a_superseded_holder_can_neither_share_nor_give_back() -> None:
    scene = Scene(6)
    a, a_holds = scene.take_over("A")
    scene.take_over("B")
    assert not drive(a.append(a_holds, share(a_holds.log[-1], [(3, 6)], 0.0)))
    assert not drive(a.append(a_holds, release(a_holds.log[-1], 0.0)))
