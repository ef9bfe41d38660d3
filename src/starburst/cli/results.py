"""Results: bring what a session has computed into a file."""

import contextlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer

from starburst.cli import exit_codes
from starburst.cli.common import SessionId, StoreURL, TimeText, command, reach
from starburst.cli.output import CommandError, Output
from starburst.errors import CollectTimeout, SessionEnded, StarburstError

__all__ = ["add_to", "jsonable", "write_results"]

_EXAMPLES = """\
starburst collect session-… -o results.pkl
starburst collect session-… -o results.json --timeout 10m
starburst collect session-… -o sofar.pkl --no-wait --on-error skip"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "collect", short_help="Write results into a file.", examples=_EXAMPLES)(collect)


def collect(
    out: Output,
    *,
    session_id: SessionId,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to: .json, or else a pickled list.")
    ],
    wait: Annotated[bool, typer.Option(help="Wait until all tasks are over, or take what is there.")] = True,
    timeout: TimeText = None,
    on_error: Annotated[
        Literal["raise", "return", "skip"],
        typer.Option(help="A failed task: stop here, put its error in its place, or leave it out."),
    ] = "return",
    store: StoreURL = None,
) -> int:
    """Write the results of a session into a file, in the order of submission.

    It can be done again and again: nothing is removed from the session. The exit code is 1 if a task
    failed, whatever --on-error says; the file has been written then, except with "raise". A pickle is read with
    pickle.load; load only files that you wrote yourself.
    """
    from starburst.options import parse_duration_s

    limit_s = None if timeout is None else parse_duration_s("--timeout", timeout)
    if not output.absolute().parent.is_dir():
        raise CommandError(
            f"{output} cannot be written: there is no folder {output.absolute().parent}",
            hint=f"mkdir -p {output.absolute().parent}",
            exit_code=exit_codes.NOT_FOUND,
        )
    session = reach(session_id, store)
    try:
        values = session.collect(wait=wait, timeout=limit_s, on_error=on_error)
    except (CollectTimeout, SessionEnded) as error:
        error.hint = f"to take what is there: starburst collect {session_id} -o {output} --no-wait"
        raise
    status = session.status()
    # A result that is damaged in the store is no failed task, but no result either.
    failed = max(status.failed, sum(isinstance(each, StarburstError) for each in values))
    write_results(output, values)
    answer = {
        "session_id": session_id,
        "file": str(output),
        "results": len(values),
        "total": status.total,
        "failed": failed,
        "bytes": output.stat().st_size,
        "requests": session.requests.total,
    }
    if out.json:
        out.data(answer)
    else:
        from rich.text import Text

        from starburst.ui import text

        told = f"{text.count(len(values))} of {text.plural(status.total, 'result')}"
        bad = f", {text.count(failed)} failed" if failed else ""
        out.result(None, Text(f"{told} in {output} ({text.size(output.stat().st_size)}){bad}"))
    return exit_codes.FAILED if failed else exit_codes.OK


def write_results(path: Path, values: list[Any]) -> None:
    """Write ``values`` to ``path`` by its ending; the file is whole or not there.

    Raises:
        CommandError: The file cannot be written, or cannot hold a value.
    """
    try:
        with _replacing(path) as file:
            if path.suffix == ".json":
                file.write(_as_json(values))
            else:
                _pickle(values, file)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write in place of ``path``: where a link points to, and straight into what is no regular file."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _pickle(values: list[Any], file: IO[bytes]) -> None:
    # As results travel: functions and classes of the user's script go along. pickle.load reads it.
    import cloudpickle

    try:
        cloudpickle.dump(values, file, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CommandError(f"a result cannot be pickled: {error}") from error


def _as_json(values: list[Any]) -> bytes:
    import msgspec

    try:
        return msgspec.json.encode(values, enc_hook=jsonable) + b"\n"
    except (TypeError, ValueError, OverflowError) as error:
        raise CommandError(
            f"a result cannot be written as JSON: {error}", hint="take a file that ends in .pkl"
        ) from error


def jsonable(value: Any) -> Any:
    """What JSON can say for a value that it does not know: arrays as lists, errors as objects.

    Raises:
        TypeError: JSON has nothing for it.
    """
    if isinstance(value, StarburstError):
        known = {name: getattr(value, name) for name in ("task_id", "index") if hasattr(value, name)}
        return {"error": type(value).__name__, "message": value.message, **known}
    # NumPy arrays and scalars, and what imitates them, without importing any of it.
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()
    raise TypeError(f"it holds a {type(value).__module__}.{type(value).__qualname__}")
