"""What a project says of its workers' environment: ``[tool.starburst]`` in ``pyproject.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from starburst.environment.finding import find_lock, project_root
from starburst.environment.lock import Lock
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps
from starburst.errors import ConfigError

__all__ = ["ISOLATED", "PROJECT_KEYS", "ProjectSettings", "project_lock", "project_settings"]

ISOLATED = "isolated"
"""The value of the option ``environment`` that asks for packages of workers' own, whichever list these come from."""


@dataclass(frozen=True, slots=True)
class _Table:
    """The keys, as they are written; ``include`` and ``exclude`` are about files, see :mod:`.code_rules`."""

    environment: str | None = None
    extras: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    exclude_packages: list[str] = field(default_factory=list)
    base_image: str | None = None
    system_packages: list[str] = field(default_factory=list)
    dockerfile: str | None = None
    engine: str | None = None
    build: str | None = None
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)


_ONE_OF = {"engine": ("docker", "podman", "buildah"), "build": ("codebuild",)}

PROJECT_KEYS = tuple(_Table.__dataclass_fields__)
"""The keys that a project may have."""


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """See docs/environments.md.

    Attributes:
        folder: Where the project is, or the script if it is in none.
        environment: Where the list of packages comes from, as the option of that name.
        extras: Of the project.
        groups: Dependency groups.
        exclude_packages: Packages that workers do without.
        base_image: What images stand on; None means the stock image of the Python.
        system_packages: Debian packages.
        dockerfile: A Dockerfile of the project's own, for the base.
        engine: What builds Dockerfiles.
        build: ``codebuild``: they are built in the account.
    """

    folder: Path
    environment: str | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    exclude_packages: tuple[str, ...] = ()
    base_image: str | None = None
    system_packages: tuple[str, ...] = ()
    dockerfile: Path | None = None
    engine: str | None = None
    build: str | None = None


def project_settings(folder: Path) -> ProjectSettings:
    """Read them for a script in ``folder``.

    Raises:
        ConfigError: The file cannot be read, or says something that is not known.
    """
    root = project_root(folder) or folder
    path = root / "pyproject.toml"
    if not path.is_file():
        return ProjectSettings(root)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        table = msgspec.convert(content.get("tool", {}), dict[str, Any]).get("starburst", {})
        known = {
            name.replace("-", "_"): value for name, value in msgspec.convert(table, dict[str, Any]).items()
        }
        found = msgspec.convert(known, _Table)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"[tool.starburst] of {path} is wrong: {error}", hint="see docs/environments.md"
        ) from error
    unknown = sorted(known.keys() - set(PROJECT_KEYS))
    if unknown:
        raise ConfigError(
            f"[tool.starburst] of {path} has {', '.join(unknown)}, which is not known",
            hint=f"it may have {', '.join(PROJECT_KEYS)}",
        )
    _check(found, path)
    return ProjectSettings(
        root,
        environment=found.environment,
        extras=tuple(found.extras),
        groups=tuple(found.groups),
        exclude_packages=tuple(found.exclude_packages),
        base_image=found.base_image,
        system_packages=tuple(found.system_packages),
        dockerfile=root / found.dockerfile if found.dockerfile else None,
        engine=found.engine,
        build=found.build,
    )


def _check(found: _Table, path: Path) -> None:
    """Refuse what would have no effect, before anything is built."""
    for name, values in _ONE_OF.items():
        value = getattr(found, name)
        if value is not None and value not in values:
            raise ConfigError(
                f"{name} = {value!r} in [tool.starburst] of {path} is not known",
                hint=f"it may be {', '.join(values)}; or leave it out",
            )
    beside = [name for name in ("base_image", "system_packages") if getattr(found, name)]
    if found.dockerfile and beside:
        raise ConfigError(
            f"[tool.starburst] of {path} has a dockerfile, and {' and '.join(beside)}, which would have no effect",
            hint="put them into the Dockerfile: FROM, and RUN apt-get install",
        )


async def project_lock(
    folder: Path,
    settings: ProjectSettings,
    platform: Platform,
    steps: Steps,
    *,
    choice: str | None,
    refresh: bool = False,
) -> Lock:
    """The list of packages for a script, as the option ``environment`` and the project's settings say.

    Args:
        folder: Of the script.
        settings: The project's.
        platform: What workers run on.
        steps: Gets the step ``lock``.
        choice: The option; None and `ISOLATED` leave it to the settings, and these to what is found.
        refresh: Resolve requirements anew, though nothing in them has changed.

    Raises:
        OptionError: There is no such file, or several that could be meant.
        EnvironmentBuildError: The file cannot be read, is for another Python, or cannot be resolved.
    """
    return await find_lock(
        folder,
        platform,
        steps,
        choice=settings.environment if choice in {None, ISOLATED} else choice,
        extras=settings.extras,
        groups=settings.groups,
        exclude=settings.exclude_packages,
        refresh=refresh,
    )
