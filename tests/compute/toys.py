"""Providers whose workers are toy_worker.py; the environment variable TOY_MODE of the spec chooses what they do."""

import json
import sys
from pathlib import Path

from starburst.compute import processes
from starburst.compute.local import LocalProvider

HERE = Path(__file__).parent


def toy_worker_command(spec, worker, ordinal):
    # Isolated and without site: such a process starts in some milliseconds.
    mode = spec.env.get("TOY_MODE", "polite")
    return [
        spec.python or sys.executable,
        "-IS",
        str(HERE / "toy_worker.py"),
        mode,
        worker,
        str(ordinal),
        str(spec.slots),
    ]


def toy_supervisor_command(session_url, python=None):
    return [python or sys.executable, "-IS", str(HERE / "toy_worker.py"), "polite", "supervisor", "0", "0"]


def toy_provider(folder, **options):
    return LocalProvider(
        folder,
        **{"worker_command": toy_worker_command, "supervisor_command": toy_supervisor_command, **options},
    )


def ask(program, command):
    """Send a command to a running toy_launcher.py and return its answer."""
    program.stdin.write(command + "\n")
    program.stdin.flush()
    return json.loads(program.stdout.readline())


def lives(pid):
    seen = processes.look(pid)
    return seen is not None and seen.state != "zombie"
