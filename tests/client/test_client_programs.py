"""Whole programs: scripts, modules beside them, warm workers, what is said, and what is left when they end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import client_tasks as tasks
import pytest
from places import CLOUD, EVERYWHERE

import starburst
from helpers import eventually

both_stores = pytest.mark.parametrize("fresh", EVERYWHERE, indirect=True)
TESTS = str(Path(tasks.__file__).parent)
HEAD = f"import json, os, sys, time\nsys.path.insert(0, {TESTS!r})\nimport client_tasks as tasks\nimport starburst\n"


def nothing_is_left(place):
    eventually(lambda: not place.processes(), what="the end of all processes")
    assert starburst.list_sessions() == []
    assert not list((place.data_dir / "local").glob("*"))
    if place.kind == "folder":
        store = place.data_dir.parent / "store"
        assert [path for path in store.rglob("*") if path.is_file()] == []


MAIN = """
import dataclasses, json
from enum import Enum
import starburst

LIMIT = 3
TABLE = {"a": [1, 2]}

class Colour(Enum):
    RED = 1

@dataclasses.dataclass
class Point:
    x: int
    colour: Colour = Colour.RED

    def moved(self):
        return Point(self.x + LIMIT, self.colour)

class OwnError(Exception):
    pass

def helper(x):
    return [x + LIMIT + y for y in TABLE["a"]]

def work(point):
    if point.x < 0:
        raise OwnError(point.x)
    return point.moved(), helper(point.x)

%s
results = starburst.map(work, [Point(1), Point(2)], workers=2, progress=False)
assert results == [(Point(4), [5, 6]), (Point(5), [6, 7])], results
assert type(results[0][0]) is Point and results[0][0].colour is Colour.RED
try:
    starburst.map(work, [Point(-1)], progress=False, workers=2)
except starburst.TaskFailed as error:
    assert type(error.__cause__) is OwnError and error.__cause__.args == (-1,)
    assert "line" in error.remote_traceback and "raise OwnError(point.x)" in error.remote_traceback
with starburst.Executor(workers=2, progress=False) as pool:
    assert pool.submit(work, Point(7)).result()[0] == Point(10)
assert list(starburst.imap(lambda p: p.moved().x, [Point(1)], workers=2)) == [4]
print("good")
"""


@both_stores
def test_a_script_that_defines_everything_itself(fresh, script):
    text = MAIN % "if __name__ == '__main__':"
    body, tail = text.split("if __name__ == '__main__':\n")
    guarded = body + "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in tail.splitlines())
    assert fresh.run(script(guarded)) == "good\n"
    nothing_is_left(fresh)


def test_a_script_without_a_main_guard(fresh, script):
    assert fresh.run(script(MAIN % "")) == "good\n"
    nothing_is_left(fresh)


@pytest.mark.parametrize("how", ["-", "-c"])
def test_a_program_that_is_no_file(fresh, how):
    text = (MAIN % "").replace(
        ' and "raise OwnError(point.x)" in error.remote_traceback', ""
    )  # no file, no lines
    command = [sys.executable, how] if how == "-" else [sys.executable, "-c", text]
    source = text if how == "-" else None
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr
    nothing_is_left(fresh)


def project(tmp_path):
    """A script beside a module and a package, which the script's functions use."""
    folder = tmp_path / "project"
    (folder / "shapes").mkdir(parents=True)
    (folder / "local_helper.py").write_text(
        "def double(x):\n    return 2 * x\nclass Thing:\n    kind = 'thing'\n"
    )
    (folder / "shapes" / "__init__.py").write_text("from .squares import area\n")
    (folder / "shapes" / "squares.py").write_text("def area(x):\n    return x * x\n")
    (folder / "main.py").write_text(
        "import local_helper, shapes, starburst\n"
        "def work(x):\n"
        "    import shapes.squares\n"
        "    return local_helper.double(x) + shapes.squares.area(x), local_helper.Thing()\n"
        "if __name__ == '__main__':\n"
        "    results = starburst.map(work, range(3), workers=2, progress=False)\n"
        "    assert all(type(thing) is local_helper.Thing for _, thing in results)\n"
        "    print([x for x, _ in results], starburst.map(shapes.area, [5], workers=2, progress=False))\n"
    )
    return folder


