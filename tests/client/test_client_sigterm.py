"""SIGTERM in the middle of a call: workers stop, results stay, and the program dies of it."""

import os
import re
import signal
import threading
import time

import client_tasks as tasks
import pytest
from test_client_programs import HEAD

import starburst
from helpers import eventually

WAITS = "def work(i):\n    return i if i < 11 else tasks.started_then_wait({started!r}, {gate!r})\n"
MAPS = "starburst.map(work, range(12), workers=2, chunksize=1, progress=False)\n"


@pytest.fixture
def program(fresh, script, tmp_path):
    """Starts a program, waits until eleven of its twelve tasks have results, and ends it with SIGTERM."""

    def run(calls, *, before="", timeout_s=60):
        names = {"started": str(tmp_path / "started"), "gate": str(tmp_path / "gate")}
        process = fresh.start(script(HEAD + WAITS.format(**names) + before + calls))
        eventually((tmp_path / "started").exists, 30, what="the work to begin")
        [row] = starburst.list_sessions()
        eventually(lambda: starburst.list_sessions()[0].completed == 11, what="eleven results")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=timeout_s)
        return process.returncode, said, row.session_id

    return run


@pytest.mark.parametrize("fresh", ["folder", "fargate", "ec2"], indirect=True)
def test_sigterm_in_a_map(fresh, program, tmp_path):
    code, said, session_id = program(MAPS)
    assert code == -signal.SIGTERM
    assert re.search(r"terminated: workers stopped, \d+ of 12 results are kept", said)
    assert "Traceback" not in said
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    session = starburst.attach(session_id)
    (tmp_path / "gate").touch()
    assert session.collect(timeout=60) == [*range(11), str(tmp_path / "gate")]
    session.cleanup(force=True)


@pytest.mark.parametrize("fresh", ["folder"], indirect=True)
@pytest.mark.parametrize("call", ["imap", "imap_unordered", "map with resume"])
def test_sigterm_in_other_calls(fresh, program, call):
    calls = {
        "imap": "for x in starburst.imap(work, range(12), workers=2): pass\n",
        "imap_unordered": (
            "for i, x in enumerate(starburst.imap_unordered(work, range(12), workers=2), 1):\n"
            "    if i == 11: time.sleep(60)\n"  # the program's own code, while the call is under way
        ),
        "map with resume": MAPS.replace("progress", "resume=True, progress"),
    }
    code, said, session_id = program(calls[call])
    assert code == -signal.SIGTERM
    assert f"starburst collect {session_id} --no-wait" in said
    eventually(lambda: not fresh.processes(), what="the end of all processes")
    starburst.attach(session_id).cleanup(force=True)


@pytest.mark.parametrize("fresh", ["folder"], indirect=True)
def test_a_handler_of_the_programs_own_is_the_one_that_counts(fresh, program):
    before = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: (print('mine'), sys.exit(3)))\n"
    code, said, _ = program(MAPS, before=before)
    assert code == 3
    assert "terminated" not in said
    eventually(lambda: not fresh.processes(), what="the end of all processes")


@pytest.mark.parametrize("fresh", ["folder"], indirect=True)
def test_tidying_that_does_not_come_to_an_end_is_given_up(fresh, program):
    before = (
        "import asyncio\n"
        "import starburst.client.pool as pool, starburst.client.terminated as terminated\n"
        "terminated.LIMIT_S = 0.5\n"
        "async def never(self): time.sleep(600)\n"  # the loop itself is stuck
        "pool.Pool.stop_workers = never\n"
    )
    code, _, session_id = program(MAPS, before=before, timeout_s=30)
    assert code == -signal.SIGTERM
    starburst.attach(session_id).cleanup(force=True)


@pytest.mark.this_machine
def test_the_handler_is_there_only_while_a_call_is_waited_for(warm):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert starburst.map(tasks.square, range(3), progress=False) == [0, 1, 4]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    first, second = (starburst.imap(tasks.square, range(20)) for _ in range(2))
    assert next(first) == next(second) == 0
    ours = signal.getsignal(signal.SIGTERM)
    assert callable(ours)
    first.close()
    assert signal.getsignal(signal.SIGTERM) is ours
    second.close()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.this_machine
def test_calls_in_other_threads_change_no_handler(warm):
    found = []

    def call():
        found.extend(signal.getsignal(signal.SIGTERM) for _ in starburst.imap(tasks.square, range(3)))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert found == [signal.SIG_DFL] * 3


@pytest.mark.this_machine
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_that_gets_sigterm_leaves_its_parents_call_alone(warm):
    results = starburst.imap(tasks.square, range(50))
    assert next(results) == 0
    child = os.fork()
    if not child:
        while True:
            time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
    assert list(results) == [i * i for i in range(1, 50)]
