"""Teardown: remove what set-up and sessions made in an AWS account."""

from typing import Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.cloud import DryRun, Profile, Region, Yes, ask_first
from starburst.cli.common import command
from starburst.cli.output import Output

__all__ = ["add_to"]

_EXAMPLES = """\
starburst teardown --dry-run      # what would be removed
starburst teardown --keep-bucket
starburst teardown --region eu-central-1 --yes"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "teardown", short_help="Remove all from an AWS account.", examples=_EXAMPLES)(teardown)


def teardown(
    out: Output,
    *,
    region: Region = None,
    profile: Profile = None,
    bucket: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The bucket, where the settings do not know it any more."),
    ] = None,
    keep_bucket: Annotated[
        bool, typer.Option("--keep-bucket", help="Keep the bucket and its sessions.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> int:
    """Stop all tasks, then remove capacity, cluster, logs, images, roles, network and bucket, as listed first.

    Only what carries our tag is removed. It can be interrupted and run again.
    """
    from starburst.client.engine import engine
    from starburst.ops.teardown import Teardown

    work = engine.run(Teardown.open(region=region, profile=profile, bucket=bucket, keep_bucket=keep_bucket))
    plan = engine.run(work.plan())
    if not out.json:
        print(plan)
    if not dry_run and plan.items:
        if not yes:
            ask_first(out, "Remove all this for good?", command="starburst teardown")
        plan = engine.run(work.apply(plan, lambda item: out.note(f"removed: {item.kind} {item.name}")))
    if out.json:
        out.data(plan)
    return exit_codes.OK
