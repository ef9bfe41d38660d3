"""Running uv: arguments as a list, requirements by standard input, all that it says in the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from starburst.environment.access import without_login
from starburst.environment.lock import full_python
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps
from starburst.errors import EnvironmentBuildError

__all__ = ["KEPT_TO_RESOLVE", "UvFailed", "run_uv", "target_arguments"]

_TIMEOUT_S = 1800.0
_GLIBC_MINORS = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
"""Those that uv knows by name."""

_NOT_OURS = frozenset(
    {
        *(
            "UV_COMPILE_BYTECODE",
            "UV_CONFIG_SETTINGS",
            "UV_CONSTRAINT",
            "UV_EXCLUDE_NEWER",
            "UV_EXCLUDES",
            "UV_NO_BUILD",
        ),
        *(
            "UV_NO_BINARY",
            "UV_ONLY_BINARY",
            "UV_OVERRIDE",
            "UV_PROJECT",
            "UV_PYTHON",
            "UV_QUIET",
            "UV_REQUIRE_HASHES",
        ),
        *("UV_RESOLUTION", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_VERBOSE", "UV_WORKING_DIR", "VIRTUAL_ENV"),
    }
)
"""Settings of a person's own installations, which would change what is asked for here."""

_QUERY = re.compile(r"(?<=\S)(?<!\?)\?[^\s?=]+=[^\s)`'\"]+")
"""Of addresses: tokens and signatures."""
_ANY_INDEX = "unsafe-best-match"
_NOT_FOUND = re.compile(r"was not found in the package registry|there is no version of")
_REFUSED = re.compile(r"\b(?:401 Unauthorized|403 Forbidden|407 Proxy)")

KEPT_TO_RESOLVE = frozenset({"UV_EXCLUDE_NEWER", "UV_EXCLUDES", "UV_OVERRIDE", "UV_RESOLUTION"})
"""Those of them that say which versions a person wants."""


class UvFailed(Exception):  # noqa: N818 - told apart by what it says, then raised as an EnvironmentBuildError
    """uv ended with an error.

    Attributes:
        output: What it said, white space made one, without logins.
        lines: The same, as it stood.
    """

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.lines = output
        self.output = re.sub(r"\s+", " ", output)


def target_arguments(platform: Platform) -> list[str]:
    """Makes uv choose wheels for this platform, by the newest glibc that it knows and the platform has."""
    minor = int(platform.glibc.split(".")[1])
    known = max(figure for figure in _GLIBC_MINORS if figure <= max(minor, _GLIBC_MINORS[0]))
    return [
        *("--python-platform", f"{platform.machine}-manylinux_2_{known}"),
        *("--python-version", full_python(platform)),
    ]


async def run_uv(
    arguments: Sequence[str],
    steps: Steps,
    *,
    cwd: Path,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    resolving: bool = False,
    timeout_s: float = _TIMEOUT_S,
) -> str:
    """Run uv and return what it printed to standard output.

    Raises:
        UvFailed: It ended with an error.
        EnvironmentBuildError: It is not there, or had not ended after ``timeout_s``.
    """
    own = dict(environment or {})

    async def once() -> str:
        return await _run(
            arguments,
            steps,
            cwd=cwd,
            stdin=stdin,
            environment=_environment(own, resolving=resolving),
            timeout_s=timeout_s,
        )

    try:
        return await once()
    except UvFailed as error:
        if own.get("UV_INDEX_STRATEGY") != _ANY_INDEX or not _NOT_FOUND.search(error.output):
            raise
        # Where any index will do, uv passes over one that refuses us, and does not say so.
        own["UV_INDEX_STRATEGY"] = "first-index"
        with contextlib.suppress(EnvironmentBuildError):
            try:
                await once()
            except UvFailed as why:
                if _REFUSED.search(why.output):
                    raise UvFailed(f"{error.lines}\n{why.lines}") from None
        raise


async def _run(
    arguments: Sequence[str],
    steps: Steps,
    *,
    cwd: Path,
    stdin: str,
    environment: Mapping[str, str],
    timeout_s: float,
) -> str:
    command = [_program(), *arguments, "--color", "never", "--no-progress"]
    steps.note(without_login(f"$ uv {' '.join(arguments)}"))
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # ssh and git, which uv runs, find no terminal to ask for a password
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        raise EnvironmentBuildError(
            f"uv did not end in {timeout_s:.0f} seconds: uv {' '.join(arguments[:2])}",
            hint="look at the build log; is an index or a repository out of reach?",
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    said = _QUERY.sub("?…", without_login(err.decode(errors="replace")))
    steps.note(said)
    if process.returncode:
        raise UvFailed(said or f"uv ended with {process.returncode}")
    return out.decode(errors="replace")


def _program() -> str:
    import uv

    try:
        return os.fspath(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise EnvironmentBuildError(
            f"uv, which builds environments, is not where its package says: {error}",
            hint=f"{sys.executable} -m pip install --force-reinstall uv",
        ) from None


def _environment(extra: Mapping[str, str], *, resolving: bool) -> dict[str, str]:
    dropped = _NOT_OURS - (KEPT_TO_RESOLVE if resolving else frozenset())
    own = {name: value for name, value in os.environ.items() if name not in dropped}
    return own | {"UV_PYTHON_DOWNLOADS": "never", "GIT_TERMINAL_PROMPT": "0"} | dict(extra)
