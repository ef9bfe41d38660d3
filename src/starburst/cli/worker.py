"""Worker: let this machine work for a session."""

from typing import Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.common import command
from starburst.cli.output import Output

__all__ = ["add_to"]

_EXAMPLES = """\
starburst worker s3://my-bucket/sessions/session-…
starburst worker s3://my-bucket/sessions/session-… --slots 8"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "worker", short_help="Let this machine work for a session.", examples=_EXAMPLES)(worker)


def worker(
    out: Output,
    *,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The session's address, as Session.url tells it.")
    ],
    name: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="What it calls itself.")
    ] = None,
    ordinal: Annotated[int, typer.Option(min=0, help="Its number: workers begin at different places.")] = 0,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Tasks at a time.  [default: the session's]")
    ] = None,
) -> int:
    """Join a session as a worker, from any machine that reaches its store, until there is nothing to do."""
    from starburst.worker.main import EXIT_REFUSED, run_worker

    left = run_worker(url, worker=name, ordinal=ordinal, slots=slots)
    # A worker that does not fit the session says so with a code that means something else here.
    code = {0: exit_codes.OK, EXIT_REFUSED: exit_codes.ENDED}.get(left, exit_codes.FAILED)
    if out.json:
        out.data({"url": url, "worker": name, "exit_code": code})
    return code
