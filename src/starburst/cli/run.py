"""Run: a script of the user's, under a plan that stands on the command line instead of in the script."""

import builtins
import contextlib
import os
import sys
import time
import traceback
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Annotated, Any

import typer

from starburst.cli import exit_codes
from starburst.cli.common import StoreURL, command
from starburst.cli.output import CommandError, Output
from starburst.errors import StarburstError

__all__ = ["add_to", "execute"]

_EXAMPLES = """\
starburst run --workers 8 simulate.py
starburst run --workers 50 --launch-type FARGATE --cpu 4 --memory 8GB fit.py --fast in.csv"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    # What follows SCRIPT.py belongs to the script, options too.
    command(
        app,
        "run",
        short_help="Run a script, with options for its calls.",
        examples=_EXAMPLES,
        context_settings={"allow_interspersed_args": False},
    )(run)


def run(
    out: Output,
    *,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT.py", help="What to run, as python would.")],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="For the script.")] = None,
    workers: Annotated[int | None, typer.Option(help="How many workers at the most.")] = None,
    slots: Annotated[int | None, typer.Option(help="Tasks at a time in each worker.")] = None,
    launch_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="What starts the workers, such as LOCAL.")
    ] = None,
    cpu: Annotated[float | None, typer.Option(help="vCPUs of a worker (cloud).")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help='What the tasks of a worker may hold together: "8GB".')
    ] = None,
    region: Annotated[str | None, typer.Option(help="AWS region.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help='Of one task: "30", "10m".')] = None,
    retries: Annotated[int | None, typer.Option(help="How often a task that raised is run again.")] = None,
    store: StoreURL = None,
) -> int:
    """Run a script as python would, with these options as the defaults of its starburst calls.

    The exit code is the script's. With --json its own stdout goes to stderr, and one object is written at
    the end.
    """
    from starburst.config import load_settings

    options = {
        "workers": workers,
        "slots": slots,
        "launch_type": launch_type,
        "cpu": cpu,
        "memory": memory,
        "region": region,
        "timeout": timeout,
        "retries": retries,
        "store": store,
    }
    if not script.is_file():
        raise CommandError(f"there is no script {script}", exit_code=exit_codes.NOT_FOUND)
    given = {name: value for name, value in options.items() if value is not None}
    load_settings().options().merged(given)  # refuses wrong values before anything runs
    # As settings of the environment they hold in the script's threads and child processes too.
    os.environ.update({f"STARBURST_{name.upper()}": str(value) for name, value in given.items()})
    started = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr) if out.json else contextlib.nullcontext():
        code = _exit_code(out, script, args or [])
    if out.json:
        out.data({"script": str(script), "exit_code": code, "seconds": round(time.monotonic() - started, 3)})
    return code


def execute(script: Path, args: list[str]) -> None:
    """Run a script as ``__main__``, the way ``python script.py`` does; its module stays in place afterwards.

    Raises:
        BaseException: Whatever the script raises.
    """
    path = script.resolve()
    module = types.ModuleType("__main__")
    attributes: dict[str, Any] = {
        "__file__": str(path),
        "__builtins__": builtins,
        "__loader__": SourceFileLoader("__main__", str(path)),
    }
    vars(module).update(attributes)
    code = compile(path.read_bytes(), str(path), "exec")
    # Workers import the modules beside the script from where the script finds them: sys.path.
    sys.modules["__main__"] = module
    sys.argv = [str(script), *args]
    sys.path.insert(0, str(path.parent))
    exec(code, vars(module))  # noqa: S102 - this is what the command is for


def _exit_code(out: Output, script: Path, args: list[str]) -> int:
    try:
        execute(script, args)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or exit_codes.OK
        print(error.code, file=sys.stderr)
        return exit_codes.FAILED
    except StarburstError as error:
        # In a script the whole story is wanted: a failed task's own traceback is part of the text.
        print(f"starburst: {error}" if not out.debug else traceback.format_exc(), file=sys.stderr)
        return exit_codes.code_of(error)
    except Exception as error:  # noqa: BLE001 - reported as python itself would
        traceback.print_exception(error.with_traceback(_from_script(error, script)))
        return exit_codes.FAILED
    return exit_codes.OK


def _from_script(error: BaseException, script: Path) -> types.TracebackType | None:
    """The traceback without our own frames, which stand above the script's."""
    frames, name = error.__traceback__, str(script.resolve())
    while frames is not None and frames.tb_frame.f_code.co_filename != name:
        frames = frames.tb_next
    return frames
