"""The types that users' checkers see, and that a checker finds the mistakes it should."""

import subprocess
import sys
from pathlib import Path

import pytest

import starburst

pytest.importorskip("mypy", reason="only where the tools of `make check` are installed")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def mypy(*paths, cache):
    """What mypy --strict says, as for code outside of this project that has starburst installed."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={cache}",
        "--no-error-summary",
    ]
    done = subprocess.run(
        [*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    return done.stdout + done.stderr


def test_public_types_and_mistakes(tmp_path):
    names = "\n".join(f"print(starburst.{name})" for name in starburst.__all__)
    every = tmp_path / "every.py"
    every.write_text(f"import starburst\n{names}\n")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import starburst\n\n\ndef name_of(number: int) -> str:\n    return str(number)\n\n\n"
        "reveal_type(starburst.map(name_of, [1]))\n"
        "numbers: list[int] = starburst.map(name_of, [1])\n"
        "starburst.mpa(name_of, [1])\n"
    )
    said = mypy(
        HERE / "typing_client.py", HERE / "typing_mistakes.py", every, wrong, cache=tmp_path / "cache"
    )
    about_wrong = [
        line.removeprefix(f"{wrong}:") for line in said.splitlines() if line.startswith(str(wrong))
    ]
    assert [line for line in said.splitlines() if not line.startswith(str(wrong))] == []
    # It did look, and knows more than Any.
    assert [line.partition(": ")[0] for line in about_wrong] == ["8", "9", "10"]
    assert "list[" in about_wrong[0]
    assert "str]" in about_wrong[0]
    assert "mpa" in about_wrong[2]
