"""What a worker's packages are built for."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import Literal

from starburst.errors import OptionError

__all__ = ["GLIBC", "Architecture", "Platform"]

Architecture = Literal["X86_64", "ARM64"]

GLIBC = "2.36"
"""That of Debian 12, on which the stock images `python:X.Y-slim-bookworm` stand."""

_MACHINES: dict[str, Architecture] = {
    "x86_64": "X86_64",
    "amd64": "X86_64",
    "aarch64": "ARM64",
    "arm64": "ARM64",
}
_UV = {"X86_64": "x86_64", "ARM64": "aarch64"}
_OCI = {"X86_64": "amd64", "ARM64": "arm64"}


@dataclass(frozen=True, slots=True)
class Platform:
    """Python's minor version, the processor and the C library of a worker.

    Attributes:
        python: ``"3.11"``.
        architecture: ``X86_64`` or ``ARM64``, as ECS says it.
        glibc: The version of glibc, ``"2.36"``; wheels may ask for that or less.
    """

    python: str
    architecture: Architecture
    glibc: str = GLIBC

    @classmethod
    def of_this_machine(cls) -> Platform:
        """That of the running interpreter.

        Raises:
            OptionError: It is not one that workers run on.
        """
        machine, system = platform.machine().lower(), platform.system()
        libc, version = platform.libc_ver()
        if machine not in _MACHINES or (system, libc) != ("Linux", "glibc"):
            raise OptionError(
                f"an environment cannot be isolated on {system} {machine}{f' with {libc}' if libc else ''}: "
                "workers' packages are built for Linux with glibc on x86-64 or ARM64",
                hint="leave out environment='isolated' on this machine",
            )
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return cls(python, _MACHINES[machine], version)

    @property
    def machine(self) -> str:
        """The processor as Python and uv name it: ``x86_64`` or ``aarch64``."""
        return _UV[self.architecture]

    @property
    def uv_platform(self) -> str:
        """What ``uv --python-platform`` takes: ``x86_64-manylinux_2_36``."""
        return f"{self.machine}-manylinux_{self.glibc.replace('.', '_')}"

    @property
    def oci_architecture(self) -> str:
        """The processor as container images name it: ``amd64`` or ``arm64``."""
        return _OCI[self.architecture]

    def __str__(self) -> str:
        return f"Python {self.python} on Linux {self.machine} (glibc {self.glibc})"
