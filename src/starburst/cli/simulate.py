"""Simulate: an AWS account on this machine, for as long as a command runs or until Ctrl-C."""

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from starburst.cli import exit_codes
from starburst.cli.common import command
from starburst.cli.output import CommandError, Output

__all__ = ["add_to"]

_EXAMPLES = """\
starburst simulate -- python pipeline.py
starburst simulate --runtime podman -- bash
starburst simulate"""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    settings = {"short_help": "Run a simulated AWS account, for tests of your own programs."}
    command(app, "simulate", examples=_EXAMPLES, **settings)(simulate)


def simulate(
    out: Output,
    *,
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND ARGS...]", help="Run this in it, then stop it.", show_default=False
        ),
    ] = None,
    runtime: Annotated[
        Literal["process", "podman"], typer.Option(help="What the containers of ECS tasks are.")
    ] = "process",
    region: Annotated[str, typer.Option(metavar="REGION", help="Where clients are sent.")] = "us-east-1",
    registry: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="With podman: the registry that stands for ECR.")
    ] = "",
) -> int:
    """Start an AWS account on this machine: ECS that really runs things, S3, IAM, logs, EC2 hosts, quotas.

    Prints the variables that make AWS clients use it, and stops it with Ctrl-C. With a command, it is run with
    those variables set, and its exit code is returned.
    """
    from starburst.testing.aws import SimulatedAws

    # A variable of the user's that we did not set would lead the command back to the real AWS.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with _interrupted_by_sigterm(), SimulatedAws(runtime=runtime, region=region, registry=registry) as aws:
        if run:
            return _run(run, {**own, **aws.environment})
        if out.json:
            out.data({"environment": aws.environment})
        else:
            for name, value in aws.environment.items():
                print(f"export {name}={shlex.quote(value)}", flush=True)
            out.note("The simulated AWS runs until Ctrl-C.")
        _wait()
    return exit_codes.OK


def _run(arguments: list[str], environment: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(arguments, env=environment)
    except OSError as error:
        raise CommandError(
            f"{arguments[0]} cannot be started: {error.strerror}.", exit_code=exit_codes.USAGE
        ) from error
    # Ctrl-C reaches the command as well, SIGTERM only us; either way it decides what comes of it.
    signal.signal(signal.SIGTERM, lambda _number, _frame: process.terminate())
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            code = process.wait()
            return 128 - code if code < 0 else code


def _wait() -> None:
    """Until Ctrl-C, or until whoever holds the other end of a pipe on standard input lets go of it."""
    with contextlib.suppress(KeyboardInterrupt):
        if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            sys.stdin.buffer.read()
            return
        while True:
            signal.pause()


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
