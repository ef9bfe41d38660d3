"""The options of a call, checked before anything starts: one frozen value, one place for each rule."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starburst.errors import OptionError

__all__ = ["CLOUD", "MAX_WORKERS", "Options", "check_names", "parse_duration_s", "parse_memory_bytes"]

MAX_WORKERS = 500
"""More than this in one session needs ``max_workers=`` (the guard rail of the guide's issue 4)."""

CLOUD = ("FARGATE", "EC2")
"""Launch types that start containers on AWS."""

_BY_LAUNCH_TYPE: Any = None
_LOCAL_DEFAULTS: dict[str, Any] = {
    "workers": lambda: os.cpu_count() or 1,
    "cpu": None,
    "memory": None,
    "idle_timeout": 60.0,
}
_CLOUD_DEFAULTS: dict[str, Any] = {"workers": 10, "cpu": 4, "memory": "8GB", "idle_timeout": 300.0}
_OF_TASKS = ("timeout", "retries", "max_workers", "instance_type")
_ONLY_ON: dict[str, tuple[str, ...]] = {
    "cpu": CLOUD,
    "spot": CLOUD,
    "on_demand_base": CLOUD,
    "instance_type": ("EC2",),
    "gpus": ("EC2",),
    "architecture": CLOUD,
    "image": CLOUD,
    "warm_pool_timeout": ("EC2",),
}
"""Options that some launch types do not look at, with those that do."""
_SPOT_WORDS: dict[bool | str, bool] = {"yes": True, "no": False}

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d)?\s*", re.IGNORECASE)
_BYTES = {"M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(MB|MIB|M|GB|GIB|G|TB|TIB|T)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a session is asked for. Every field can be given to ``map``, ``Executor``, ``session`` and ``plan``."""

    workers: int = _BY_LAUNCH_TYPE
    """How many workers at the most; 1 to 500. Unless given, as many as this machine has cores; 10 in the cloud."""
    slots: int = 1
    """Tasks that one worker runs at a time, each in a process of its own."""
    launch_type: str = "LOCAL"
    """The provider that starts the workers."""
    store: str | None = None
    """URL of the store; None means the configured one, or a folder in the user's data directory."""
    cpu: float | None = _BY_LAUNCH_TYPE
    """vCPUs of a worker; 4 in the cloud, without effect on this machine."""
    memory: str | float | None = _BY_LAUNCH_TYPE
    """Memory that the tasks of one worker may hold together, as "8GB", "512MB" or a number of GB; 8 GB in the
    cloud."""
    region: str | None = None
    """AWS region; None means the configured one."""
    profile: str | None = None
    """Profile of the AWS configuration files; None means the environment's (``AWS_PROFILE``)."""
    spot: bool | str = True
    """EC2 and Fargate: Spot capacity with on-demand as the fallback (True), ``"only"`` Spot, or none (False)."""
    on_demand_base: int = 0
    """So many of the workers are on-demand whatever ``spot`` says."""
    instance_type: str | Sequence[str] | None = None
    """EC2: the type, or several of one architecture in order of preference; None means c7g.xlarge."""
    gpus: int = 0
    """EC2: GPUs of each worker."""
    architecture: str | None = None
    """Fargate: "X86_64" or "ARM64"; None means that of the image. On EC2 the instance type decides."""
    image: str | None = None
    """The container image of the workers; None means the one of ``starburst setup``."""
    environment: str | None = None
    """Where the workers' packages are listed: ``"installed"`` (as in the running Python), or a lock or requirements
    file. In the cloud None finds the project's; without effect where ``image`` is named. On this machine None means
    that workers use what is installed; with any list, and with ``"isolated"``, which finds the project's, they have
    those packages and nothing else."""
    warm_pool_timeout: float | str = 3600.0
    """EC2: seconds for which hosts stay after their last task, for the next call to start at once."""
    timeout: float | str | None = None
    """Seconds that one task may run; also "90m", "12h"."""
    retries: int = 0
    """How often a task that raised is run again."""
    max_attempts: int = 3
    """How many workers a task may take down before it is given up."""
    idle_timeout: float | str = _BY_LAUNCH_TYPE
    """Seconds a worker stays with nothing to do; 60 unless given, 300 in the cloud."""
    session_timeout: float | str = 3600.0
    """Seconds a session stays open with nothing to do."""
    absolute_timeout: float | str = 86400.0
    """Seconds from its start after which a session ends, whatever runs."""
    lease: float | str = 15.0
    """Seconds without a sign of life after which a worker counts as lost."""
    max_workers: int = MAX_WORKERS
    """The guard rail for ``workers``."""
    _unset: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._fill_in()
        _whole("max_workers", self.max_workers, 1)
        _whole("workers", self.workers, 1)
        if self.workers > self.max_workers:
            raise OptionError(
                f"workers={self.workers} is more than the {self.max_workers} that one session may have",
                hint="ask for fewer, or set max_workers= as well; on AWS raise the account's vCPU quota first "
                "(AWS console: Service Quotas → AWS Fargate)",
            )
        _whole("slots", self.slots, 1, 256)
        _whole("retries", self.retries, 0, 100)
        _whole("max_attempts", self.max_attempts, 1, 100)
        for name in ("idle_timeout", "session_timeout", "absolute_timeout", "warm_pool_timeout", "lease"):
            parse_duration_s(name, getattr(self, name))
        if self.timeout is not None:
            parse_duration_s("timeout", self.timeout)
        if self.cpu is not None:
            _positive_cpu(self.cpu)
        if self.memory is not None:
            parse_memory_bytes(self.memory)
        self._check_cloud()
        if self.store is not None and not isinstance(self.store, str):
            raise OptionError(
                f"store={self.store!r} is not an address",
                hint='use "file:///absolute/path" or "s3://bucket/prefix"',
            )

    def _fill_in(self) -> None:
        """What was not given depends on the launch type."""
        launch_type: Any = self.launch_type
        if not isinstance(launch_type, str) or not launch_type.strip():
            raise OptionError(
                f"launch_type={self.launch_type!r} is not a name", hint='use "LOCAL", "FARGATE" or "EC2"'
            )
        unset = frozenset(name for name in _LOCAL_DEFAULTS if getattr(self, name) is _BY_LAUNCH_TYPE)
        launch_type = launch_type.strip().upper()
        defaults = _CLOUD_DEFAULTS if launch_type in CLOUD else _LOCAL_DEFAULTS
        for name in unset:
            value = defaults[name]
            object.__setattr__(self, name, value() if callable(value) else value)
        object.__setattr__(self, "_unset", unset)
        object.__setattr__(self, "launch_type", launch_type)

    def _check_cloud(self) -> None:
        if self.spot not in (True, False, "only", *_SPOT_WORDS):
            raise OptionError(
                f"spot={self.spot!r} is none of the choices",
                hint='use True (Spot, on-demand as the fallback), "only", or False',
            )
        if self.spot in _SPOT_WORDS:  # as settings and commands spell it
            object.__setattr__(self, "spot", _SPOT_WORDS[self.spot])
        _whole("on_demand_base", self.on_demand_base, 0)
        _whole("gpus", self.gpus, 0, 16)
        if self.gpus and self.launch_type == "FARGATE":
            raise OptionError(
                f"gpus={self.gpus} is not possible on Fargate, which has no GPUs",
                hint='launch_type="EC2", instance_type="g5.xlarge"',
            )
        if self.architecture is not None and self.architecture not in ("X86_64", "ARM64"):
            raise OptionError(
                f"architecture={self.architecture!r} is not one of AWS's", hint='use "X86_64" or "ARM64"'
            )
        types: tuple[Any, ...] = self.instance_types
        if not all(isinstance(one, str) and one for one in types) or (
            self.instance_type is not None and not types
        ):
            raise OptionError(
                f"instance_type={self.instance_type!r} is not a type or a list of types",
                hint='instance_type="c7g.xlarge" or ["c7g.xlarge", "c8g.xlarge"]',
            )

    def is_default(self, name: str) -> bool:
        """Whether ``name`` was not given, and has the value that its launch type gives it."""
        return name in self._unset

    def without_effect(self, given: Iterable[str]) -> tuple[str, ...]:
        """Those of the options ``given`` that our launch type does not look at, and that are not at their default.

        They are no errors: a program that was written for one launch type runs on another as it is.
        """
        if self.launch_type not in ("LOCAL", *CLOUD):
            return ()
        defaults = {option.name: option.default for option in dataclasses.fields(self)}
        return tuple(
            name
            for name in given
            if self.launch_type not in _ONLY_ON.get(name, (self.launch_type,))
            and getattr(self, name) != defaults[name]
        )

    @property
    def instance_types(self) -> tuple[str, ...]:
        """:attr:`instance_type` as a tuple; empty if none was given."""
        given = self.instance_type
        return () if given is None else (given,) if isinstance(given, str) else tuple(given)

    @property
    def of_workers(self) -> tuple[Any, ...]:
        """All that makes workers what they are: those of calls that agree in it can be shared."""
        return (
            self.instance_types,
            *(getattr(self, name) for name in self.names() if name not in _OF_TASKS),
        )

    @property
    def spot_mode(self) -> Literal["no", "prefer", "only"]:
        """:attr:`spot` as a word."""
        return "only" if self.spot == "only" else "prefer" if self.spot else "no"

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all options, in the order of their fields."""
        return tuple(option.name for option in dataclasses.fields(cls) if option.init)

    @property
    def timeout_s(self) -> float | None:
        """:attr:`timeout` in seconds."""
        return None if self.timeout is None else parse_duration_s("timeout", self.timeout)

    def seconds(self, name: str) -> float:
        """The duration option ``name`` in seconds."""
        return parse_duration_s(name, getattr(self, name))

    def merged(self, changes: Mapping[str, Any]) -> Options:
        """These options with ``changes`` on top; None in ``changes`` means "as it was".

        Raises:
            OptionError: A name is unknown (the message lists the nearest and all) or a value is wrong.
        """
        check_names(changes, self.names())
        given = {name: _plain(value) for name, value in changes.items() if value is not None}
        if not given:
            return self
        kept = {name: getattr(self, name) for name in self.names() if name not in self._unset}
        return Options(**(kept | given))


def check_names(given: Mapping[str, Any], valid: tuple[str, ...]) -> None:
    """Refuse keyword names that are not options.

    Raises:
        OptionError: Naming the unknown one, its nearest neighbour and every valid name.
    """
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise OptionError(
                f"{name!r} is not an option of this call",
                hint=f"{guess}valid names: {', '.join(sorted(valid))}. "
                "Arguments of your own function go in with functools.partial",
            )


def parse_duration_s(name: str, value: Any) -> float:
    """Seconds from a number or a text such as "90m", "12h", "2d".

    Raises:
        OptionError: It is neither, or not above 0.
    """
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _SECONDS[(match[2] or "s").lower()]
    if seconds is None or not 0 < seconds < float("inf"):
        raise OptionError(
            f"{name}={value!r} is not a length of time above 0", hint='use seconds, or "90m", "12h", "2d"'
        )
    return seconds


def parse_memory_bytes(value: Any) -> int:
    """Bytes from "8GB", "512MB", "1TB", "8GiB" or a number of GB; units are powers of 1,024, as ECS counts them.

    Raises:
        OptionError: It is none of these.
    """
    size_bytes = 0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6:
        size_bytes = int(value * 2**30)
    elif isinstance(value, str) and (match := _MEMORY.fullmatch(value)):
        size_bytes = int(float(match[1]) * _BYTES[(match[2] or "G")[0].upper()])
    if size_bytes > 0:
        return size_bytes
    raise OptionError(
        f"memory={value!r} is not an amount of memory", hint='use "8GB", "512MB" or a number of GB'
    )


def _plain(value: Any) -> Any:
    """NumPy's whole numbers as Python's."""
    return value if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)


def _whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not good or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise OptionError(f"{name}={value!r} is not a whole number {limits}")


def _positive_cpu(value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise OptionError(
            f"cpu={value!r} is not a number of vCPUs above 0", hint="use 0.25, 0.5, 1, 2, 4, 8 or 16"
        )


DurationText = float | str
OnError = Literal["raise", "return", "skip"]
