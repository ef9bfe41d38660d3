"""The scripts of examples/ run as their page says, on a little work."""

import subprocess
import sys

import pytest
from docs_markdown import ROOT

EXAMPLES = ROOT / "examples"
SMALL = {
    "bootstrap.py": (["20"], "slope a"),
    "portfolio.py": (["200"], "value at risk"),
    "sklearn_grid.py": (["2"], ""),
    "detached_session.py": (["submit", "10"], "session-"),
}


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=90, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_examples_are_on_their_page_and_here():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    page = (EXAMPLES / "README.md").read_text()
    assert scripts == set(SMALL)
    assert [name for name in scripts if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", SMALL)
def test_example_runs(name):
    arguments, says = SMALL[name]
    printed = run(EXAMPLES / name, *arguments)
    assert says in printed
    if name == "detached_session.py":
        assert "10 results" in run(EXAMPLES / name, "collect", printed.split()[-1])
