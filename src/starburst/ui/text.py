"""Figures as people read them: counts, times, sizes, rates. Pure text, no terminal codes."""

from __future__ import annotations

__all__ = ["ago", "count", "plural", "rate", "seconds", "size"]


def count(number: float) -> str:
    """A whole number with separators: ``10,000``."""
    return f"{number:,.0f}"


def plural(number: int, word: str) -> str:
    """A number and its noun: ``1 task``, ``2 tasks``."""
    return f"{count(number)} {word}{'' if number == 1 else 's'}"


def seconds(value: float) -> str:
    """A length of time in at most two units: ``0.25 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    value = max(0.0, value)
    if value < 9.995:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = minutes // 60
    return f"{hours // 24} d {hours % 24} h"


def ago(value: float) -> str:
    """How long since, or until, in one unit: ``5 s``, ``12 min``, ``3 h``, ``4 d``."""
    value = abs(value)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value // length:.0f} {unit}"
    return f"{value:.0f} s"


def size(amount_bytes: float) -> str:
    """An amount of bytes in powers of 1,000: ``512 B``, ``1.5 MB``."""
    amount = float(amount_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def rate(per_second: float) -> str:
    """Tasks per second: ``4,329/s``, ``12.3/s``; below one a second, per minute."""
    if per_second >= 99.95:
        return f"{per_second:,.0f}/s"
    if per_second >= 1 or per_second == 0:
        return f"{per_second:.1f}/s"
    return f"{per_second * 60:.1f}/min"
