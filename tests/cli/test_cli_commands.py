"""The commands on real sessions: a folder as the store, workers as processes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

import starburst
from starburst.cli import exit_codes
from starburst.cli.main import main


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch, folder_url):
    """The store is the default of every command, set as a user would."""
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("STARBURST_STORE", folder_url)


def square(number):
    print(f"squaring {number}")  # noqa: T201 - it is what the logs are to show
    return number * number


def odd_only(number):
    if number % 2 == 0:
        raise ValueError(f"{number} is even")
    return number


def sleep(seconds):
    time.sleep(seconds)


@pytest.fixture
def session():
    session = starburst.session(workers=1, idle_timeout=30)
    yield session
    session.cleanup(force=True)


def answer(capsys, *arguments, code=0):
    assert main([*arguments, "--json"]) == code
    shown = capsys.readouterr()
    return json.loads(shown.out)


def test_a_session_from_the_list_to_its_removal(session, capsys, tmp_path):
    session.map(square, range(20))
    file = tmp_path / "results.pkl"
    told = answer(capsys, "collect", session.session_id, "-o", str(file), "--timeout", "60")
    assert told["results"] == told["total"] == 20
    assert told["failed"] == 0
    assert pickle.loads(file.read_bytes()) == [n * n for n in range(20)]

    listed = answer(capsys, "sessions")["sessions"]
    assert [(each["session_id"], each["completed"]) for each in listed] == [(session.session_id, 20)]
    assert main(["sessions"]) == 0
    assert session.session_id in capsys.readouterr().out

    found = answer(capsys, "status", session.session_id)
    assert (found["total"], found["completed"], found["failed"], found["pending"]) == (20, 20, 0, 0)
    assert main(["status", session.session_id]) == 0
    assert "20 in all: 20 done, 0 failed" in capsys.readouterr().out

    assert main(["logs", session.session_id]) == 0
    assert capsys.readouterr().out.count("squaring") == 20

    before = found["deadline_at"]
    assert answer(capsys, "extend", session.session_id, "48h")["deadline_at"] > before
    assert answer(capsys, "scale", session.session_id, "2")["session_id"] == session.session_id

    assert answer(capsys, "cleanup", session.session_id) == {
        "cleaned": [session.session_id],
        "removed": False,
        "failed": [],
    }
    assert answer(capsys, "collect", session.session_id, "-o", str(tmp_path / "again.json"))["results"] == 20
    assert json.loads((tmp_path / "again.json").read_bytes())[3] == 9
    assert answer(capsys, "cleanup", session.session_id, "--force")["removed"]
    assert answer(capsys, "sessions") == {"sessions": []}


def test_one_tasks_lines_in_the_logs(session, capsys):
    session.map(square, range(5))
    session.collect(timeout=60)
    assert main(["logs", session.session_id, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    task = next(line["task"] for line in lines if line["line"] == "squaring 3")
    assert main(["logs", session.session_id, "--task", task]) == 0
    assert capsys.readouterr().out.count("squaring") == 1


def test_failed_tasks_are_told_by_the_exit_code(session, capsys, tmp_path):
    session.map(odd_only, range(4))
    file = tmp_path / "results.json"
    told = answer(capsys, "collect", session.session_id, "-o", str(file), "--timeout", "60", code=1)
    assert (told["results"], told["failed"]) == (4, 2)
    read = json.loads(file.read_bytes())
    assert (read[1], read[3], read[0]["error"]) == (1, 3, "TaskFailed")
    assert main(["collect", session.session_id, "-o", str(file), "--on-error", "skip"]) == exit_codes.FAILED
    assert json.loads(file.read_bytes()) == [1, 3]
    capsys.readouterr()
    assert main(["collect", session.session_id, "-o", str(file), "--on-error", "raise"]) == exit_codes.FAILED
    shown = capsys.readouterr().err.splitlines()
    assert "is even" in "".join(shown[:2])
    assert len(shown) <= 3


def test_cancel_and_then_cleanup_of_all_that_have_ended(session, capsys):
    assert answer(capsys, "cancel", session.session_id)["state"] == "cancelled"
    other = starburst.session(workers=1)
    try:
        assert answer(capsys, "cleanup", "--all-finished", "--force")["cleaned"] == [session.session_id]
        assert [each["session_id"] for each in answer(capsys, "sessions")["sessions"]] == [other.session_id]
    finally:
        other.cleanup(force=True)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["extend", "1h"],
        ["scale", "3"],
        ["cancel"],
        ["cleanup"],
        ["logs"],
        ["collect", "-o", "x.pkl"],
    ],
    ids=lambda command: command[0],
)
def test_a_session_that_is_not_there(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name, *rest = command
    error = answer(capsys, name, "session-none", *rest, code=exit_codes.NOT_FOUND)["error"]
    assert "session-none" in error["message"]
    assert not (tmp_path / "x.pkl").exists()


def test_a_store_that_cannot_be_opened(capsys):
    error = answer(capsys, "sessions", "--store", "gopher://x", code=exit_codes.STORE)["error"]
    assert "gopher" in error["message"]


def test_a_result_that_does_not_come_in_time(session, capsys, tmp_path):
    session.map(sleep, [60])
    file = tmp_path / "x.pkl"
    error = answer(
        capsys, "collect", session.session_id, "-o", str(file), "--timeout", "0.2", code=exit_codes.TIMEOUT
    )
    assert error["error"]["type"] == "CollectTimeout"
    assert not file.exists()


def test_another_process_joins_as_a_worker(capsys):
    session = starburst.session(workers=1, idle_timeout=1)
    try:
        session.map(square, range(50))
        command = [
            sys.executable,
            "-m",
            "starburst.cli.main",
            "worker",
            session.url,
            "--worker",
            "guest",
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["worker"] == "guest"
        assert session.collect(timeout=60) == [n * n for n in range(50)]
    finally:
        session.cleanup(force=True)


SCRIPT = """
import sys, threading
import starburst

def work(n):
    return n + 1

def main():
    print(starburst.map(work, range(int(sys.argv[1])), progress=False))

thread = threading.Thread(target=main)
thread.start()
thread.join()
"""


def test_run_a_script_that_maps(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "starburst.cli.main", "run", "--workers", "1", str(script), "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "[1, 2, 3]\n"), done.stderr
    command[command.index("1")] = "0"
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == exit_codes.USAGE
    assert "workers=0" in done.stderr


def test_the_whole_demo():
    command = [sys.executable, "-m", "starburst.cli.main", "demo", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert len(told["workloads"]) == 6
    assert all(each["ok"] and each["requests"] > 0 for each in told["workloads"])


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "argument", "shown"),
    [("portfolio", "300", "value at risk"), ("bootstrap", "12", "slope c"), ("sklearn_grid", "3", "best: ")],
)
def test_examples(name, argument, shown):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), argument],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_the_example_of_a_detached_session():
    def example(*arguments):
        command = [sys.executable, str(EXAMPLES / "detached_session.py"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=True, env=os.environ
        ).stdout

    session_id = example("submit", "40").strip()
    assert example("collect", session_id) == f"40 results, their sum is {sum(n * n for n in range(40)):,}\n"
    assert session_id not in [each.session_id for each in starburst.list_sessions()]
