"""``resume=``: the same call made again runs only what has no good result yet; each run leaves a mark on disk."""

import json
import signal
import warnings

import client_tasks as tasks
import pytest
from places import EVERYWHERE

import starburst
from helpers import eventually

both_fresh = pytest.mark.parametrize("fresh", EVERYWHERE, indirect=True)
both_stores = pytest.mark.parametrize("warm", EVERYWHERE, indirect=True)
pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture
def work(tmp_path):
    """A function whose runs are counted; the same in each test but for the folder, which it closes over."""
    folder = str(tmp_path)

    def work(x):
        tasks.record(folder, x)
        return x * 10

    return work


def again(fn, items, **options):
    return starburst.map(fn, items, resume=options.pop("resume", True), progress=False, **options)


def marks(tmp_path, items):
    return [tasks.runs(tmp_path, item) for item in items]


@both_stores
def test_the_same_call_again_runs_nothing(work, tmp_path):
    assert again(work, range(20)) == [x * 10 for x in range(20)]
    assert again(work, range(20)) == [x * 10 for x in range(20)]
    assert marks(tmp_path, range(20)) == [1] * 20


@both_stores
def test_new_items_only(work, tmp_path):
    again(work, range(5))
    assert again(work, [7, *range(5), 8, 9]) == [70, 0, 10, 20, 30, 40, 80, 90]
    assert marks(tmp_path, range(10)) == [1, 1, 1, 1, 1, 0, 0, 1, 1, 1]


def test_fewer_items_and_another_order(work, tmp_path):
    again(work, range(6))
    assert again(work, [5, 0, 3]) == [50, 0, 30]
    assert marks(tmp_path, range(6)) == [1] * 6


def test_equal_items_are_tasks_of_their_own(work, tmp_path):
    assert again(work, [3, 3, 4]) == [30, 30, 40]
    assert marks(tmp_path, [3, 4]) == [2, 1]
    assert again(work, [3, 3, 3, 4]) == [30, 30, 30, 40]
    assert marks(tmp_path, [3, 4]) == [3, 1]
    assert again(work, [3]) == [30]
    assert marks(tmp_path, [3]) == [3]


def test_without_resume_everything_runs_again(work, tmp_path):
    again(work, range(3))
    assert starburst.map(work, range(3), progress=False) == [0, 10, 20]
    assert marks(tmp_path, range(3)) == [2, 2, 2]


def test_failed_items_run_again_and_good_ones_do_not(tmp_path):
    folder = str(tmp_path)

    def work(x):
        tasks.record(folder, x)
        if x == 2 and tasks.runs(folder, x) == 1:
            raise ValueError("the first time")
        return x

    results = again(work, range(5), on_error="return")
    assert isinstance(results[2], starburst.TaskFailed)
    assert again(work, range(5)) == [0, 1, 2, 3, 4]
    assert marks(tmp_path, range(5)) == [1, 1, 2, 1, 1]


def test_a_raised_failure_keeps_what_was_done(tmp_path):
    folder = str(tmp_path)

    def work(x):
        tasks.record(folder, x)
        if x == 3 and tasks.runs(folder, x) == 1:
            raise ValueError("the first time")
        return x

    with pytest.raises(starburst.TaskFailed) as caught:
        again(work, range(40), chunksize=1)
    assert caught.value.index == 3
    assert again(work, range(40), chunksize=1) == list(range(40))
    assert marks(tmp_path, range(40)) == [2 if x == 3 else 1 for x in range(40)]


def test_several_iterables(tmp_path):
    folder = str(tmp_path)

    def work(a, b):
        tasks.record(folder, f"{a}-{b}")
        return a + b

    call = {"resume": True, "progress": False}
    assert starburst.map(work, [1, 2], [10, 20], **call) == [11, 22]
    assert starburst.map(work, [1, 2, 1], [10, 20, 20], **call) == [11, 22, 21]
    assert marks(tmp_path, ["1-10", "2-20", "1-20"]) == [1, 1, 1]


def test_what_is_closed_over_is_part_of_the_name(tmp_path):
    def make(factor):
        folder = str(tmp_path)

        def work(x):
            tasks.record(folder, f"{factor}-{x}")
            return factor * x

        return work

    assert again(make(2), [1, 2]) == [2, 4]
    assert again(make(3), [1, 2]) == [3, 6]
    assert again(make(2), [1, 2]) == [2, 4]
    assert marks(tmp_path, ["2-1", "2-2", "3-1", "3-2"]) == [1, 1, 1, 1]


def test_other_workers_and_slots_are_no_reason_to_run_again(work, tmp_path):
    again(work, range(4), workers=1)
    assert again(work, range(5), workers=2, chunksize=2) == [0, 10, 20, 30, 40]
    assert marks(tmp_path, range(5)) == [1] * 5


def test_an_item_that_holds_itself():
    item = [1]
    item.append(item)
    assert again(len, [item]) == [2]
    assert again(len, [item]) == [2]


