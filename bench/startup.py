"""What a user waits for before anything begins: importing, and asking for help."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.fresh import run_command
from bench.model import OURS, Figure, Limit, Probe

IMPORTS = {
    OURS: "import starburst",
    "python": "pass",
    "joblib": "import joblib",
    "ray": "import ray",
    "dask": "import dask.distributed",
}


def importing(contender: str) -> dict[str, float]:
    _, seconds = run_command([sys.executable, "-c", IMPORTS[contender]])
    return {"import": seconds}


def asking(contender: str) -> dict[str, float]:
    command = {OURS: [str(Path(sys.executable).with_name("starburst")), "--help"], "ray": ray_help()}[
        contender
    ]
    _, seconds = run_command(command)
    return {"help": seconds}


def ray_help() -> list[str]:
    return [str(Path(sys.executable).with_name("ray")), "--help"]


PROBES = (
    Probe(
        (Figure("import", "import, whole process (python: with no import)", limit=Limit(0.15)),),
        importing,
        tuple(IMPORTS),
        pooled=False,
    ),
    Probe(
        (Figure("help", "--help, whole process", limit=Limit(0.4)),),
        asking,
        (OURS, "ray"),
        pooled=False,
    ),
)
