"""Runs the blocks of one document as its reader would: in order, in one folder, with one store."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from docs_markdown import ROOT, Block

from starburst.config import Settings
from starburst.environment.settings import project_settings

SECONDS = 120
SESSION_ID = re.compile(r"session-\d{8}-\d{6}-[0-9a-f]{6}")
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "VOLUME"}


class Reader:
    """Somebody who types a document's examples.

    ``$ID`` and ``$URL`` in commands are the id and the address of the session that was made last; on AWS, ``$ID`` is
    the id that was printed last.

    Args:
        folder: Where.
        places: What gives the environment variables of blocks that are marked so.
    """

    def __init__(self, folder: Path, places):
        self.folder = folder
        self.printed = ""
        self.script = ""
        self._places = places
        self._ids = []
        self._environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "COLUMNS": "200",
        }

    def read(self, block: Block) -> None:
        """Run a block, or compare it with what was printed."""
        if block.mark.startswith("file: "):
            (self.folder / block.mark.removeprefix("file: ")).write_text(block.text)
        elif block.mark == "output":
            self._compare(block)
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "bash":
            self.printed = self._run(block, ["bash", "-euc", block.text])
        elif block.language == "console":
            self._run_console(block)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            self._look_at_toml(block)
        elif block.language == "dockerfile":
            _look_at_dockerfile(block)
        else:
            assert block.language == "text", f"{block}: what is a block of {block.language!r}?"

    def _run_python(self, block):
        before = self.script if block.mark == "continues" else ""
        printed_before = self.printed if before else ""
        self.script = f"{before}\n{block.text}"
        (self.folder / "example.py").write_text(self.script)
        printed = self._run(block, [sys.executable, "example.py"])
        self.printed = printed.removeprefix(printed_before)

    def _run_console(self, block):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            printed = self._run(block, ["bash", "-euc", command], fails="starburst: " in expected)
            assert like(expected, printed), f"{block}: {command}\n{printed}"

    def _look_at_toml(self, block):
        """Settings, or a part of a project's file: names and types are right."""
        if "[tool." in block.text:
            folder = self.folder / "toml"
            folder.mkdir(exist_ok=True)
            (folder / "pyproject.toml").write_text(block.text)
            project_settings(folder)
        else:
            Settings(**tomllib.loads(block.text))

    def _compare(self, block):
        if block.language == "json":
            printed = json.loads(self.printed.strip().splitlines()[-1])
            assert shape(printed) == shape(json.loads(block.text)), f"{block}: got {self.printed}"
        else:
            assert like(block.text, self.printed), f"{block}: got\n{self.printed}"

    def _run(self, block, command, *, fails=False):
        place = self._places.get(block.mark)
        environment = self._environment | self._newest_session() | (place() if place else {})
        if block.mark == "aws" and self._ids:
            environment["ID"] = self._ids[-1]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = f"{block}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert (done.returncode != 0) == fails, said
        self._ids += SESSION_ID.findall(done.stdout)
        return done.stdout + done.stderr if fails else done.stdout

    def _newest_session(self):
        store = Path(os.environ["STARBURST_DATA_DIR"]) / "store"
        found = sorted(
            (store / "sessions").glob("session-*"), key=lambda path: (path / "manifest.json").stat().st_mtime
        )
        return {"ID": found[-1].name, "URL": found[-1].as_uri()} if found else {}


def like(expected, printed):
    """Whether a text is as a document shows it: … stands for anything, runs of blanks are as good as one."""
    words = " ".join(expected.split())
    pattern = ".*".join(re.escape(part) for part in words.split("…"))
    return re.fullmatch(pattern, " ".join(printed.split()), flags=re.DOTALL) is not None or not words


def shape(value):
    """Keys and kinds of a JSON value; numbers are all one kind, and of a list the first element counts."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    return (
        "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    )


def _look_at_dockerfile(block):
    """It is not built, for want of a base image: tests/containers builds one like it."""
    for line in block.text.splitlines():
        word, _, rest = line.partition(" ")
        assert word in INSTRUCTIONS, f"{block}: {line}"
        if rest.startswith("pip install"):
            assert not leads_to_makefile(rest), f"{block}: {line}"


def leads_to_makefile(line):
    """What is wrong with a line that is not run but looked up; an empty text if nothing is."""
    if match := re.match(r"make (\w+)", line):
        known = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return "" if match[1] in known else f"there is no target {match[1]}"
    if match := re.match(r"pip install (?:-.*? )?'?(?:\.|starburst-cloud)(?:\[(\w+)\])?", line):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        return "" if match[1] is None or match[1] in extras else f"there is no extra {match[1]}"
    return "" if re.match(r"(git clone|cd) |#|$", line) else "it is neither run nor known"
