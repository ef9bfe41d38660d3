"""Whether a worker fits its session: asked before its first claim, answered in words that reach the user."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

import cloudpickle

from starburst.container import LOCK_VARIABLE
from starburst.protocol.records import Manifest

__all__ = ["misfit"]

_MACHINES = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}


def misfit(manifest: Manifest, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why this process must not work for the session; None if it may.

    Args:
        manifest: The session's.
        environ: This process's variables.
    """
    theirs = manifest.environment
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if theirs.python != ours or theirs.implementation != sys.implementation.name:
        return (
            f"this worker runs {sys.implementation.name} {ours}, the session was made with "
            f"{theirs.implementation} {theirs.python}; pickled functions do not pass between them"
        )
    if theirs.cloudpickle and _series(theirs.cloudpickle) != _series(cloudpickle.__version__):
        return (
            f"this worker has cloudpickle {cloudpickle.__version__}, the session was made with "
            f"cloudpickle {theirs.cloudpickle}; functions pickled by one may not load in the other"
        )
    machine = platform.machine()
    if theirs.architecture and _MACHINES.get(machine.lower(), machine) != theirs.architecture:
        return f"this worker's processor is {machine}, the session's packages were built for {theirs.architecture}"
    lock = environ.get(LOCK_VARIABLE, "")
    if theirs.lock and lock != theirs.lock:
        has = f"from another list ({lock[:12]})" if lock else "from no list that is known"
        return (
            f"this worker's packages were installed {has}, the session needs those of the list {theirs.lock[:12]}; "
            "start it from the image, or the environment, that was built for the session"
        )
    return None


def _series(version: str) -> list[str]:
    """Major and minor number: what is pickled by 3.1.0 loads in 3.1.2."""
    return version.split(".")[:2]
