"""What uv says when it cannot install, put into words: which package, why, and the ways out."""

from __future__ import annotations

import re
from collections.abc import Callable

from starburst.environment.platforms import Platform
from starburst.environment.uv import UvFailed
from starburst.errors import EnvironmentBuildError

__all__ = ["compiles", "disk_full", "explained", "without_wheel"]

_NAME = r"([A-Za-z0-9][A-Za-z0-9._-]*)"
_PACKAGE = _NAME + r"==([^\s,`]+)"
_NO_WHEEL = re.compile(_PACKAGE + r" has no (?:usable wheels|wheels with a matching)")
_NO_VERSION = re.compile(r"there is no version of " + _PACKAGE)
_UNKNOWN = re.compile(_NAME + r" was not found in the (?:package registry|provided package locations|cache)")
_OTHER_PYTHON = re.compile(r"does not satisfy Python(\S+) and " + _PACKAGE)
_DEPENDS_ON_PYTHON = re.compile(_PACKAGE + r" depends on Python(\S+?)[,. ]")
_AVAILABLE = re.compile(
    r"(?:on the following platforms?|with the following [A-Za-z ]*tags?): (.*?)(?: hint:|$)"
)
_BUILD = re.compile(r"Failed to (?:download and )?build `([^`]+)`")
_HASH = re.compile(r"Hash mismatch for `([^`]+)`")
_REFUSED = re.compile(r"\b(401 Unauthorized|403 Forbidden|407 Proxy)")
_URL = re.compile(r"https?://[^\s`)]+")
_GONE = re.compile(r"\(404 Not Found\) for url \(([^)]+)\)|404 Not Found")
_UNREACHABLE = re.compile(
    r"dns error|[Cc]onnection refused|[Cc]onnection reset|timed out|[Nn]etwork is unreachable|error sending request|"
    r"Could not connect|Couldn't connect|Could not resolve host|tls handshake|invalid peer certificate"
)
_GIT = re.compile(r"Git operation failed.*?(fatal: .*?)(?: hint:|$)")
_COMPILER = re.compile(
    r"Command '?\[?'?false|command '?\S*(?:false|gcc|cc|clang)'? failed|Unknown compiler|[Cc]ompiler|\[ERROR\] .*cc\b|"
    r"cargo|rustc|CMake|ninja|Cython|not compatible with the target Python|\bfalse\b"
)


def compiles(error: UvFailed) -> bool:
    """Whether a build failed for want of a compiler."""
    return bool(_COMPILER.search(error.output))


def without_wheel(error: UvFailed) -> tuple[str, str] | None:
    """The package, name and version, that has no wheel which fits; None if uv failed for another reason."""
    found = _NO_WHEEL.search(error.output)
    return (found[1], found[2]) if found else None


def disk_full(where: str) -> EnvironmentBuildError:
    """There is no space left."""
    return EnvironmentBuildError(
        f"the disk is full: the environment could not be written to {where}",
        hint="make space (uv cache prune frees some), or set STARBURST_CACHE_DIR, UV_CACHE_DIR and TMPDIR "
        "to another disk",
    )


def no_wheel(name: str, version: str, platform: Platform, *, why: str) -> EnvironmentBuildError:
    """The three ways out, for a package that is not to be had for the platform."""
    other = "X86_64" if platform.architecture == "ARM64" else "ARM64"
    return EnvironmentBuildError(
        f"{name} {version} cannot be had for {platform}: {why}",
        hint=f"take another version of {name} that has a wheel for {platform.machine}; or workers of another kind "
        f'(architecture="{other}", or an instance_type of it); or build with "docker", which can compile',
    )


def explained(error: UvFailed, platform: Platform, what: str) -> EnvironmentBuildError:
    """The error for what uv said; ``what`` is for what is not known in advance."""
    for reading in _READINGS:
        found = reading(error.output, platform)
        if found is not None:
            return found
    reason = error.lines.strip().removeprefix("error: ")
    return EnvironmentBuildError(f"{what}: {reason[-2000:]}", hint="the build log says more")


def _full(said: str, _: Platform) -> EnvironmentBuildError | None:
    return disk_full("this machine") if re.search(r"No space left|os error 28\b|Disk quota", said) else None


def _refused(said: str, _: Platform) -> EnvironmentBuildError | None:
    found = _REFUSED.search(said)
    if not found:
        return None
    url, unknown = _URL.search(said), _UNKNOWN.search(said)  # the first: what was asked for
    index = url[0].rstrip(".,") if url else "an index"
    package = f", so {unknown[1]} was not found" if unknown else ""
    return EnvironmentBuildError(
        f"{index} refused us ({found[1]}){package}: credentials are missing or wrong",
        hint="give uv or pip a login for it: a line in ~/.netrc, UV_INDEX_<NAME>_USERNAME and _PASSWORD for a named "
        "index, a keyring (UV_KEYRING_PROVIDER=subprocess), or index-url in pip.conf; starburst stores none of it",
    )


