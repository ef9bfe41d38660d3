"""`starburst run`: a script runs as python would run it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from starburst.cli import exit_codes

PYTHON = [sys.executable]
RUN = [sys.executable, "-m", "starburst.cli.main", "run"]

SHOW = """
import json, pickle, sys
import beside
class Local: pass
assert __name__ == "__main__"
assert sys.modules["__main__"].Local is Local, "pickle finds what the script defines"
pickle.loads(pickle.dumps(Local()))
print(json.dumps({"argv": sys.argv, "file": __file__, "path": sys.path[0], "beside": beside.value, "doc": __doc__}))
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "beside.py").write_text("value = 42\n")

    def write(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write


def execute(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_sees_what_it_would_see_under_python(script):
    path = script(SHOW)
    with_python = execute(*PYTHON, path, "--workers", "a b")
    assert with_python.returncode == 0, with_python.stderr
    with_us = execute(*RUN, path, "--workers", "a b")
    assert with_us.stderr == ""
    assert json.loads(with_us.stdout) == json.loads(with_python.stdout)


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('told')", 1, "told\n"),
        ("raise KeyboardInterrupt", 130, "starburst: interrupted\n"),
        (
            "from starburst.errors import SessionNotFound as E\nraise E('no x', hint='look')",
            3,
            "no x\n  → look\n",
        ),
    ],
)
def test_exit_codes(script, text, code, shown):
    done = execute(*RUN, script(text))
    assert (done.returncode, done.stderr.removeprefix("starburst: " if code == 3 else "")) == (code, shown)


def test_a_traceback_begins_in_the_script(script):
    path = script("def f():\n    1 / 0\n\nf()\n")
    done = execute(*RUN, path)
    with_python = execute(*PYTHON, path)
    assert done.returncode == with_python.returncode == 1
    assert done.stderr == with_python.stderr


def test_a_syntax_error(script):
    done = execute(*RUN, script("def f(:\n"))
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr


def test_json_keeps_the_scripts_own_output_away(script):
    path = script("print('hello')")
    done = execute(*RUN, "--json", path)
    assert done.stderr == "hello\n"
    answer = json.loads(done.stdout)
    assert (answer["script"], answer["exit_code"]) == (path, 0)


def test_no_such_script(tmp_path):
    done = execute(*RUN, "--json", str(tmp_path / "none.py"))
    assert done.returncode == exit_codes.NOT_FOUND
    assert "none.py" in json.loads(done.stdout)["error"]["message"]
