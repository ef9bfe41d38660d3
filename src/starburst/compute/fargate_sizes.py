"""The sizes that Fargate has: which memory goes with how many vCPUs.

Source: Amazon ECS Developer Guide, "Amazon ECS task definition differences for Fargate", table "Task CPU and
memory", as of November 2026.
"""

from __future__ import annotations

from starburst.errors import OptionError

__all__ = ["FARGATE_MEMORY_MIB", "fargate_size"]

FARGATE_MEMORY_MIB: dict[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
    32768: (61440, 122880, 249856),
}
"""MiB by CPU units, of which a vCPU has 1,024."""


def fargate_size(cpu: float, memory_bytes: int) -> tuple[int, int]:
    """CPU units and MiB of a size that Fargate has.

    Args:
        cpu: vCPUs.
        memory_bytes: Memory.

    Raises:
        OptionError: There is no such size; the hint names the nearest ones.
    """
    units, mib = round(cpu * 1024), -(-memory_bytes // 2**20)
    if units not in FARGATE_MEMORY_MIB:
        choices = ", ".join(f"{one / 1024:g}" for one in FARGATE_MEMORY_MIB)
        near = min(FARGATE_MEMORY_MIB, key=lambda one: abs(one - units))
        raise OptionError(
            f"cpu={cpu:g} is not a size of Fargate, which has {choices} vCPUs", hint=f"cpu={near / 1024:g}"
        )
    if mib not in FARGATE_MEMORY_MIB[units]:
        raise OptionError(
            f'cpu={cpu:g} with memory="{_text(mib)}" is not a size of Fargate: {cpu:g} vCPUs come with '
            f"{_text(FARGATE_MEMORY_MIB[units][0])} to {_text(FARGATE_MEMORY_MIB[units][-1])}",
            hint=" or ".join(_neighbours(units, mib)),
        )
    return units, mib


def _neighbours(units: int, mib: int) -> list[str]:
    """The nearest memory for these vCPUs, and the nearest vCPUs for this memory."""
    nearest = min(FARGATE_MEMORY_MIB[units], key=lambda one: abs(one - mib))
    choices = [f'cpu={units / 1024:g}, memory="{_text(nearest)}"']
    fitting = [one for one, sizes in FARGATE_MEMORY_MIB.items() if mib in sizes]
    if fitting:
        other = min(fitting, key=lambda one: abs(one - units))
        choices.append(f'cpu={other / 1024:g}, memory="{_text(mib)}"')
    return choices


def _text(mib: int) -> str:
    return f"{mib // 1024}GB" if mib % 1024 == 0 else f"{mib}MB"
