"""Which part of an object cannot be pickled, by name."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import cloudpickle

__all__ = ["why_unpicklable", "why_unpicklable_call"]

_MAX_DEPTH = 20
_MAX_PARTS = 200

_Parts = Iterable[tuple[str, Any]]


def why_unpicklable(value: Any, error: Exception) -> str:
    """A sentence that names the innermost part of ``value`` that pickling failed on, and says why.

    Args:
        value: What could not be pickled.
        error: What pickling said.
    """
    return _sentence(*_search(value, "", _parts(value), 0 if _is_too_deep(error) else _MAX_DEPTH), error)


def why_unpicklable_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> str:
    """The same for the arguments of a call."""
    positional = ((f"argument {i}", value) for i, value in enumerate(args))
    named = ((f"argument {name!r}", value) for name, value in kwargs.items())
    depth = 1 if _is_too_deep(error) else _MAX_DEPTH
    return _sentence(*_search((args, kwargs), "", [*positional, *named], depth), error)


def _is_too_deep(error: Exception) -> bool:
    """Whether it is the nesting that cannot be pickled: then no part of it is to blame."""
    return "recursion" in str(error)


def _sentence(path: str, culprit: Any, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    kind = f"{type(culprit).__module__}.{type(culprit).__qualname__}".removeprefix("builtins.")
    where = path or "it"
    return f"{where} is a {kind}, which cannot be pickled ({reason})"


def _search(value: Any, path: str, parts: _Parts, depth: int) -> tuple[str, Any]:
    """Path and value of the innermost part that does not pickle; the way down is the first that fails."""
    seen = {id(value)}
    for _ in range(depth):
        named = islice(parts, _MAX_PARTS)
        bad = next((p for p in named if id(p[1]) not in seen and not _pickles(p[1])), None)
        if bad is None:
            break
        name, value = bad
        seen.add(id(value))
        path = f"{name} of {path}" if path else name
        parts = _parts(value)
    return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield f"the object that {value.__func__.__qualname__} is bound to", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, Mapping):
        yield from ((f"the entry {name!r}", part) for name, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"the element {i}", part) for i, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield "the function", value.func
        yield from ((f"the argument {i}", part) for i, part in enumerate(value.args))
        yield from ((f"the argument {name!r}", part) for name, part in value.keywords.items())
    elif isinstance(value, type):
        yield from ((f"the class attribute {name!r}", part) for name, part in vars(value).items())
    else:
        yield from ((f"the attribute {name!r}", part) for name, part in _attributes(value))
        yield f"the class {type(value).__qualname__}", type(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"the closed-over variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f"the global variable {name!r}", function.__globals__[name]
    yield from ((f"the default argument {i}", part) for i, part in enumerate(function.__defaults__ or ()))
    yield from ((f"the default argument {n!r}", part) for n, part in (function.__kwdefaults__ or {}).items())


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        yield from attributes.items()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _pickles(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - any failure is the answer
        return False
    return True
