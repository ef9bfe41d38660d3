"""Sessions whose program was killed: told apart from those that somebody works on, with what to do about it."""

import subprocess
import sys

import pytest

import starburst
from helpers import eventually

MAPS = "import starburst, time\nstarburst.map(time.sleep, [0.01] * 40, idle_timeout=1, lease=1, progress=False)\n"


def starburst_command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "starburst.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("fresh", ["folder", "fargate"], indirect=True)
def test_a_map_whose_program_was_killed(fresh, script):
    program = fresh.start(script(MAPS))
    row = eventually(lambda: [row for row in starburst.list_sessions() if row.completed], what="results")[0]
    assert not row.abandoned
    program.kill()
    program.communicate()
    eventually(lambda: not fresh.processes(), 30, what="the end of the workers")
    [row] = eventually(lambda: [row for row in starburst.list_sessions() if not row.workers], what="silence")
    assert (row.state, row.abandoned) == ("open", True)

    shown, said = starburst_command("sessions", "--state", "abandoned")
    assert f"{row.session_id}  map   abandoned" in shown
    assert "starburst cleanup ID" in said
    shown, _ = starburst_command("status", row.session_id)
    assert f"starburst cleanup {row.session_id}" in shown

    assert starburst.attach(row.session_id).collect(timeout=60) == [None] * 40
    starburst_command("cleanup", row.session_id)
    assert [(row.state, row.abandoned) for row in starburst.list_sessions()] == [("closed", False)]
    starburst.attach(row.session_id).cleanup(force=True)


def test_sessions_that_somebody_looks_after_are_not_abandoned(warm):
    """Between two calls the workers leave, the program stays; a session that nobody has given work waits for some."""
    waiting = starburst.session()
    assert starburst.map(abs, [-1], idle_timeout=1, progress=False) == [1]
    eventually(
        lambda: [row for row in starburst.list_sessions() if row.kind == "map" and not row.workers], 30
    )
    assert not any(row.abandoned for row in starburst.list_sessions())
    waiting.cleanup(force=True)
