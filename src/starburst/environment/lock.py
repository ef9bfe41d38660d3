"""What a worker gets: one exact list of packages for one platform, named by its hash."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from starburst.environment.access import Access
from starburst.environment.platforms import Platform

__all__ = [
    "FROM_FILE",
    "FROM_INDEX",
    "FROM_INSTALLED",
    "Lock",
    "Requirement",
    "marker_environment",
    "normalized",
]

FROM_INDEX = ""
FROM_FILE = "file"
FROM_INSTALLED = "installed"

_HOW_TO_ADD = {
    "uv.lock": "uv add {}",
    "poetry.lock": "poetry add {}",
    "installed": "pip install {}",
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One package in one version.

    Attributes:
        name: As indexes spell it: lower case, ``-`` between words.
        version: Exact; empty where only building it would tell.
        source: `FROM_INDEX`; the address of an archive; ``git+https://…@commit``; `FROM_FILE`, a wheel or source
            archive of this machine, known by its hash; `FROM_INSTALLED`, the files that the running interpreter has.
            Never with a password.
        hashes: ``sha256:…`` of the archives that may be taken; of the files, for `FROM_INSTALLED`.
        path: Of a `FROM_FILE`; not part of what the lock says.
        subdirectory: Where in the archive or repository the package is.
        variables: Hash of the source with its ``${VARIABLES}`` filled in, which may be secrets; empty without any.
    """

    name: str
    version: str = ""
    source: str = FROM_INDEX
    hashes: tuple[str, ...] = ()
    path: Path | None = field(default=None, compare=False)
    subdirectory: str = ""
    variables: str = ""

    @property
    def line(self) -> str:
        """The requirement as uv and pip read it; a comment tells what does not come from an index."""
        hashes = "".join(f" --hash={value}" for value in sorted(self.hashes))
        if self.source in {FROM_INDEX, FROM_FILE}:
            return f"{self.name}=={self.version}{hashes}" + ("  # a file" if self.source else "")
        if self.source == FROM_INSTALLED:
            return f"{self.name}=={self.version}  # as installed, {' '.join(self.hashes)}"
        return (
            self.located(self.source)
            + hashes
            + (f"  # as set here, {self.variables}" if self.variables else "")
        )

    def located(self, url: str) -> str:
        """The requirement with this address."""
        return f"{self.name} @ {url}" + (f"#subdirectory={self.subdirectory}" if self.subdirectory else "")

    def __str__(self) -> str:
        return f"{self.name} {self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class Lock:
    """All packages of a worker.

    Attributes:
        platform: What they are for.
        requirements: Sorted by name, each name once.
        source_name: Where they come from: ``uv.lock``, ``requirements.txt``, ``installed``, ...
        editables: Folders of packages that are worked on; they travel with the code, not in the image.
        folder: Where uv reads the project's settings, if it has any.
        access: How to get at the packages: indexes and logins. Lives in memory only.
    """

    platform: Platform
    requirements: tuple[Requirement, ...]
    source_name: str
    editables: tuple[Path, ...]
    folder: Path
    access: Access = field(default_factory=Access, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        platform: Platform,
        requirements: Iterable[Requirement],
        *,
        source_name: str,
        folder: Path,
        editables: Iterable[Path] = (),
        access: Access | None = None,
    ) -> Lock:
        """Sorted, and each package once."""
        unique = {requirement.name: requirement for requirement in requirements}
        ordered = tuple(unique[name] for name in sorted(unique))
        folders = tuple(sorted(set(editables)))
        return cls(platform, ordered, source_name, folders, folder, access or Access())

    def text(self) -> str:
        """One line for each package; what is kept and shown. Holds no password and no path of this machine."""
        return "".join(f"{requirement.line}\n" for requirement in self.requirements)

    @property
    def sha256(self) -> str:
        """The lock's name: of the text and the platform."""
        return hashlib.sha256(f"{self.platform}\n{self.text()}".encode()).hexdigest()

    @property
    def how_to_add(self) -> str:
        """What a person does to have one more package in it; ``{}`` stands for its name."""
        return _HOW_TO_ADD.get(self.source_name, f"add {{}} to {self.source_name}")

    @property
    def versions(self) -> dict[str, str]:
        """The version of each package, by name."""
        return {requirement.name: requirement.version for requirement in self.requirements}


def normalized(name: str) -> str:
    """A package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def marker_environment(platform: Platform) -> dict[str, str]:
    """What markers such as ``platform_machine == "x86_64"`` are evaluated against: the worker, not this machine."""
    return {
        "implementation_name": "cpython",
        "implementation_version": full_python(platform),
        "os_name": "posix",
        "platform_machine": platform.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full_python(platform),
        "python_version": platform.python,
        "sys_platform": "linux",
    }


def full_python(platform: Platform) -> str:
    """The worker's Python with its last figure: the running one's, or that of a late release."""
    running = sys.version_info
    micro = running.micro if platform.python == f"{running.major}.{running.minor}" else 99
    return f"{platform.python}.{micro}"
