"""Workers on this machine that have the packages of a lock and nothing else: the option ``environment``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starburst.compute.base import LaunchSpec, PlaceEnvironment
from starburst.container import LOCK_VARIABLE
from starburst.errors import ProviderError
from starburst.options import Options

__all__ = ["Isolated", "prepare_isolated"]

_KEY = "isolated"
_OF_ANOTHER_PYTHON = ("PYTHONHOME", "PYTHONPLATLIBDIR")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Isolated:
    """What workers run.

    Attributes:
        python: A Python without packages.
        packages: The folder that these are in.
        lock: Hash of their list.
    """

    python: str
    packages: str
    lock: str

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Isolated | None:
        """What a session's manifest says; None if its workers use what is installed here.

        Raises:
            ProviderError: It says something else.
        """
        if _KEY not in deployment:
            return None
        try:
            return cls(**deployment[_KEY])
        except TypeError as error:
            raise ProviderError(
                f"What the session says of its workers' packages cannot be read: {error}.",
                hint="Use the version of starburst that made the session.",
            ) from error

    @property
    def deployment(self) -> dict[str, Any]:
        """What the manifest keeps."""
        return {_KEY: {"python": self.python, "packages": self.packages, "lock": self.lock}}

    def check(self) -> None:
        """Refuse to start workers of which something is gone.

        Raises:
            ProviderError: The cache was emptied, or the session is another machine's.
        """
        for path in (Path(self.python), Path(self.packages)):
            if not path.exists():
                raise ProviderError(
                    f"No worker can be started: {path}, which the session's packages are run with, is not here.",
                    hint="Submit from a new session: then they are installed again.",
                )

    def spec(self, spec: LaunchSpec) -> LaunchSpec:
        """What starts workers that find these packages, and nothing of the Python that we run in."""
        programs = [str(Path(self.python).parent), str(Path(self.packages) / "bin")]
        env = {
            **{name: "" for name in _OF_ANOTHER_PYTHON if name in os.environ},  # Python takes that for unset
            **spec.env,
            "PATH": os.pathsep.join([*programs, os.environ.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(Path(self.python).parents[1]),
            "PYTHONPATH": self.packages,
            LOCK_VARIABLE: self.lock,
        }
        return replace(spec, python=self.python, env=env)

    @staticmethod
    def command(command: Sequence[str]) -> list[str]:
        """The command line of such a worker: modules of the folder that it starts in are none of its own."""
        return [command[0], "-P", *command[1:]]


async def prepare_isolated(options: Options) -> tuple[Isolated, PlaceEnvironment]:
    """Install what the option ``environment`` asks for, unless it is there.

    Raises:
        OptionError: There is no such list, or this machine is of a kind that has no such workers.
        EnvironmentBuildError: The packages cannot be had for this machine.
    """
    # Not for those who do without: this takes as long to import as all the rest.
    from starburst.environment.finding import script_folder
    from starburst.environment.isolated import bare_python, unpacked_packages
    from starburst.environment.platforms import Platform
    from starburst.environment.settings import project_lock, project_settings
    from starburst.environment.steps import logged

    folder = script_folder(sys.modules.get("__main__"))
    platform = Platform.of_this_machine()
    with logged(log) as steps:
        settings = project_settings(folder)
        if settings.system_packages or settings.dockerfile:
            log.warning(
                "system_packages and dockerfile are for images: workers on this machine use its own system libraries"
            )
        lock = await project_lock(folder, settings, platform, steps, choice=options.environment)
        packages = await unpacked_packages(lock, steps)
        python = await bare_python()
    return Isolated(str(python), str(packages), lock.sha256), PlaceEnvironment.of(lock)
