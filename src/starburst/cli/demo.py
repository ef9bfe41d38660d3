"""Demo: everything at work on this machine, each result checked."""

import os
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.common import StoreURL, command
from starburst.cli.output import CommandError, Output

if TYPE_CHECKING:
    from starburst.cli.demo_suite import Row

__all__ = ["add_to"]

_EXAMPLES = """\
starburst demo                # about a minute
starburst demo --quick        # some seconds
starburst demo --json > demo.json"""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "demo", short_help="Real work on this machine, every result checked.", examples=_EXAMPLES)(
        demo
    )


def demo(
    out: Output,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A fraction of the work.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many workers.  [default: one per core, 2 to 8]")
    ] = None,
    store: StoreURL = None,
) -> int:
    """Run real workloads on this machine and check every result against a sequential run.

    A parameter sweep with one task per point, portfolios by Monte Carlo, a bootstrap over a shared data
    set, heavy linear algebra, a scikit-learn search through an Executor, and a session that is left, found
    again by a new process, collected and removed. The exit code is 1 if any result differs. It needs the
    extra "demo" (numpy, scikit-learn) and no account; unless --store is given, what it keeps is removed at
    the end.
    """
    missing = [name for name in ("numpy", "sklearn") if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the demo computes with numpy and scikit-learn; not installed here: {', '.join(missing)}",
            hint="pip install 'starburst-cloud[demo]'",
        )
    # One thread per process, here and in the workers, which inherit this: otherwise the sequential run
    # would use all cores inside linear algebra, and each worker as many threads as there are cores.
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    from starburst.cli.demo_suite import Suite

    started = time.monotonic()
    with Suite(out.note, quick=quick, workers=workers or _default_workers(), store=store) as suite:
        rows = suite.run()
    seconds = time.monotonic() - started
    good = all(row.ok for row in rows)
    if out.json:
        listed = [row.as_json() for row in rows]
        out.data({"ok": good, "workers": suite.workers, "seconds": seconds, "workloads": listed})
    else:
        _print(out, rows, seconds)
    return exit_codes.OK if good else exit_codes.FAILED


def _default_workers() -> int:
    return min(
        8, max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2)
    )


def _print(out: Output, rows: "list[Row]", seconds: float) -> None:
    from rich.text import Text

    from starburst.ui import text
    from starburst.ui.tables import columns

    figures = ("TASKS", "SECONDS", "SEQUENTIAL", "SPEED-UP", "TASKS/S", "REQUESTS/TASK")
    table = columns("WORKLOAD", *figures, "RESULTS", numbers=figures)
    for row in rows:
        table.add_row(
            row.name,
            text.count(row.tasks),
            f"{row.seconds:.2f}",
            f"{row.sequential_s:.2f}",
            f"{row.speedup:.2f}",
            f"{row.tasks_per_s:,.1f}",
            f"{row.requests_per_task:.3f}",
            Text(f"equal ({row.check})", style="green") if row.ok else Text(row.mismatch, style="bold red"),
        )
    asked = "Requests: of client and workers, also what these ask while they wait for the sequential run."
    bad = sum(not row.ok for row in rows)
    tasks = text.count(sum(row.tasks for row in rows))
    last = (
        f"All {tasks} results are right" if not bad else f"{text.plural(bad, 'workload')} with wrong results"
    )
    out.result(
        None,
        Text(),
        table,
        Text(asked, style="dim"),
        Text(),
        Text(f"{last}; {text.seconds(seconds)} in all."),
    )
