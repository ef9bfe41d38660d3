"""What went wrong in the build of an image, read from what the builder printed, and the ways out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from starburst.environment.dockerfile import CHECKED, Recipe
from starburst.errors import EnvironmentBuildError

__all__ = ["WAYS_OUT", "build_failed"]

_REMOTE = 'starburst setup --remote-build, then build = "codebuild" in [tool.starburst]'
WAYS_OUT = f"install podman or Docker, or let AWS build: {_REMOTE}"
_Explain = Callable[[re.Match[str], Recipe], tuple[str, str]]
_LINES = 15
_STEP = re.compile(r"^(?:STEP \d+(?:/\d+)?: |#\d+ \[[^\]]*\d+/\d+\] |Step \d+/\d+ : )(?P<step>.+)$")
_NO_PACKAGE = re.compile(
    r"E: (?:Unable to locate package (\S+)|Package '([^']+)' has no installation candidate"
    r"|Version '[^']*' for '([^']+)' was not found|Couldn't find any package by (?:glob|regex) '([^']+)')"
)
_NO_NETWORK = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect to|Network is unreachable|no such host"
    r"|i/o timeout|connection refused|TLS handshake timeout|Unable to connect to",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|disk quota exceeded|not enough free space", re.IGNORECASE)
_FOREIGN = re.compile(r"exec format error", re.IGNORECASE)
_NO_PYTHON = re.compile(r"exec(?:utable file)?:? \"?`?python\"?`?\"?[^\n]*not found", re.IGNORECASE)
_REFUSED = re.compile(
    r"unauthorized|authentication required|access denied|pull access denied|no basic auth credentials|403 Forbidden"
    r"|denied: ",
    re.IGNORECASE,
)
_NO_IMAGE = re.compile(
    r"manifest unknown|name unknown|manifest for \S+ not found|: not found$", re.IGNORECASE
)
_RATE = re.compile(r"toomanyrequests|pull rate limit", re.IGNORECASE)
_CHECK = re.compile(rf"{CHECKED}: Python (\S+) (\S+) (\S+) (\S+)")


def build_failed(lines: Sequence[str], recipe: Recipe, builder: str) -> EnvironmentBuildError:
    """The error for a build that failed.

    Args:
        lines: All that was printed.
        recipe: What was built.
        builder: Who built it.
    """
    what, hint = _cause("\n".join(lines), recipe)
    steps = [match["step"] for line in lines if (match := _STEP.match(line))]
    at = f", at the step {_short(steps[-1])}" if steps and CHECKED not in steps[-1] else ""
    last = "".join(f"\n  | {line}" for line in [line for line in lines if line.strip()][-_LINES:])
    return EnvironmentBuildError(
        f"{builder} could not build the image of {recipe.source_name}{at}: {what}{last}", hint=hint
    )


def _cause(text: str, recipe: Recipe) -> tuple[str, str]:
    for pattern, explain in _CAUSES:
        if found := pattern.search(text):
            return explain(found, recipe)
    return "a step failed", "look at its last lines above, and at the whole build log"


def _says(what: str, hint: str) -> _Explain:
    return lambda _found, _recipe: (what, hint)


def _no_emulation(_found: re.Match[str], recipe: Recipe) -> tuple[str, str]:
    ways = (
        "take workers of this machine's architecture (instance_type), install emulation (Debian: apt install "
    )
    return (
        f"this machine cannot run programs for {recipe.platform.machine}, and nothing emulates them",
        f"{ways}qemu-user-static), or let AWS build: {_REMOTE}",
    )


def _wrong_python(found: re.Match[str], recipe: Recipe) -> tuple[str, str]:
    wanted = recipe.platform
    python, machine, libc, version = found.groups()
    if python != wanted.python:
        return (
            f"its python is {python}, and workers need {wanted.python}, as this program has",
            f"take FROM python:{wanted.python}-slim-bookworm, or run this program with Python {python}",
        )
    if machine != wanted.machine:
        return f"it is for {machine}, not for {wanted.machine}", "check --platform and the image after FROM"
    return (
        f"its C library is {libc} {version}, and the workers' packages are for glibc {wanted.glibc} or newer",
        f"take FROM python:{wanted.python}-slim-bookworm: images of Alpine and of old systems do not do",
    )


def _no_python(_found: re.Match[str], recipe: Recipe) -> tuple[str, str]:
    stock = f"FROM python:{recipe.platform.python}-slim-bookworm"
    return (
        "the image has no program named python on its PATH",
        f"take {stock}, or add RUN ln -s /usr/bin/python3 /usr/local/bin/python",
    )


def _no_package(found: re.Match[str], recipe: Recipe) -> tuple[str, str]:
    names = _NO_PACKAGE.findall(found.string)
    missing = ", ".join(dict.fromkeys("".join(groups) for groups in names))
    return (
        f"Debian has no package {missing} (in this version, for {recipe.platform.machine})",
        "look for its name at packages.debian.org: names of libraries hold a version, such as libgdal32",
    )


_CAUSES: tuple[tuple[re.Pattern[str], _Explain], ...] = (
    (
        _FULL,
        _says(
            "there is no space left on the disk of the builder",
            "make room: podman system prune, docker system prune",
        ),
    ),
    (_FOREIGN, _no_emulation),
    (_CHECK, _wrong_python),
    (_NO_PYTHON, _no_python),
    (
        _RATE,
        _says(
            "the registry of the base image allows no more downloads now",
            "log in to it, or try again in an hour",
        ),
    ),
    # Without a network apt finds no package either: that is not the reason.
    (
        _NO_NETWORK,
        _says(
            "the builder has no network, or a server does not answer",
            "check the network and the proxy of the builder",
        ),
    ),
    (_NO_PACKAGE, _no_package),
    (
        _REFUSED,
        _says(
            "a registry refuses to give out the base image, or there is none of that name",
            "log in to that registry (podman login, docker login), or check the name after FROM",
        ),
    ),
    (_NO_IMAGE, _says("the base image is not there", "check the name after FROM")),
)
"""The first that fits counts."""


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
