"""Putting functions of the simulator in the place of moto's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["replace"]


def replace(owner: Any, **functions: Callable[..., Any]) -> None:
    """Replace attributes of a class or module of moto; each must exist, or moto has changed and so must we.

    Raises:
        AttributeError: It has no such attribute.
    """
    for name, function in functions.items():
        getattr(owner, name)
        setattr(owner, name, function)
