"""What all commands share: how they are registered, their common options, how they end."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from starburst.cli import exit_codes
from starburst.cli.output import Output

__all__ = ["SessionId", "StoreURL", "TimeText", "command", "current", "reach"]

Command = Callable[..., int | None]


def _known_sessions(incomplete: str) -> list[str]:
    """Ids for shell completion; silence where the store does not answer."""
    import contextlib

    with contextlib.suppress(Exception):
        import starburst

        return [
            each.session_id for each in starburst.list_sessions() if each.session_id.startswith(incomplete)
        ]
    return []


SessionId = Annotated[
    str, typer.Argument(metavar="ID", help="The session's id.", autocompletion=_known_sessions)
]
StoreURL = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help='Where sessions are: "s3://bucket" or "file:///folder".  [default: as set]',
    ),
]
TimeText = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help='Give up after so long: "30", "10m", "2h".')
]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON for programs, and nothing else, to stdout.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_current = Output()


def current() -> Output:
    """The output of the command that runs, for what happens outside it."""
    return _current


def command(
    app: typer.Typer, name: str, *, examples: str = "", **settings: Any
) -> Callable[[Command], Command]:
    """Register a command; ``--json``, ``--debug`` and the handling of errors are added here.

    Args:
        app: The program or the group it belongs to.
        name: What the user types.
        examples: Worked examples for the help, one a line.
        **settings: More for ``app.command``.

    Returns:
        A decorator for a function whose first argument is the :class:`Output`, and which returns an exit
        code or None for 0. The function itself stays as it is.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def run(*, json: bool, debug: bool, **given: Any) -> None:
            global _current  # noqa: PLW0603 - one process runs one command
            _current = out = Output(json=json, debug=debug)
            try:
                code = function(out, **given)
            except BrokenPipeError:
                # Whoever read our output (head, less) is gone; Python would complain once more on its way out.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = exit_codes.PIPE_CLOSED
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the user sees words, not a traceback
                code = out.fail(error)
            raise typer.Exit(code or exit_codes.OK)

        # Typer reads options from the signature: hide the first argument, show the two common ones.
        own = list(inspect.signature(function).parameters.values())[1:]
        common = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for each, kind in (("json", _Json), ("debug", _Debug))
        ]
        keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        run.__signature__ = inspect.Signature([*keywords, *common])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*keywords, *common)}
        epilog = (
            "\b\nExamples:\n" + "\n".join(f"  $ {line}" for line in examples.splitlines())
            if examples
            else None
        )
        app.command(name, epilog=epilog, **settings)(run)
        return function

    return register


def reach(session_id: str, store: str | None) -> Any:
    """The session of that id, not woken; the import is here so that ``--help`` does not pay for it."""
    from starburst.client.opening import find

    return find(session_id, store)