def test_on_error_of_a_resumed_call(tmp_path):
    assert again(tasks.fail_at, range(5), on_error="skip") == [0, 1, 2, 4]
    results = again(tasks.fail_at, range(5), on_error="return")
    assert results[3].index == 3
    assert results[3].__cause__.code == 3


def function(code, folder):
    namespace = {"__name__": "__main__", "folder": str(folder), "tasks": tasks}
    exec(code, namespace)
    return namespace["work"]


OLD = "def work(x):\n    tasks.record(folder, x)\n    return x + 1"
NEW = "def work(x):\n    tasks.record(folder, x)\n    return x + 100"


def test_changed_code_is_told_and_its_results_are_kept(fresh, tmp_path):
    assert again(function(OLD, tmp_path), [1, 2]) == [2, 3]
    with pytest.warns(UserWarning, match="2 results were made by an earlier version of work") as caught:
        assert again(function(NEW, tmp_path), [1, 2, 3]) == [2, 3, 103]
    assert caught[0].filename == __file__
    assert 'resume="code"' in str(caught[0].message)
    assert marks(tmp_path, [1, 2, 3]) == [1, 1, 1]


def test_resume_by_code_runs_changed_code(fresh, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again(function(OLD, tmp_path), [1, 2], resume="code") == [2, 3]
        assert again(function(NEW, tmp_path), [1, 2], resume="code") == [101, 102]
        assert again(function(OLD, tmp_path), [1, 2], resume="code") == [2, 3]
    assert marks(tmp_path, [1, 2]) == [2, 2]


def test_lambdas_go_by_their_code_and_not_by_the_line_that_they_stand_in(tmp_path):
    folder = str(tmp_path)
    assert again(lambda x: tasks.record(folder, x, x + 1), [1]) == [2]
    assert again(lambda x: tasks.record(folder, x, x + 2), [1]) == [3]
    assert again(lambda x: tasks.record(folder, x, x + 1), [1]) == [2]
    assert marks(tmp_path, [1]) == [2]


SCRIPT = """
import json, sys
import starburst

folder = sys.argv[1]
sys.path.insert(0, {tests!r})
import client_tasks as tasks

def work(x):
    tasks.record({folder!r}, x)
    if {bug}:
        raise ValueError("a bug")
    return x * 2 if x in {{"a", "b", "c", 7}} or True else None

if __name__ == "__main__":
    items = list(range({n}))
    results = starburst.map(work, items, resume={resume!r}, on_error={on_error!r}, progress=False, chunksize={chunk})
    print(json.dumps([r if isinstance(r, int) else type(r).__name__ for r in results]))
"""


def test_lambdas_go_by_what_they_use(tmp_path):
    namespace = {"__name__": "__main__", "tasks": tasks, "folder": str(tmp_path), "helper": len}
    for helper, line in (("k = 2", ""), ("k = 2", "\n\n"), ("k = 3", "")):
        exec(
            f"{line}{helper}\ndef helper(x): return x\nwork = lambda x: tasks.record(folder, x, helper(k * x))",
            namespace,
        )
        assert again(namespace["work"], [1]) == [namespace["k"]]
    assert marks(tmp_path, [1]) == [2]


def source(tmp_path, *, n=12, bug="False", on_error="raise", resume=True, chunk=1):
    folder = tmp_path / "marks"
    folder.mkdir(exist_ok=True)
    return SCRIPT.format(
        tests=str(tasks.__file__).rsplit("/", 1)[0],
        folder=str(folder),
        n=n,
        bug=bug,
        on_error=on_error,
        resume=resume,
        chunk=chunk,
    )


@both_fresh
def test_a_fixed_script_runs_only_what_had_failed(fresh, script, tmp_path):
    path = script(source(tmp_path, bug="x in (3, 7)", on_error="return"))
    first = json.loads(fresh.run(path, tmp_path))
    assert [first[3], first[7]] == ["TaskFailed"] * 2
    path = script(source(tmp_path))
    assert json.loads(fresh.run(path, tmp_path)) == [2 * x for x in range(12)]
    assert "earlier version" in fresh.last_stderr
    assert marks(tmp_path / "marks", range(12)) == [2 if x in (3, 7) else 1 for x in range(12)]


def test_a_script_that_stopped_at_a_bug_goes_on_with_the_fix(fresh, script, tmp_path):
    path = script(source(tmp_path, n=60, bug="x % 10 == 3"))
    fresh.run(path, tmp_path, code=1)
    before = marks(tmp_path / "marks", range(60))
    path = script(source(tmp_path, n=60))
    assert json.loads(fresh.run(path, tmp_path)) == [2 * x for x in range(60)]
    after = marks(tmp_path / "marks", range(60))
    # Good ones stay; failed ones run once more with the fix, and what had not run yet runs with the fix only.
    assert all(
        a == b if b and x % 10 != 3 else a == b + 1
        for x, (b, a) in enumerate(zip(before, after, strict=True))
    )


@both_fresh
def test_a_new_process_runs_nothing_that_is_done(fresh, script, tmp_path):
    path = script(source(tmp_path))
    first = fresh.run(path, tmp_path)
    assert fresh.run(path, tmp_path) == first
    assert fresh.last_stderr == ""  # in particular no warning of changed code
    assert marks(tmp_path / "marks", range(12)) == [1] * 12


def test_lambdas_and_code_names_are_the_same_in_every_process(fresh, script, tmp_path):
    path = script(source(tmp_path, resume="code"))
    fresh.run(path, tmp_path)
    fresh.run(path, tmp_path)
    assert marks(tmp_path / "marks", range(12)) == [1] * 12


KILLED = """
import sys
import starburst

sys.path.insert(0, {tests!r})
import client_tasks as tasks

folder, gate = sys.argv[1:]

def work(x, folder):
    tasks.record(folder, x)
    if x >= 20:
        tasks.wait_for(gate, 60)
    return x * 2

if __name__ == "__main__":
    items = list(range(40))
    results = starburst.map(work, items, [folder] * 40, resume=True, progress=False, chunksize=1)
    print(results == [2 * x for x in items])
"""


def test_sets_have_the_same_name_in_every_process(fresh, script, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    path = script(
        f"import sys\nsys.path.insert(0, {str(tasks.__file__).rsplit('/', 1)[0]!r})\n"
        "import client_tasks as tasks, starburst\n"
        f"folder, kept = {str(folder)!r}, {{'one', 'two', 'three', 'four'}}\n"
        "def make(kept):\n"
        "    def work(name, items):\n        return tasks.record(folder, name, sorted(items) + sorted(kept))\n"
        "    return work\n"
        "items = [{'a', 'b', 'c', 'd'}, frozenset('vwxyz'), [{'k': ({'p', 'q', 'r'},), frozenset('st'): 1}]]\n"
        "print(starburst.map(make(kept), 'abc', [*items[:2], ['x', 'y']], resume=True, workers=1, progress=False))\n"
        "by_code = lambda item: tasks.record(folder, 'd', len(item) + len(kept))\n"
        "print(starburst.map(by_code, items[2:], resume=True, workers=1, progress=False))\n"
    )
    assert len({fresh.run(path) for _ in range(4)}) == 1
    assert marks(folder, "abcd") == [1] * 4


@both_fresh
def test_a_killed_process_is_gone_on_with(fresh, script, tmp_path):
    folder, gate = tmp_path / "marks", tmp_path / "gate"
    folder.mkdir()
    path = script(KILLED.format(tests=str(tasks.__file__).rsplit("/", 1)[0]))
    first = fresh.start(path, folder, gate)
    eventually(
        lambda: sum(marks(folder, range(20))) == 20 and sum(marks(folder, range(20, 40))) >= 2,
        timeout_s=60,
        what="half of the work",
    )
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    gate.touch()
    second = fresh.run(path, folder, gate)
    assert second.strip() == "True"
    # Workers outlive their client, so what they had begun is finished by them, and nothing runs twice.
    assert marks(folder, range(40)) == [1] * 40
    assert fresh.run(path, folder, gate).strip() == "True"
    assert marks(folder, range(40)) == [1] * 40


@both_fresh
def test_killed_with_its_workers(fresh, script, tmp_path):
    folder, gate = tmp_path / "marks", tmp_path / "gate"
    folder.mkdir()
    path = script(KILLED.format(tests=str(tasks.__file__).rsplit("/", 1)[0]))
    first = fresh.start(path, folder, gate)
    eventually(
        lambda: sum(marks(folder, range(20))) == 20 and sum(marks(folder, range(20, 40))) >= 2,
        timeout_s=60,
        what="half of the work",
    )
    begun = [x for x in range(20, 40) if tasks.runs(folder, x)]
    [session] = starburst.list_sessions()
    eventually(lambda: starburst.attach(session.session_id).status().completed >= 18, timeout_s=60)
    first.kill()
    first.wait(10)
    eventually(lambda: not fresh.end(), what="the end of all processes")
    gate.touch()
    assert fresh.run(path, folder, gate, timeout_s=90).strip() == "True"
    after = marks(folder, range(40))
    assert [after[x] for x in range(20, 40) if x not in begun] == [1] * (20 - len(begun))
    assert all(after[x] <= 2 for x in range(40))
    assert sum(after[x] for x in range(20)) <= 22  # at most what had not been flushed


def test_results_are_listed_and_can_be_collected_and_removed(work):
    before = {row.session_id for row in starburst.list_sessions()}
    again(work, range(4))
    [row] = [row for row in starburst.list_sessions() if row.session_id not in before]
    assert (row.kind, row.state, row.total, row.completed) == ("resume", "finished", 4, 4)
    session = starburst.attach(row.session_id)
    assert session.collect() == [0, 10, 20, 30]
    session.cleanup(force=True)
    assert row.session_id not in [row.session_id for row in starburst.list_sessions()]
