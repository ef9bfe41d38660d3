"""Measure starburst beside its rivals and compare with the limits: ``python -m bench``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.groups import GROUPS
from bench.model import Cell, Probe
from bench.report import Report

ROOT = Path(__file__).parent.parent
TURN_DEADLINE_S = 1_200.0


def main() -> int:
    """Run what was asked for; 1 with ``--strict`` if a limit does not hold."""
    options = _options()
    probes = [
        probe
        for group, members in GROUPS.items()
        for probe in members
        if not options.only or {group, *(figure.key for figure in probe.figures)} & set(options.only)
    ]
    console = Console(width=None if sys.stdout.isatty() else 150)
    cells = []
    for contender in dict.fromkeys(name for probe in probes for name in probe.contenders):
        if options.contender and contender not in options.contender:
            continue
        turn = [p for p in probes if contender in p.contenders and (options.slow or contender not in p.slow)]
        if turn:
            start = time.monotonic()
            cells += _turn(turn, contender, options.repeat)
            console.print(f"{contender}: {time.monotonic() - start:.0f} s", style="dim", highlight=False)

    report = Report([figure for probe in probes for figure in probe.figures], cells, repeat=options.repeat)
    console.print(report.table())
    for line in report.errors():
        console.print(line, style="yellow", markup=False, highlight=False)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    console.print(f"written to {options.json}", highlight=False)
    missed = [figure for figure in report.figures if report.verdict(figure) not in {"OK", ""}]
    return 1 if options.strict and missed else 0


def _options() -> argparse.Namespace:
    keys = sorted({*GROUPS, *(f.key for group in GROUPS.values() for probe in group for f in probe.figures)})
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=keys, help=f"groups or figures: {', '.join(keys)}"
    )
    parser.add_argument("--contender", nargs="+", metavar="NAME", help="only these contenders")
    parser.add_argument("--repeat", type=int, default=5, help="samples for each number (default 5)")
    parser.add_argument("--slow", action="store_true", help="also what takes a rival minutes")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a limit does not hold")
    parser.add_argument("--json", type=Path, default=ROOT / "bench/results/latest.json", metavar="FILE")
    return parser.parse_args()


def _turn(probes: list[Probe], contender: str, repeat: int) -> list[Cell]:
    """One contender's samples for ``probes``; what it did not give is a cell with the reason."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "samples.jsonl"
        spec = {"contender": contender, "probes": [p.key for p in probes], "repeat": repeat, "out": str(out)}
        problem = _child(spec, Path(folder) / "output.txt")
        rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    cells = [
        Cell(key, contender, samples, row["error"]) for row in rows for key, samples in row["samples"].items()
    ]
    given = {cell.figure for cell in cells}
    missing = [figure.key for probe in probes for figure in probe.figures if figure.key not in given]
    return cells + [Cell(key, contender, error=problem or "no answer") for key in missing]


def _child(spec: dict[str, Any], output: Path) -> str:
    """Run one turn in a process group of its own; the reason if it failed."""
    command = [sys.executable, "-m", "bench.child", json.dumps(spec)]
    with output.open("w") as sink:
        process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink, start_new_session=True)
        try:
            code = process.wait(TURN_DEADLINE_S)
        except subprocess.TimeoutExpired:
            return f"not finished after {TURN_DEADLINE_S:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    tail = output.read_text(errors="replace").strip().splitlines()[-1:]
    return "" if code == 0 else f"exit {code}: {' '.join(tail)}"


if __name__ == "__main__":
    sys.exit(main())
