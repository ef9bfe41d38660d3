"""The rules alone: tables of cases, then properties over any snapshot."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starburst.supervisor.decide import (
    MAX_LAUNCH_FAILURES,
    GiveUp,
    Launch,
    RecordLost,
    RecordStopped,
    Snapshot,
    Stop,
    Terminate,
    WorkerView,
    decide,
    early_death_limit,
    launch_delay_s,
)


def worker(name="w", state="running", beat=None, **fields):
    return WorkerView(name=name, provider_state=state, heartbeat_state=beat, **fields)


def snapshot(*workers, **fields):
    defaults = {
        "now_s": 100.0,
        "wall_s": 1000.0,
        "target_workers": 4,
        "slots": 1,
        "open_tasks": 10,
        "last_activity_s": 100.0,
        "deadline_at": 2000.0,
        "session_timeout_s": 60.0,
    }
    return Snapshot(**{**defaults, **fields}, workers=workers)


def crew(count, **fields):
    return [worker(f"w{i}", **fields) for i in range(count)]


@pytest.mark.parametrize(
    ("case", "actions"),
    [
        pytest.param(snapshot(), (Launch(4),), id="up to the target"),
        pytest.param(snapshot(open_tasks=2), (Launch(2),), id="no more than tasks"),
        pytest.param(snapshot(open_tasks=9, slots=4), (Launch(3),), id="tasks fill slots"),
        pytest.param(snapshot(open_tasks=0), (), id="nothing open, nothing launched"),
        pytest.param(snapshot(*crew(2), open_tasks=0), (), id="idle workers leave by themselves"),
        pytest.param(snapshot(*crew(3)), (Launch(1),), id="top up"),
        pytest.param(snapshot(*crew(4)), (), id="enough"),
        pytest.param(snapshot(*crew(2, state="starting")), (Launch(2),), id="starting ones count"),
        pytest.param(snapshot(*crew(2, state="unknown")), (Launch(2),), id="unknown is not gone"),
        pytest.param(snapshot(*crew(2, state="foreign", beat="idle")), (Launch(2),), id="foreign ones count"),
        pytest.param(snapshot(*crew(2, state="foreign", silent=True)), (Launch(4),), id="silent ones do not"),
        pytest.param(snapshot(*crew(2, beat="draining")), (Launch(4),), id="those that leave do not"),
        pytest.param(snapshot(*crew(2, stopping=True)), (Launch(4),), id="those that we stop do not"),
        pytest.param(snapshot(*crew(1), sated=True), (), id="what is open is at work already"),
        pytest.param(snapshot(sated=True), (Launch(4),), id="but somebody must be there"),
        pytest.param(
            snapshot(worker(state="exited", exit_reason="exit code 3"), open_tasks=1),
            (RecordLost("w", "exit code 3"), Launch(1)),
            id="exited without a word",
        ),
        pytest.param(
            snapshot(worker(state="exited", beat="stopped", reason="idle"), open_tasks=1),
            (RecordStopped("w", "idle"), Launch(1)),
            id="left in good order",
        ),
        pytest.param(
            snapshot(
                worker(state="exited", beat="stopped", failed=True, exit_reason="exit code 1"), open_tasks=1
            ),
            (RecordLost("w", "exit code 1"), Launch(1)),
            id="said good-bye but failed",
        ),
        pytest.param(
            snapshot(worker(state="exited", recorded=True), open_tasks=1), (Launch(1),), id="known already"
        ),
        pytest.param(
            snapshot(worker(lost=True), open_tasks=1),
            (RecordLost("w", "no sign of life for the length of its lease"), Stop(("w",), "lost"), Launch(1)),
            id="lease ran out",
        ),
        pytest.param(
            snapshot(worker(lost=True, beat="stopped"), open_tasks=0),
            (Stop(("w",), "lost"),),
            id="hangs after its good-bye",
        ),
        pytest.param(
            snapshot(worker(state="foreign", lost=True), open_tasks=1),
            (RecordLost("w", "no sign of life for the length of its lease"), Launch(1)),
            id="foreign ones cannot be stopped",
        ),
        pytest.param(
            snapshot(worker(state="foreign", beat="stopped", reason="bye"), open_tasks=1),
            (RecordStopped("w", "bye"), Launch(1)),
            id="foreign one left",
        ),
        pytest.param(
            snapshot(
                worker("a", beat="running", age_s=9.0),
                worker("b", beat="running", age_s=5.0),
                worker("c", beat="idle", age_s=9.0),
                target_workers=1,
            ),
            (Stop(("c", "b"), "scaled to 1", drain=True),),
            id="scaled down: the idle first, then the youngest",
        ),
        pytest.param(
            snapshot(
                worker("a"), worker("b", state="foreign"), worker("c", state="foreign"), target_workers=1
            ),
            (Stop(("a",), "scaled to 1", drain=True),),
            id="scaled down below the foreign ones",
        ),
        pytest.param(
            snapshot(*crew(2), wall_s=2000.0), (Stop(("w0", "w1"), "the session is expired"),), id="deadline"
        ),
        pytest.param(snapshot(wall_s=2000.0), (Terminate("expired"),), id="deadline, nobody left"),
        pytest.param(
            snapshot(worker(stopping=True), ended="cancelled"), (), id="ended, the last ones are leaving"
        ),
        pytest.param(
            snapshot(worker(state="foreign"), ended="cancelled"), (Terminate("cancelled"),), id="ended"
        ),
        pytest.param(
            snapshot(worker(), ended="closed"),
            (Stop(("w",), "the session is closed", drain=True),),
            id="closed: running tasks may finish",
        ),
        pytest.param(
            snapshot(*crew(1), open_tasks=0, last_activity_s=40.0),
            (Terminate("idle"), Stop(("w0",), "the session is idle")),
            id="nothing to do for the session timeout",
        ),
        pytest.param(snapshot(*crew(4), last_activity_s=40.0), (), id="long tasks are not idleness"),
        pytest.param(
            snapshot(worker(state="exited", beat="refused", reason="needs Python 3.12", failed=True)),
            (RecordStopped("w", "needs Python 3.12"), GiveUp("needs Python 3.12")),
            id="refused",
        ),
        pytest.param(
            snapshot(worker(state="foreign", beat="refused", reason="no"), open_tasks=1),
            (RecordStopped("w", "no"), Launch(1)),
            id="a foreign one refused",
        ),
        pytest.param(
            snapshot(early_deaths=8, last_death="exit code 1"),
            (GiveUp("workers stop before they get to work: exit code 1"),),
            id="crash loop",
        ),
        pytest.param(
            snapshot(worker(beat="running"), early_deaths=8), (Launch(3),), id="no crash loop while one works"
        ),
        pytest.param(
            snapshot(launch_failures=MAX_LAUNCH_FAILURES, last_failure="no such folder"),
            (GiveUp("no worker can be started: no such folder"),),
            id="cannot launch",
        ),
        pytest.param(
            snapshot(worker(), launch_failures=MAX_LAUNCH_FAILURES), (Launch(3),), id="cannot launch more"
        ),
        pytest.param(snapshot(early_deaths=1, last_trouble_s=99.8), (), id="back off"),
        pytest.param(snapshot(early_deaths=1, last_trouble_s=99.5), (Launch(4),), id="try again"),
    ],
)
def test_decisions(case, actions):
    assert decide(case) == actions


def test_limits_and_delays():
    assert [early_death_limit(target) for target in (1, 2, 3, 50)] == [4, 4, 6, 100]
    assert [launch_delay_s(deaths, 0, 2) for deaths in (0, 1, 2, 3, 5)] == [0.0, 0.5, 0.5, 1.0, 2.0]
    assert launch_delay_s(0, 3, 2) == 2.0
    assert launch_delay_s(10**6, 10**6, 1) == 30.0


workers = st.lists(
    st.builds(
        WorkerView,
        name=st.sampled_from([f"w{i}" for i in range(12)]),
        provider_state=st.sampled_from(["starting", "running", "exited", "unknown", "foreign"]),
        heartbeat_state=st.sampled_from(
            [None, "starting", "idle", "running", "draining", "stopped", "refused"]
        ),
        lost=st.booleans(),
        silent=st.booleans(),
        stopping=st.booleans(),
        failed=st.booleans(),
        recorded=st.booleans(),
        age_s=st.floats(0, 100),
    ),
    max_size=12,
    unique_by=lambda view: view.name,
).map(tuple)

snapshots = st.builds(
    Snapshot,
    now_s=st.just(100.0),
    wall_s=st.floats(900, 1100),
    target_workers=st.integers(1, 8),
    slots=st.integers(1, 4),
    open_tasks=st.integers(0, 40),
    last_activity_s=st.floats(0, 100),
    deadline_at=st.just(1000.0) | st.just(2000.0),
    ended=st.sampled_from([None, None, None, "cancelled", "closed"]),
    session_timeout_s=st.just(50.0),
    early_deaths=st.integers(0, 20),
    launch_failures=st.integers(0, 6),
    last_trouble_s=st.floats(0, 100),
    sated=st.booleans(),
    workers=workers,
)


def launches(case):
    return sum(action.count for action in decide(case) if isinstance(action, Launch))


def applied(case, actions):
    """The snapshot after the actions were done, and their effects seen."""
    views = {view.name: view for view in case.workers}
    for action in actions:
        match action:
            case Launch(count):
                views.update({f"new{i}": worker(f"new{i}", state="starting") for i in range(count)})
            case Stop(names):
                views.update({name: replace(views[name], stopping=True) for name in names})
            case RecordLost(name) | RecordStopped(name):
                views[name] = replace(views[name], recorded=True)
            case Terminate(reason):
                case = replace(case, ended=case.ended or reason)
            case GiveUp():
                case = replace(case, ended="failed")
    return replace(case, workers=tuple(views.values()))


@given(snapshots)
def test_never_more_than_the_target_or_the_tasks(case):
    count = launches(case)
    assert count == 0 or case.live + count <= min(case.target_workers, -(-case.open_tasks // case.slots))


@given(snapshots, st.integers(0, 40), st.integers(0, 8))
def test_more_work_or_more_workers_never_launch_less(case, more_tasks, more_workers):
    assert launches(replace(case, open_tasks=case.open_tasks + more_tasks)) >= launches(case)
    # Where the crash limit depends on the target, a higher one only gives more patience.
    assert launches(replace(case, target_workers=case.target_workers + more_workers)) >= launches(case)


@given(snapshots, st.sampled_from(["ended", "expired"]))
def test_nothing_is_launched_once_the_session_ends(case, how):
    case = replace(case, ended="cancelled") if how == "ended" else replace(case, wall_s=case.deadline_at)
    actions = decide(case)
    assert not any(isinstance(action, Launch | GiveUp | RecordLost) for action in actions)
    stopped = {name for action in actions if isinstance(action, Stop) for name in action.workers}
    assert stopped == {view.name for view in case.workers if view.present and not view.stopping}
    assert any(isinstance(action, Terminate) for action in actions) == case.over


@given(snapshots)
def test_losses_are_recorded_once_and_only_where_they_are_certain(case):
    views = {view.name: view for view in case.workers}
    for action in decide(case):
        if isinstance(action, RecordLost | RecordStopped):
            view = views[action.worker]
            assert not view.recorded
        if isinstance(action, RecordLost):
            assert view.provider_state == "exited" or view.lost
        if isinstance(action, Stop):
            assert all(views[name].present and not views[name].stopping for name in action.workers)


@given(snapshots)
def test_settles_once_its_actions_are_done(case):
    first = decide(case)
    case = applied(case, first)
    second = decide(case)
    if case.ended is None:
        assert second == ()
    else:
        assert not any(isinstance(action, Launch | RecordLost | RecordStopped | GiveUp) for action in second)
        third = decide(applied(case, second))
        assert all(isinstance(action, Terminate) for action in third)


@given(snapshots)
def test_same_snapshot_same_decision(case):
    assert decide(case) == decide(replace(case))
