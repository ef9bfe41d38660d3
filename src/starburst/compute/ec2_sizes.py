"""How large a worker is on EC2, and how many of them a host holds: arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starburst.aws.instance_types import InstanceType, known_types
from starburst.errors import OptionError

__all__ = ["WorkerSize", "default_size", "fits", "usable_memory_mib"]

_UNITS = 1024
"""CPU units of a vCPU."""
_LEAST_UNITS = 2
"""What Linux makes of fewer. Source: Amazon ECS API Reference, ContainerDefinition, cpu."""
_SYSTEM_PERCENT = 7
_SYSTEM_MIB = 128
_SUGGESTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSize:
    """What a worker's task asks of its host.

    Attributes:
        cpu_units: 1,024 are one vCPU.
        memory_mib: Its limit.
        gpus: Devices of its own.
    """

    cpu_units: int
    memory_mib: int
    gpus: int = 0


def usable_memory_mib(one: InstanceType) -> int:
    """What tasks may use of a host's memory; the rest is the system's and the ECS agent's.

    The agent offers what Linux sees, which is 4 to 9 % less than the type's, the most on small hosts. This stays
    below all figures known to us: a task that asks for a MiB too much would wait for ever.
    """
    return max(0, one.memory_mib * (100 - _SYSTEM_PERCENT) // 100 - _SYSTEM_MIB)


def fits(one: InstanceType, cpu_units: int, memory_mib: int, gpus: int = 0) -> int:
    """How many such workers run on one host; 0 if none does."""
    ways = [one.vcpus * _UNITS // max(1, cpu_units), usable_memory_mib(one) // max(1, memory_mib)]
    if gpus:
        ways.append(one.gpus // gpus)
    return min(ways)


def default_size(
    types: Sequence[InstanceType], cpu: float | None, memory_mib: int | None, gpus: int = 0
) -> WorkerSize:
    """The size of workers for hosts of any of ``types``: what the user says, and a fair share of what is left open.

    Without ``cpu`` and ``memory_mib`` a worker fills the smallest host (of hosts with GPUs: its share by GPUs). As
    many workers share a host as its memory on paper holds, and the system's part is taken off their shares: 4 vCPUs
    and 8 GiB are one c7g.xlarge, though Linux keeps some of its 8 GiB.

    Args:
        types: The types that hosts may be of.
        cpu: vCPUs, or None.
        memory_mib: Memory, or None.
        gpus: GPUs of each worker.

    Raises:
        OptionError: Hosts of one of the types could not run such a worker; the message names types that would do.
    """
    sizes = [_on(one, cpu, memory_mib, gpus) for one in types]
    size = WorkerSize(
        cpu_units=min(one.cpu_units for one in sizes),
        memory_mib=min(one.memory_mib for one in sizes),
        gpus=gpus,
    )
    small = [one for one in types if fits(one, size.cpu_units, size.memory_mib, gpus) == 0]
    if small:
        raise _too_large(types, small, cpu, memory_mib, gpus)
    return size


def _on(one: InstanceType, cpu: float | None, memory_mib: int | None, gpus: int) -> WorkerSize:
    """The size on hosts of one type; what does not fit is left as it was asked for."""
    units = one.vcpus * _UNITS
    asked_units = None if cpu is None else max(1, round(cpu * _UNITS))
    ways = [units // asked_units] if asked_units else []
    ways += [one.memory_mib // memory_mib] if memory_mib else []
    ways += [one.gpus // gpus] if gpus else []
    workers = max(1, min(ways, default=1))
    share_mib = usable_memory_mib(one) // workers
    on_paper = memory_mib is not None and memory_mib * workers <= one.memory_mib
    return WorkerSize(
        cpu_units=asked_units or max(_LEAST_UNITS, units // workers),
        memory_mib=share_mib
        if memory_mib is None
        else min(memory_mib, share_mib)
        if on_paper
        else memory_mib,
        gpus=gpus,
    )


def _too_large(
    types: Sequence[InstanceType],
    small: Sequence[InstanceType],
    cpu: float | None,
    memory_mib: int | None,
    gpus: int,
) -> OptionError:
    asked = [f"{cpu:g} vCPUs"] if cpu is not None else []
    asked += [f"{memory_mib:,} MiB"] if memory_mib is not None else []
    asked += [f"{gpus} GPU{'s' if gpus > 1 else ''}"] if gpus else []
    have = "; ".join(_in_words(one) for one in small)
    would_do = _would_do(types[0], round((cpu or 0) * _UNITS), memory_mib or 0, gpus)
    return OptionError(
        f"a worker of {', '.join(asked)} is larger than {' and '.join(one.name for one in small)} ({have})",
        hint=f"instance_type={would_do[0]!r} would do (also {', '.join(would_do[1:])}), or ask for less"
        if len(would_do) > 1
        else "ask for a smaller worker; more of them do the same work",
    )


def _would_do(like: InstanceType, cpu_units: int, memory_mib: int, gpus: int) -> list[str]:
    """Common types that such a worker runs on: the smallest ones, of the same architecture if there are any."""
    good = [
        one
        for one in known_types()
        if fits(one, cpu_units, memory_mib, gpus) and bool(one.gpus) == bool(gpus)
    ]
    same = [one for one in good if one.architecture == like.architecture]
    return [one.name for one in same or good][:_SUGGESTIONS]


def _in_words(one: InstanceType) -> str:
    gpus = f", {one.gpus} GPUs" if one.gpus else ", no GPU"
    return (
        f"{one.vcpus} vCPUs, {one.memory_mib:,} MiB, of which tasks may use {usable_memory_mib(one):,}{gpus}"
    )
