"""Whether a function, or anything that is pickled with it, can have changed since it was pickled last."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle

__all__ = ["fingerprint", "global_names", "same"]

_MAX_DEPTH = 3
_ATOMS = (int, float, complex, bool, str, bytes, type(None))


def fingerprint(fn: Any, depth: int = 0) -> list[object] | None:
    """Objects that are all the same as long as the function, and what it refers to, cannot have changed.

    None if that cannot be said, as of a function that refers to a list.
    """
    if _by_name(fn):
        return [fn]
    if not isinstance(fn, types.FunctionType) or depth > _MAX_DEPTH or fn.__dict__:
        return None
    parts: list[object] = [fn, fn.__code__]
    values = [fn.__globals__[name] for name in global_names(fn.__code__) if name in fn.__globals__]
    try:
        values += [cell.cell_contents for cell in fn.__closure__ or ()]
    except ValueError:
        return None
    for value in (*values, *(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
        if isinstance(value, _ATOMS):
            parts.append(value)
        elif value is not fn:
            below = fingerprint(value, depth + 1)
            if below is None:
                return None
            parts += below
    return parts


def same(before: list[object] | None, now: list[object] | None) -> bool:
    """Whether two fingerprints say that nothing has changed."""
    return (
        before is not None
        and now is not None
        and len(before) == len(now)
        and all(a is b for a, b in zip(before, now, strict=True))
    )


def global_names(code: types.CodeType) -> Iterator[str]:
    """Names that a function looks up, those in comprehensions and functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)


def _by_name(value: Any) -> bool:
    """Whether a module, class or function is pickled by its name, as cloudpickle decides it."""
    if isinstance(value, types.ModuleType):
        return sys.modules.get(value.__name__) is value
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, types.ModuleType)  # the methods of a list refer to the list
    if not isinstance(value, (type, types.FunctionType)):
        return False
    module = value.__module__
    if module in ("__main__", None) or _is_by_value(module):
        return False
    found: Any = sys.modules.get(module)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _is_by_value(module: str) -> bool:
    """Whether the user had the module, or a package around it, pickled by value."""
    asked = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(f"{name}.") for name in asked)
