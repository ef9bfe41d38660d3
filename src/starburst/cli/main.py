"""The command line: ``starburst COMMAND``. Commands import what they need when they run, so help is quick."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from starburst._version import __version__
from starburst.cli import (
    config,
    demo,
    env,
    exit_codes,
    logs,
    results,
    run,
    sessions,
    setup,
    simulate,
    sweep,
    teardown,
    version,
    worker,
)
from starburst.cli.common import current
from starburst.cli.output import Output

__all__ = ["app", "main"]

_HELP = """Parallel Python on your own AWS account, or on this machine.

Start with "starburst demo": it needs no account and shows everything at work. "starburst COMMAND --help"
explains a command with examples."""

_CODES = "\b\nExit codes:\n" + "\n".join(
    f"  {code:>3}  {meaning}" for code, meaning in exit_codes.MEANINGS.items()
)

# Typer's rich help would import rich before the first letter is printed.
app = typer.Typer(
    name="starburst",
    help=_HELP,
    epilog=_CODES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _noun in (
    demo,
    run,
    sessions,
    results,
    logs,
    worker,
    config,
    setup,
    teardown,
    sweep,
    env,
    simulate,
    version,
):
    _noun.add_to(app)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if show_version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What was typed after ``starburst``; None for the process's own.

    Returns:
        The exit code, see :mod:`starburst.cli.exit_codes`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result: Any = typer.main.get_command(app)(arguments, prog_name="starburst", standalone_mode=False)
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "starburst")
        out = Output(json="--json" in arguments)
        return out.usage(error.format_message(), hint=f"{path} --help")
    except (typer.Abort, KeyboardInterrupt) as error:
        return current().fail(KeyboardInterrupt() if isinstance(error, typer.Abort) else error)
    return result if isinstance(result, int) else exit_codes.OK


if __name__ == "__main__":
    sys.exit(main())
