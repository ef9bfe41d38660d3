"""What the commands for the AWS account share: their options, and asking before anything is changed."""

import sys
from typing import Annotated

import typer

from starburst.cli import exit_codes
from starburst.cli.output import CommandError, Output

__all__ = ["DryRun", "Profile", "Region", "Yes", "ask_first"]


def _regions(incomplete: str) -> list[str]:
    """Regions for shell completion: those that are set up; silence where the settings cannot be read."""
    import contextlib

    with contextlib.suppress(Exception):
        from starburst.aws.deployment import load_deployments

        return [each.region for each in load_deployments() if each.region.startswith(incomplete)]
    return []


Region = Annotated[
    str | None, typer.Option(metavar="REGION", help="AWS region.  [default: as set]", autocompletion=_regions)
]
Profile = Annotated[str | None, typer.Option(metavar="NAME", help="AWS profile.  [default: as set]")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def ask_first(out: Output, question: str, *, command: str) -> None:
    """Ask a person; where there is none to ask, refuse.

    Raises:
        CommandError: Nobody can be asked, or the answer is no.
    """
    if out.json or not sys.stdin.isatty():
        raise CommandError(
            f"{command} changes the AWS account, and there is nobody to ask",
            hint=f"{command} --yes; {command} --dry-run only says what it would do",
            exit_code=exit_codes.USAGE,
        )
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was changed")
