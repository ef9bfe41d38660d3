"""Which part of an object cannot be pickled, by name."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

__all__ = ["why_unpicklable"]

_MAX_DEPTH = 6
_MAX_PARTS = 200


def why_unpicklable(value: Any, error: Exception) -> str:
    """A sentence that names the innermost part of ``value`` that pickling failed on, and says why.

    Args:
        value: What could not be pickled.
        error: What pickling said.
    """
    path, culprit = _search(value, "", 0, set())
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    kind = f"{type(culprit).__module__}.{type(culprit).__qualname__}".removeprefix("builtins.")
    where = path or "it"
    return f"{where} is a {kind}, which cannot be pickled ({reason})"


def _search(value: Any, path: str, depth: int, seen: set[int]) -> tuple[str, Any]:
    if depth < _MAX_DEPTH and id(value) not in seen:
        seen.add(id(value))
        for n, (name, part) in enumerate(_parts(value)):
            if n >= _MAX_PARTS:
                break
            if not _pickles(part):
                return _search(part, f"{name} of {path}" if path else name, depth + 1, seen)
    return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield f"the object that {value.__func__.__qualname__} is bound to", value.__self__
    elif isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=False):
            try:
                yield f"the closed-over variable {name!r}", cell.cell_contents
            except ValueError:
                continue
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f"the global variable {name!r}", value.__globals__[name]
        yield from ((f"the default argument {i}", v) for i, v in enumerate(value.__defaults__ or ()))
    elif isinstance(value, Mapping):
        yield from ((f"the entry {name!r}", part) for name, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"the element {i}", part) for i, part in enumerate(value))
    elif hasattr(value, "func") and hasattr(value, "keywords"):
        yield "the function", value.func
        yield from ((f"the argument {i}", v) for i, v in enumerate(value.args))
        yield from ((f"the argument {name!r}", v) for name, v in value.keywords.items())
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type):
        yield from ((f"the attribute {name!r}", part) for name, part in vars(value).items())


def _pickles(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - any failure is the answer
        return False
    return True
