"""Stored settings: what a person says once instead of in every call.

Four layers, the later one wins: the built-in defaults, the user's file, the environment, the arguments of
a call (those are laid on top by the client). The file is ``config.toml`` in the user's configuration
folder (``STARBURST_CONFIG_DIR`` names another), the environment is ``STARBURST_<NAME>``.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starburst.errors import ConfigError, OptionError
from starburst.options import Options, parse_duration_s

__all__ = [
    "LoadedSettings",
    "Settings",
    "config_path",
    "data_path",
    "default_store_url",
    "get_value",
    "load",
    "load_settings",
    "patience_s",
    "set_value",
    "unset_value",
    "write_settings",
]

_DEFAULTS = Options()
_PATIENCE_S = 300.0
_HEADER = "# Settings of starburst; see: starburst config --help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force. They are defaults for the options of the same name."""

    store: str | None = None
    """URL of the store; None means a folder in the user's data directory, see :func:`default_store_url`."""
    launch_type: str = _DEFAULTS.launch_type
    """What starts the workers."""
    workers: int | None = None
    """How many workers at the most; None means as many as this machine has cores, 10 in the cloud."""
    slots: int = _DEFAULTS.slots
    """Tasks that one worker runs at a time."""
    cpu: float | None = None
    """vCPUs of a worker; None means 4 in the cloud."""
    memory: str | float | None = None
    """Memory that the tasks of one worker may hold together: "8GB", "512MB" or a number of GB."""
    region: str | None = None
    """AWS region."""
    profile: str | None = None
    """Profile of the AWS configuration files."""
    spot: str = "yes"
    """Cloud: "yes" for Spot capacity with on-demand as the fallback, "only", or "no"."""
    instance_type: str | None = None
    """EC2: the instance type; None means c7g.xlarge."""
    on_demand_base: int = _DEFAULTS.on_demand_base
    """Cloud: so many of the workers are on-demand whatever ``spot`` says."""
    gpus: int = _DEFAULTS.gpus
    """EC2: GPUs of each worker."""
    architecture: str | None = None
    """Fargate: "X86_64" or "ARM64"; None means that of the image."""
    image: str | None = None
    """Cloud: the container image of the workers; None means the one of ``starburst setup``, or one that is built."""
    environment: str | None = None
    """Where the list of the workers' packages comes from; None means the project's lock file."""
    ecr_image_ttl_days: int = 30
    """``starburst env prune`` removes images that no session has used for so many days."""
    warm_pool_timeout: str | float = _DEFAULTS.warm_pool_timeout
    """EC2: seconds for which hosts stay after their last task."""
    timeout: str | float | None = _DEFAULTS.timeout
    """Seconds that one task may run, or "90m"."""
    retries: int = _DEFAULTS.retries
    """How often a task that raised is run again."""
    max_attempts: int = _DEFAULTS.max_attempts
    """How many workers a task may take down before it is given up."""
    idle_timeout: str | float | None = None
    """Seconds a worker stays with nothing to do; None means 60, 300 in the cloud."""
    session_timeout: str | float = _DEFAULTS.session_timeout
    """Seconds a session stays open with nothing to do."""
    absolute_timeout: str | float = _DEFAULTS.absolute_timeout
    """Seconds from its start after which a session ends."""
    lease: str | float = _DEFAULTS.lease
    """Seconds without a sign of life after which a worker counts as lost."""
    max_workers: int = _DEFAULTS.max_workers
    """The guard rail for ``workers``."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def in_force(self, name: str) -> Any:
        """What holds for ``name``: where it is None, what that means for the launch type."""
        value = getattr(self, name)
        return getattr(self.options(), name) if value is None and name in Options.names() else value

    def options(self) -> Options:
        """These settings as the options of a call; a call's own arguments go on top with ``merged``."""
        shared = set(Options.names())
        return Options(**{name: getattr(self, name) for name in self.names() if name in shared})


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """For each name: "default", "environment STARBURST_…", or the path of the file."""


def config_path() -> Path:
    """The file that :func:`set_value` writes; it need not exist."""
    return _folder("STARBURST_CONFIG_DIR", "user_config_path") / "config.toml"


def data_path() -> Path:
    """The folder for what starburst keeps on this machine (``STARBURST_DATA_DIR`` names another)."""
    return _folder("STARBURST_DATA_DIR", "user_data_path")


def default_store_url() -> str:
    """The store while none is set: a folder in the user's data directory."""
    return (data_path() / "store").absolute().as_uri()


def load_settings() -> Settings:
    """The settings in force now.

    Raises:
        ConfigError: The file cannot be read, a name in it is unknown, or a value is wrong.
    """
    return load().settings


def load() -> LoadedSettings:
    """The settings in force now, and where each came from.

    Raises:
        ConfigError: As for :func:`load_settings`.
    """
    path = config_path()
    values = _read(path)
    origins = dict.fromkeys(Settings.names(), "default") | dict.fromkeys(values, str(path))
    for name in Settings.names():
        text = os.environ.get(_variable(name))
        if text:
            origin = f"environment {_variable(name)}"
            values[name] = _parse(name, text, origin)
            origins[name] = origin
    return LoadedSettings(_settings(values, origins), origins)


def get_value(name: str) -> Any:
    """One setting in force now.

    Raises:
        ConfigError: No setting has this name, or :func:`load_settings` fails.
    """
    _check_name(name)
    return load_settings().in_force(name)


