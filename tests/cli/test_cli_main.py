"""The command line as a whole: help, errors, exit codes, and how little it loads."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from starburst import errors
from starburst.cli import exit_codes
from starburst.cli.main import app, main
from starburst.cli.output import CommandError, Output

COMMANDS = (
    "demo",
    "run",
    "sessions",
    "status",
    "extend",
    "scale",
    "cancel",
    "cleanup",
    "env",
    "collect",
    "logs",
    "worker",
    "config",
    "setup",
    "sweep",
    "teardown",
    "simulate",
    "version",
)
GROUPS = {
    "config": ("get", "set", "unset", "show", "path"),
    "env": ("build", "rebuild", "show", "check", "list", "prune"),
}
LEAVES = [
    *((name,) for name in COMMANDS if name not in GROUPS),
    *((group, name) for group, names in GROUPS.items() for name in names),
]


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("STARBURST_CONFIG_DIR", str(tmp_path / "config"))


def test_help_names_every_command_and_exit_code(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"{code}  {meaning}" in shown
    assert "--install-completion" in shown
    assert "..." not in shown.partition("Commands:")[2], "no summary is cut short"


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert main(["config"]) == 0
    assert "unset" in capsys.readouterr().out


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_every_command_has_examples_json_and_debug(command, capsys):
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"starburst {' '.join(command)}" in shown.partition("Examples:")[2]
    assert "--json" in shown
    assert "--debug" in shown


def test_every_registered_command_is_listed_here():
    names = [info.name for info in app.registered_commands] + [info.name for info in app.registered_groups]
    assert sorted(map(str, names)) == sorted(COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    number = capsys.readouterr().out.strip()
    assert main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["starburst"] == number
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert main(["version"]) == 0
    assert f"starburst {number} on Python" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["statsu"], "'status'", "starburst --help"),
        (["status"], "Missing argument", "starburst status --help"),
        (["status", "x", "--bad"], "No such option", "starburst status --help"),
        (["scale", "x", "many"], "'N'", "starburst scale --help"),
        (["collect", "x"], "--output", "starburst collect --help"),
        (["cleanup"], "--all-finished", "starburst cleanup"),
        (["cleanup", "x", "--all-finished"], "--all-finished", "starburst cleanup"),
        (["config", "set", "wrokers", "3"], "'wrokers'", "did you mean 'workers'?"),
        (["config", "set", "workers", "0"], "workers=0", None),
    ],
)
def test_wrong_usage_is_said_in_words_and_in_json(arguments, message, hint, capsys):
    assert main(arguments) == exit_codes.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("starburst: ")
    assert message in lines[0]
    if hint:
        assert lines[1].startswith(f"  → {hint}")
    assert len(lines) <= 3
    assert main([*arguments, "--json"]) == exit_codes.USAGE
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    assert message in error["message"]
    assert error["exit_code"] == exit_codes.USAGE
    assert shown.err == ""


def subclasses(kind):
    return {kind, *(each for child in kind.__subclasses__() for each in subclasses(child))}


def test_every_error_has_a_documented_exit_code():
    for kind in subclasses(errors.StarburstError):
        assert exit_codes.code_of(kind.__new__(kind)) in exit_codes.MEANINGS  # some take more than a message
    assert exit_codes.code_of(errors.SessionNotFound("x")) == 3
    assert exit_codes.code_of(errors.ObjectNotFound("x")) == 3
    assert exit_codes.code_of(errors.CollectTimeout("x")) == 4
    assert exit_codes.code_of(errors.AccessDenied("x")) == 5
    assert exit_codes.code_of(errors.TaskTimeout("x")) == 1


def test_a_failed_task_is_two_or_three_lines(capsys):
    error = errors.TaskFailed(
        "task 3 failed on worker w-1",
        hint="starburst logs session-1",
        remote_traceback="Traceback …\n  x\nKeyError: 'a'",
    )
    assert Output().fail(error) == exit_codes.FAILED
    assert capsys.readouterr().err.splitlines() == [
        "starburst: task 3 failed on worker w-1",
        "  KeyError: 'a'",
        "  → starburst logs session-1",
    ]


def test_a_fault_of_ours_shows_its_traceback_only_when_asked(capsys):
    def fail(out):
        try:
            raise ZeroDivisionError("oh")
        except ZeroDivisionError as error:
            return out.fail(error)

    assert fail(Output()) == exit_codes.FAILED
    shown = capsys.readouterr().err
    assert shown.splitlines()[0] == "starburst: ZeroDivisionError: oh"
    assert "--debug" in shown
    assert "Traceback" not in shown
    fail(Output(debug=True))
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt(capsys):
    assert Output().fail(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "starburst: interrupted\n"


def test_a_commands_own_error_keeps_its_code(capsys):
    assert Output(json=True).fail(CommandError("gone", exit_code=exit_codes.NOT_FOUND)) == 3
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "CommandError"


def test_json_holds_structs_and_foreign_values(capsys):
    class Point(msgspec.Struct):
        x: int

    Output(json=True).data({"a": Point(1), "b": 2 + 1j})
    assert json.loads(capsys.readouterr().out) == {"a": {"x": 1}, "b": "(2+1j)"}


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from starburst.cli.main import main; main(['--help']);"
        "heavy = {'rich', 'boto3', 'botocore', 'numpy', 'obstore', 'pygments', 'cloudpickle'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_installed_command_and_a_reader_that_goes_away():
    command = [sys.executable, "-m", "starburst.cli.main", "version", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    json.loads(done.stdout)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", exit_codes.PIPE_CLOSED)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("starburst c", "collect"), ("starburst config get w", "workers"), ("starburst ru", "run")],
)
def test_shell_completion(typed, wanted, monkeypatch):
    for name, value in (
        ("_STARBURST_COMPLETE", "complete_bash"),
        ("COMP_WORDS", typed),
        ("COMP_CWORD", str(len(typed.split()) - 1)),
    ):
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-m", "starburst.cli.main"], capture_output=True, text=True, check=False
    )
    assert wanted in done.stdout.split()
