"""What must be measured in a process that has done nothing before: ``python -m bench.fresh NAME ARGS``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import workloads
from bench.contenders import local_plan, open_pool
from bench.model import timed

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
DEADLINE_S = 600.0


def run_fresh(name: str, *args: str) -> tuple[dict[str, Any], float]:
    """What function ``name`` of this module answered in a new process, and that process's seconds."""
    result, seconds = run_command([sys.executable, "-m", "bench.fresh", name, *args])
    return json.loads(result.splitlines()[-1]), seconds


def run_command(command: list[str]) -> tuple[str, float]:
    """Standard output of ``command``, and its seconds from start to end.

    Raises:
        RuntimeError: It failed; the message has the end of its error output.
    """
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RuntimeError(f"{' '.join(command[1:])} exited with {done.returncode}: {tail}")
    return done.stdout, seconds


def first_task(contender: str) -> dict[str, Any]:
    """One trivial task, opening the pool included, imports of the contender too."""
    start = time.perf_counter()
    with open_pool(contender) as pool:
        assert pool.map(workloads.noop, [7]) == [7]
        seconds = time.perf_counter() - start
    return {"first_task_s": seconds}


def submit_million(folder: str) -> dict[str, Any]:
    """Submit a million tasks to a detached session, without waiting for results."""
    import starburst

    with local_plan(folder, 2):
        session = starburst.session()
        try:
            seconds, _ = timed(lambda: session.map(workloads.noop, range(1_000_000)))
            peak_mb = peak_memory_bytes() / 1e6
        finally:
            session.cleanup(stop_workers=True, force=True)
    return {"submit_s": seconds, "peak_rss_mb": peak_mb}


def finish_session(folder: str) -> dict[str, Any]:
    """Run 100,000 tasks in a detached session and leave it there."""
    import starburst

    with local_plan(folder, 2):
        session = starburst.session()
        session.map(workloads.noop, range(100_000))
        session.collect(wait=True, timeout=DEADLINE_S / 2)
        session.cleanup(stop_workers=True)
    return {"session_id": session.session_id}


def session_status(folder: str, session_id: str) -> dict[str, Any]:
    """Attach and ask for the status."""
    import starburst

    with local_plan(folder, 2):
        seconds, status = timed(lambda: starburst.attach(session_id).status())
    return {"status_s": seconds, "completed": status.completed}


def build_images(folder: str) -> dict[str, Any]:
    """Images of workers."""
    from bench import images

    return images.build(Path(folder))


def push_big_image(folder: str) -> dict[str, Any]:
    """An image of 1 GB; the peak without making up its packages and the base image."""
    from bench import images

    return images.push_big(Path(folder))


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since its program was loaded (``ru_maxrss`` would count its parent)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's peak memory")


ENTRIES: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        first_task,
        submit_million,
        finish_session,
        session_status,
        build_images,
        push_big_image,
    )
}

if __name__ == "__main__":
    print(json.dumps(ENTRIES[sys.argv[1]](*sys.argv[2:])))