def _no_wheel(said: str, platform: Platform) -> EnvironmentBuildError | None:
    found = _NO_WHEEL.search(said)
    if not found:
        return None
    there = _AVAILABLE.search(said)
    why = f"there are wheels for {there[1].strip()} only" if there else "there is no wheel for it"
    return no_wheel(found[1], found[2], platform, why=why.replace("`", ""))


def _other_python(said: str, platform: Platform) -> EnvironmentBuildError | None:
    found = _OTHER_PYTHON.search(said)
    if found:
        needs, name, version = found.groups()
    elif (found := _DEPENDS_ON_PYTHON.search(said)) is not None:
        name, version, needs = found.groups()
    else:
        return None
    return EnvironmentBuildError(
        f"{name} {version} is for Python {needs}, workers run Python {platform.python}, as you do here",
        hint=f"lock the project for Python {platform.python}, or run your script with a Python that fits",
    )


def _no_version(said: str, _: Platform) -> EnvironmentBuildError | None:
    found = _NO_VERSION.search(said)
    if not found:
        return None
    name, version = found.groups()
    if "+" in version:
        return EnvironmentBuildError(
            f"no index that is set has {name} {version}: it was installed from one that pip or uv were told of in "
            "passing",
            hint="name that index in pip.conf (extra-index-url), UV_INDEX or [[tool.uv.index]]",
        )
    return EnvironmentBuildError(
        f"no index has {name} {version}: it was withdrawn, or comes from an index that is not set",
        hint=f"lock another version of {name}; or name its index in UV_INDEX or pip.conf; or leave {name} out: "
        f'exclude_packages = ["{name}"] in [tool.starburst]',
    )


def _unknown(said: str, _: Platform) -> EnvironmentBuildError | None:
    found = _UNKNOWN.search(said)
    if not found:
        return None
    return EnvironmentBuildError(
        f"no index knows a package {found[1]}",
        hint="name the index that has it in UV_INDEX or pip.conf; or leave it out: "
        f'exclude_packages = ["{found[1]}"] in [tool.starburst]',
    )


def _hash(said: str, _: Platform) -> EnvironmentBuildError | None:
    found = _HASH.search(said)
    if not found:
        return None
    return EnvironmentBuildError(
        f"the archive of {found[1]} is not the one that was locked: its hash differs",
        hint="if its makers have replaced it, lock the project again; else find out who did",
    )


def _git(said: str, _: Platform) -> EnvironmentBuildError | None:
    if "Git operation failed" not in said:
        return None
    package, reason = _BUILD.search(said), _GIT.search(said)
    return EnvironmentBuildError(
        f"{package[1] if package else 'a package'} cannot be fetched by git"
        + (f": {reason[1].strip()}" if reason else ""),
        hint="see that `git ls-remote` with this address works here, without being asked for a password",
    )


def _gone(said: str, _: Platform) -> EnvironmentBuildError | None:
    found = _GONE.search(said)
    if not found:
        return None
    return EnvironmentBuildError(
        f"{found[1] or 'an archive of the lock'} is no longer there (404 Not Found)",
        hint="lock the project again",
    )


def _unreachable(said: str, _: Platform) -> EnvironmentBuildError | None:
    found = _UNREACHABLE.search(said)
    if not found:
        return None
    url = _URL.search(said)
    return EnvironmentBuildError(
        f"{url[0].rstrip('.,') if url else 'the index'} cannot be reached: {found[0]}",
        hint="check the network, HTTPS_PROXY and SSL_CERT_FILE, and the index that uv or pip are set to; packages "
        "that uv has in its cache need no network: UV_OFFLINE=1",
    )


def _build(said: str, platform: Platform) -> EnvironmentBuildError | None:
    found = _BUILD.search(said)
    if not found:
        return None
    name, _, version = found[1].partition("==")
    name = name.split(" @ ")[0]
    if _COMPILER.search(said):
        return no_wheel(name, version, platform, why="it is source code that has to be compiled")
    reason = said[found.end() :].split(" hint: ", maxsplit=1)[0].strip()
    return EnvironmentBuildError(
        f"{name}{f' {version}' if version else ''} comes as source code, and its build failed: {reason[-800:]}",
        hint=f'take a version of {name} that has a wheel, or build with "docker"; the build log says more',
    )


_READINGS: tuple[Callable[[str, Platform], EnvironmentBuildError | None], ...] = (
    *(
        _full,
        _refused,
        _no_wheel,
        _other_python,
        _no_version,
        _hash,
        _git,
        _gone,
        _unreachable,
        _build,
        _unknown,
    ),
)