def set_value(name: str, text: str) -> Path:
    """Store one setting in the user's file; its other lines, comments too, stay as they are.

    Args:
        name: A name of :class:`Settings`.
        text: The value as a person types it, such as ``"8"`` or ``"s3://my-bucket"``.

    Returns:
        The file that was written.

    Raises:
        ConfigError: The name or the value is wrong, or the file cannot be written.
    """
    _check_name(name)
    value = _parse(name, text, f"{name!r}")
    path = config_path()
    values = _read(path) | {name: value}
    _settings(values, dict.fromkeys(values, str(path)) | {name: "this command"})
    _write(path, _edited(path, name, value), values)
    return path


def unset_value(name: str) -> Path:
    """Take one setting out of the user's file, so that the default holds again; fine if it is not there.

    Raises:
        ConfigError: The name is wrong, or the file cannot be written.
    """
    _check_name(name)
    path = config_path()
    values = _read(path)
    if name in values:
        del values[name]
        _write(path, _edited(path, name, None), values)
    return path


def _folder(variable: str, kind: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given).expanduser()
    import platformdirs

    return Path(getattr(platformdirs, kind)("starburst"))


def patience_s() -> float:
    """Seconds for which workers, supervisors and waiting calls put up with a store that is down or full.

    Raises:
        OptionError: ``STARBURST_PATIENCE`` is not a length of time.
    """
    return parse_duration_s("STARBURST_PATIENCE", os.environ.get("STARBURST_PATIENCE") or _PATIENCE_S)


def _variable(name: str) -> str:
    return f"STARBURST_{name.upper()}"


def _check_name(name: str, where: str = "") -> None:
    if name not in Settings.names():
        near = difflib.get_close_matches(name, Settings.names(), n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{name!r}{where} is not a setting", hint=f"{guess}valid names: {', '.join(Settings.names())}"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the settings file {path} is not valid TOML: {error}", hint=f"edit {path}"
        ) from error
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror or error}") from error
    for name in values:
        _check_name(name, f" in {path}")
    return values


def _settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    """Check types here, ranges by building the options that the values are for."""
    for name, value in values.items():
        if not _fits(name, value):
            raise ConfigError(
                f"{name} = {value!r} in {origins[name]} is wrong: it must be {_wanted(name)}",
                hint=f"starburst config set {name} VALUE",
            )
    if (store := values.get("store")) is not None and "://" not in str(store):
        raise ConfigError(
            f"store = {store!r} in {origins['store']} is not the URL of a store",
            hint='use "file:///folder" or "s3://bucket/prefix"',
        )
    if values.get("ecr_image_ttl_days", 0) < 0:
        raise ConfigError(
            f"ecr_image_ttl_days = {values['ecr_image_ttl_days']} in {origins['ecr_image_ttl_days']} is below 0",
            hint="starburst config set ecr_image_ttl_days 30",
        )
    settings = Settings(**values)
    try:
        settings.options()
    except OptionError as error:
        blamed = [name for name in values if re.match(rf"{name}\b", error.message)]
        where = f" (from {origins[blamed[0]]})" if blamed else ""
        raise ConfigError(f"{error.message}{where}", hint=error.hint) from error
    return settings


def _types(name: str) -> tuple[type, ...]:
    # The annotations of Settings are texts such as "str | float | None"; None means "not in the file".
    text = str(Settings.__dataclass_fields__[name].type)
    known: dict[str, type] = {"str": str, "int": int, "float": float}
    return tuple(known[part] for part in text.split(" | ") if part in known)


def _wanted(name: str) -> str:
    words = {int: "a whole number", float: "a number", str: "a text"}
    return " or ".join(words[kind] for kind in _types(name))


def _fits(name: str, value: Any) -> bool:
    kinds = _types(name)
    return not isinstance(value, bool) and isinstance(value, (*kinds, int) if float in kinds else kinds)


def _parse(name: str, text: str, where: str) -> Any:
    for kind in sorted(_types(name), key=(int, float, str).index):
        try:
            return kind(text.strip())
        except ValueError:
            continue
    raise ConfigError(f"{where} = {text!r} is wrong: it must be {_wanted(name)}")


def _edited(path: Path, name: str, value: Any) -> str:
    text = (
        path.read_text("utf-8")
        if path.exists()
        else "# Settings of starburst; see: starburst config --help\n"
    )
    # A JSON string is a TOML string, except for one control character.
    line = (
        ""
        if value is None
        else f"{name} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
    )
    pattern = re.compile(rf"^[ \t]*[\"']?{name}[\"']?[ \t]*=.*(?:\n|\Z)", re.MULTILINE)
    changed, found = pattern.subn(lambda _: line, text, count=1)
    return changed if found else text.rstrip("\n") + "\n" + line


def _write(path: Path, text: str, expected: Mapping[str, Any]) -> None:
    """Replace the file at once, after making sure that it will be read as meant."""
    try:
        unchanged = tomllib.loads(text) == dict(expected)
    except tomllib.TOMLDecodeError:
        unchanged = False
    if not unchanged:
        raise ConfigError(
            f"the settings file {path} is laid out in a way that cannot be changed", hint=f"edit {path}"
        )
    write_settings(path, text)


def write_settings(path: Path, text: str) -> None:
    """Write a file of settings, at once or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be written: {error.strerror or error}") from error