@both_stores
def test_modules_beside_the_script_are_found(fresh, tmp_path):
    folder = project(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for cwd in (folder, elsewhere):
        assert fresh.run(folder / "main.py", cwd=cwd) == "[0, 3, 8] [25]\n"
    done = subprocess.run(
        [sys.executable, "-m", "main"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[0, 3, 8] [25]\n", done.stderr
    nothing_is_left(fresh)


def test_a_module_that_was_edited_between_two_runs(fresh, tmp_path):
    folder = project(tmp_path)
    assert fresh.run(folder / "main.py") == "[0, 3, 8] [25]\n"
    (folder / "local_helper.py").write_text("def double(x):\n    return 20 * x + 1\nclass Thing:\n    pass\n")
    assert fresh.run(folder / "main.py") == "[1, 22, 45] [25]\n"


@pytest.mark.this_machine
def test_workers_start_in_the_callers_folder(fresh, script, tmp_path):
    (tmp_path / "data.txt").write_text("from here")
    path = script(
        "import starburst\nfrom pathlib import Path\n"
        "print(starburst.map(lambda n: Path(n).read_text(), ['data.txt'], workers=1, progress=False))\n"
    )
    assert fresh.run(path, cwd=tmp_path) == "['from here']\n"


@pytest.mark.this_machine
def test_variables_of_the_environment_reach_the_tasks(fresh, script):
    path = script(
        "import os\nos.environ['MY_SETTING'] = 'seen'\nimport starburst\n"
        "print(starburst.map(os.getenv, ['MY_SETTING'], workers=1, progress=False))\n"
    )
    assert fresh.run(path) == "['seen']\n"


@both_stores
def test_calls_with_equal_options_meet_the_same_workers(fresh):
    def pids(**options):
        return set(starburst.map(tasks.whoami, range(40), chunksize=1, progress=False, **options))

    first = pids(workers=1)
    assert len(first) == 1
    assert pids(workers=1) == first
    assert pids(workers=1, timeout=60, retries=2) == first  # these belong to the tasks, not to the workers
    with starburst.Executor(workers=1, progress=False) as pool:
        assert pool.submit(tasks.whoami).result() in first
    assert set(starburst.imap(tasks.whoami, range(5), workers=1)) == first
    assert pids(workers=1, slots=2).isdisjoint(first)
    assert pids(workers=1) == first
    assert len([row for row in starburst.list_sessions() if row.state == "open"]) == 2


def test_workers_that_have_left_are_replaced(fresh):
    first = starburst.map(tasks.whoami, [1], workers=1, idle_timeout=0.3, progress=False)
    eventually(lambda: not fresh.processes(), what="the workers to leave")
    second = starburst.map(tasks.whoami, [1], workers=1, idle_timeout=0.3, progress=False)
    assert first != second
    assert len(starburst.list_sessions()) == 1


def test_a_pool_whose_session_has_ended_is_replaced_and_nothing_of_it_stays(fresh):
    options = {"workers": 1, "idle_timeout": 0.2, "session_timeout": 0.5, "progress": False}
    assert starburst.map(tasks.square, [2], **options) == [4]
    eventually(lambda: starburst.list_sessions()[0].state == "idle", what="the session to end")
    assert starburst.map(tasks.square, [3], **options) == [9]
    from starburst.client import pool

    pool.close_all()
    nothing_is_left(fresh)


def test_the_absolute_timeout_of_a_map(fresh, tmp_path):
    with pytest.raises(starburst.SessionEnded) as caught:
        starburst.map(tasks.wait_for, [tmp_path / "never"], workers=1, absolute_timeout=2, progress=False)
    assert "absolute_timeout" in str(caught.value)
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert starburst.map(tasks.square, [2], workers=1, absolute_timeout=60, progress=False) == [4]


def test_the_first_call_says_where_it_runs_and_later_ones_do_not(fresh, script):
    path = script(
        HEAD + "starburst.map(tasks.square, [1], workers=2, progress=False)\n"
        "print('quiet', file=sys.stderr)\n"
        "for _ in range(3):\n    starburst.map(tasks.square, range(3), workers=2)\n"
        "starburst.starmap(tasks.add, [(1, 2)], workers=1)\n"
        "with starburst.Executor(workers=2) as pool:\n    pool.submit(tasks.square, 1).result()\n"
    )
    assert fresh.run(path) == ""
    before, after = fresh.last_stderr.split("quiet\n")
    assert before == ""  # nothing is said unless it may be
    said = [line for line in after.splitlines() if "starburst runs" in line]
    launch_type = CLOUD.get(fresh.kind, "LOCAL")
    where = "this machine" if launch_type == "LOCAL" else launch_type
    assert said == [f"starburst runs on {where} with up to 2 workers (launch_type {launch_type})"]
    assert after.splitlines()[0] == said[0]
    summaries = [line for line in after.splitlines() if line.startswith("starburst: ✓")]
    assert len(summaries) == 4


def test_quiet_programs_say_nothing(fresh, script):
    path = script(
        HEAD + "starburst.map(tasks.square, [1], workers=1, progress=False)\n"
        "list(starburst.imap(tasks.square, [1], workers=1))\n"
        "with starburst.Executor(workers=1, progress=False) as pool:\n    pool.submit(tasks.square, 1).result()\n"
    )
    assert fresh.run(path) == ""
    assert fresh.last_stderr == ""


@both_stores
def test_a_program_that_fails_leaves_nothing(fresh, script):
    path = script(HEAD + "starburst.map(tasks.fail_at, range(6), workers=2, progress=False)\n")
    fresh.run(path, code=1)
    assert "client_tasks.TroubleError: trouble 3" in fresh.last_stderr
    assert "TaskFailed: task 3 raised TroubleError" in fresh.last_stderr
    nothing_is_left(fresh)


def test_a_program_that_ends_in_the_middle_of_its_work_leaves_nothing(fresh, script, tmp_path):
    path = script(
        HEAD + "results = starburst.imap(tasks.nap, [0.01] * 5 + [60] * 50, workers=2)\n"
        "print(next(results))\nsys.exit(0)\n"
    )
    assert fresh.run(path, timeout_s=50) == "None\n"
    nothing_is_left(fresh)


def test_futures_are_finished_before_the_program_ends(fresh, script, tmp_path):
    """As the standard library's executors do it: the program ends when all that was submitted has run."""
    for shutdown in ("", "pool.shutdown(wait=False)\n"):
        folder = tmp_path / f"marks{len(shutdown)}"
        folder.mkdir()
        path = script(
            HEAD + "pool = starburst.Executor(workers=2, progress=False)\n"
            f"for i in range(6):\n    pool.submit(tasks.record, {str(folder)!r}, i)\n"
            f"futures = [pool.submit(tasks.nap, 0.5, i) for i in range(4)]\n"
            f"pool.submit(tasks.record, {str(folder)!r}, 'last')\n" + shutdown
        )
        fresh.run(path)
        assert sorted(p.name for p in folder.iterdir()) == ["0", "1", "2", "3", "4", "5", "last"]
    nothing_is_left(fresh)


@both_stores
def test_ctrl_c_stops_workers_keeps_results_and_says_how_to_reach_them(fresh, script, tmp_path):
    path = script(
        HEAD + f"def work(i):\n    return i if i < 11 else tasks.started_then_wait({str(tmp_path / 's')!r}, "
        f"{str(tmp_path / 'gate')!r})\n"
        "starburst.map(work, range(12), workers=2, chunksize=1, progress=False)\n"
    )
    process = fresh.start(path)
    eventually((tmp_path / "s").exists, what="the work to begin")
    [row] = starburst.list_sessions()
    session = starburst.attach(row.session_id)
    eventually(lambda: session.status().completed == 11, what="eleven results")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert "interrupted" in err
    assert f"starburst collect {row.session_id}" in err
    assert "KeyboardInterrupt" in err
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    assert session.collect(wait=False) == list(range(11))
    (tmp_path / "gate").touch()
    assert starburst.attach(row.session_id).collect(timeout=60) == [*range(11), str(tmp_path / "gate")]


def test_a_killed_program_leaves_workers_that_leave_by_themselves(fresh, script, tmp_path):
    path = script(
        HEAD
        + f"starburst.map(tasks.started_then_wait, [{str(tmp_path / 's')!r}], [{str(tmp_path / 'gate')!r}], "
        "workers=1, idle_timeout=1, progress=False)\n"
    )
    process = fresh.start(path)
    eventually((tmp_path / "s").exists, what="the work to begin")
    process.kill()
    process.wait(10)
    (tmp_path / "gate").touch()
    eventually(lambda: not fresh.processes(), what="the worker to leave")
    [row] = starburst.list_sessions()
    assert starburst.attach(row.session_id).collect(timeout=30) == [str(tmp_path / "gate")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.this_machine
def test_a_forked_child_can_map_too(fresh, script):
    path = script(
        HEAD + "import multiprocessing\n"
        "def child(queue):\n"
        "    queue.put((starburst.map(tasks.square, range(3), workers=1, progress=False),\n"
        "               starburst.map(tasks.whoami, [1], workers=1, progress=False)))\n"
        "if __name__ == '__main__':\n"
        "    mine = starburst.map(tasks.whoami, [1], workers=1, progress=False)\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    queue = context.Queue()\n"
        "    process = context.Process(target=child, args=(queue,))\n"
        "    process.start()\n"
        "    squares, theirs = queue.get(timeout=60)\n"
        "    process.join(60)\n"
        "    again = starburst.map(tasks.whoami, [1], workers=1, progress=False)\n"
        "    print(json.dumps([squares, mine == again, mine == theirs, process.exitcode]))\n"
    )
    assert json.loads(fresh.run(path)) == [[0, 1, 4], True, False, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("fresh", ["s3", *CLOUD], indirect=True)
def test_a_forked_child_of_a_process_that_uses_s3_is_told_so(fresh, script):
    path = script(
        HEAD + "import os\n"
        "starburst.map(tasks.square, range(3), workers=1, progress=False)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        starburst.map(tasks.square, range(3), workers=1, progress=False)\n"
        "    except starburst.StoreError as error:\n"
        "        print(error.hint, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    assert fresh.run(path).strip() == 'start child processes with multiprocessing.get_context("spawn")'


def test_importing_starburst_loads_nothing_heavy_and_starts_nothing(script, fresh):
    path = script(
        "import sys, threading\nbefore = set(sys.modules)\nimport starburst\n"
        "heavy = {'boto3', 'botocore', 'numpy', 'rich', 'obstore', 'cloudpickle', 'asyncio', 'typer'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)), threading.active_count())\n"
    )
    assert fresh.run(path) == "[] 1\n"
    assert not fresh.data_dir.exists()


def test_a_resumed_call_whose_work_another_client_takes_over_ends_with_an_error(fresh, script, tmp_path):
    code = (
        HEAD + f"def work(i):\n    {{}}\n    return tasks.started_then_wait({str(tmp_path)!r} + '/s', "
        f"{str(tmp_path / 'gate')!r}) and i\n"
        "print(starburst.map(work, range(4), workers=1, resume=True, progress=False))\n"
    )
    old = fresh.start(script(code.format("x = 1"), "work.py"))
    eventually((tmp_path / "s").exists, what="the work to begin")
    new = fresh.start(script(code.format("x = 2; y = 3"), "work.py"))
    assert any("cancelled by another client" in line for line in old.stderr)
    (tmp_path / "gate").touch()  # it waits for its worker, which may have begun with the new client's work
    old.communicate(timeout=60)
    assert old.returncode == 1
    out, err = new.communicate(timeout=60)
    assert (new.returncode, out) == (0, "[0, 1, 2, 3]\n"), err
