"""Sweep: find what belongs to no live session, and remove it."""

from typing import Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.cloud import Profile, Region
from starburst.cli.common import command
from starburst.cli.output import Output

__all__ = ["add_to"]

_EXAMPLES = """\
starburst sweep                   # what was left over
starburst sweep --yes             # remove it"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "sweep", short_help="Find and remove leftovers in AWS.", examples=_EXAMPLES)(sweep)


def sweep(
    out: Output,
    *,
    region: Region = None,
    profile: Profile = None,
    bucket: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where sessions are.  [default: as set up]")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove what is listed.")] = False,
) -> int:
    """List what belongs to no live session: tasks, idle EC2 hosts, old task definitions; with --yes remove it."""
    from starburst.client.engine import engine
    from starburst.ops.sweep import Sweep

    work = engine.run(Sweep.open(region=region, profile=profile, bucket=bucket))
    plan = engine.run(work.plan())
    if yes and plan.leftovers:
        if not out.json:
            print(plan)
        plan = engine.run(work.apply(plan))
        out.note(f"removed: {len(plan.leftovers)}")
    elif not out.json:
        print(plan)
    if out.json:
        out.data(plan)
    elif plan.leftovers and not yes:
        out.note("starburst sweep --yes removes them")
    return exit_codes.OK
