"""Functions, arguments and results as bytes and back.

Large parts (arrays, bytes and text of 1 MB or more, wherever they hide in an argument or a closure, and any object
of that size that several tasks are given) are taken out, named by their content and stored once; in the pickle a
persistent id stands for them.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import cloudpickle
import xxhash

from starburst.errors import SerializationError
from starburst.protocol.diagnose import why_unpicklable, why_unpicklable_call

__all__ = [
    "LARGE_BYTES",
    "CallBlock",
    "Calls",
    "LargeObjects",
    "SharedObject",
    "dump_call",
    "dump_function",
    "dump_value",
    "join_pickles",
    "load_function",
    "load_value",
    "pack_calls",
    "pack_columns",
]

Buffer = bytes | bytearray | memoryview
Resolve = Callable[[str], Any]
Layout = Literal["columns", "stream"]

LARGE_BYTES = 2**20
"""From this size on a part is stored once under its content's name."""
OUT_OF_BAND_BYTES = 65536
_ATOMIC = frozenset({int, float, complex, bool, str, bytes, type(None)})
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SharedObject:
    """A large object that is in the session's store already; tasks get the object itself."""

    sha256: str


@dataclass(slots=True)
class LargeObjects:
    """Collects the large parts that a submission refers to.

    Attributes:
        found: By content hash, the buffers (pickle first) and the type's name.
    """

    found: dict[str, tuple[list[Buffer], str]] = field(default_factory=dict)
    _by_id: dict[int, tuple[Any, str]] = field(default_factory=dict)

    def add(self, value: Any) -> str:
        """The content hash of ``value``, which is pickled with its buffers out of band if it is new."""
        known = self._by_id.get(id(value))
        if known is None:
            buffers = dump_value(value)
            known = (value, _content_hash(buffers))
            self._by_id[id(value)] = known
            self.found[known[1]] = (buffers, type(value).__name__)
        return known[1]

    def detach(self) -> None:
        """Copy what still stands in the caller's memory, so that later changes of it do not matter."""
        for sha256, (buffers, type_name) in self.found.items():
            copies: list[Buffer] = [b if isinstance(b, bytes) else bytes(b) for b in buffers]
            self.found[sha256] = (copies, type_name)
        self._by_id.clear()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, large: LargeObjects) -> None:
        super().__init__(file, protocol=5)
        self._large = large

    def persistent_id(self, value: Any) -> tuple[str, str] | None:
        kind = type(value)
        if kind in (int, float, bool, type(None)):
            return None
        if kind is SharedObject:
            return ("object", value.sha256)
        return ("object", self._large.add(value)) if is_large(value) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, resolve: Resolve) -> None:
        super().__init__(file)
        self._resolve = resolve

    def persistent_load(self, pid: tuple[str, str]) -> Any:
        return self._resolve(pid[1])


def is_large(value: Any) -> bool:
    """Whether a value is, by itself, a buffer or text of :data:`LARGE_BYTES` or more."""
    if type(value) in (bytes, bytearray, str):
        return len(value) >= LARGE_BYTES
    numpy = sys.modules.get("numpy")
    ndarray = getattr(numpy, "ndarray", None)
    return ndarray is not None and isinstance(value, ndarray) and value.nbytes >= LARGE_BYTES


def dump_function(fn: Callable[..., Any], large: LargeObjects) -> bytes:
    """A callable with what it closes over.

    Raises:
        SerializationError: A part cannot be pickled; the message names it.
    """
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return _dump(fn, large, f"the function {name}", partial(why_unpicklable, fn))


def load_function(data: Buffer, resolve: Resolve) -> Callable[..., Any]:
    """The inverse of :func:`dump_function`; ``resolve`` gives the large parts."""
    loaded: Callable[..., Any] = _Unpickler(io.BytesIO(data), resolve).load()
    return loaded


def dump_value(value: Any) -> list[Buffer]:
    """A value as one pickle and its large buffers, which are not copied.

    Plain pickle is tried first because it is ten times as fast; cloudpickle takes what it cannot do, such as
    instances of classes that came with the function.
    """
    buffers: list[Buffer] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(raw)
        return False

    try:
        head = pickle.dumps(value, protocol=5, buffer_callback=keep_in_band)
        if b"__main__" in head:
            raise pickle.PicklingError("by value, please")  # noqa: TRY301 - the reader's __main__ is another
    except Exception:  # noqa: BLE001 - whatever plain pickle cannot do
        buffers.clear()
        head = cloudpickle.dumps(value, protocol=5, buffer_callback=keep_in_band)
    return [head, *buffers]


def load_value(frames: Sequence[Buffer]) -> Any:
    """The inverse of :func:`dump_value`; arrays stand on the given buffers, which must be writable for that."""
    return pickle.loads(frames[0], buffers=frames[1:])


@dataclass(frozen=True, slots=True)
class Calls:
    """Packed arguments of a submission: one frame a chunk."""

    layout: Layout
    counts: list[int]
    frames: list[Buffer]


def pack_columns(
    columns: Sequence[Sequence[Any]], counts: Sequence[int], cut: Cut, large: LargeObjects
) -> Calls:
    """The arguments of ``fn(*items)`` for items taken side by side from ``columns``.

    Args:
        columns: One sequence a parameter, all of the same length.
        counts: Sizes of consecutive chunks, which add up to that length.
        cut: Cuts chunks further, given the bytes of each task.
        large: Where large parts go.

    Raises:
        SerializationError: An argument cannot be pickled; the message names it.
    """
    kinds: set[type] = set()
    for column in columns:
        kinds.update(map(type, column))
    if kinds <= _ATOMIC and not any(is_large(v) for c in columns if kinds & {str, bytes} for v in c):
        frames: list[Buffer] = []
        start = 0
        for count in counts:
            frames.append(pickle.dumps([list(c[start : start + count]) for c in columns], protocol=5))
            start += count
        if all(len(frame) <= LARGE_BYTES for frame in frames):
            return Calls("columns", list(counts), frames)
    shared = [_share_repeated(column, large) for column in columns]
    return pack_calls([(args, {}) for args in zip(*shared, strict=True)], counts, cut, large)


Cut = Callable[[Sequence[int], Sequence[int]], list[int]]


def pack_calls(
    calls: Iterable[tuple[tuple[Any, ...], dict[str, Any]]],
    counts: Sequence[int],
    cut: Cut,
    large: LargeObjects,
) -> Calls:
    """The arguments of any calls, each a pickle of its own, so that tasks share nothing by accident.

    Args and errors as in :func:`pack_columns`.
    """
    pickles = [_dump_call(call, large, f"an argument of task {i}") for i, call in enumerate(calls)]
    return join_pickles(pickles, counts, cut)


def dump_call(args: tuple[Any, ...], kwargs: dict[str, Any], large: LargeObjects) -> bytes:
    """One call's arguments, for :func:`join_pickles`.

    Raises:
        SerializationError: An argument cannot be pickled; the message names it.
    """
    if not kwargs and _ATOMIC.issuperset(map(type, args)) and not any(map(is_large, args)):
        return pickle.dumps((args, kwargs), protocol=5)
    data = _dump_call((args, kwargs), large, "an argument")
    if len(data) < LARGE_BYTES:
        return data
    big = tuple(_share_if_large(value, large) for value in args)
    named = {name: _share_if_large(value, large) for name, value in kwargs.items()}
    return _dump_call((big, named), large, "an argument")


def join_pickles(pickles: Sequence[bytes], counts: Sequence[int], cut: Cut) -> Calls:
    """Chunks from calls that are pickled already."""
    counts = cut(counts, [len(data) for data in pickles])
    frames: list[Buffer] = []
    start = 0
    for count in counts:
        part = pickles[start : start + count]
        frames.append(b"".join([*(_LENGTH.pack(len(data)) for data in part), *part]))
        start += count
    return Calls("stream", counts, frames)


class CallBlock:
    """The calls of one chunk, unpickled one by one as they are needed.

    Args:
        layout: How the frame is built.
        frame: The chunk's frame.
        count: How many calls it holds.
        resolve: Gives large parts by content hash.
    """

    def __init__(self, layout: Layout, frame: Buffer, count: int, resolve: Resolve) -> None:
        self._resolve = resolve
        self._columns: list[list[Any]] | None = None
        if layout == "columns":
            self._columns = pickle.loads(frame)
            return
        view = memoryview(frame)
        lengths = array("I", bytes(view[: 4 * count]))
        if sys.byteorder == "big":
            lengths.byteswap()
        self._bodies = view[4 * count :]
        self._bounds = [0]
        for length in lengths:
            self._bounds.append(self._bounds[-1] + length)

    def call(self, i: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments of the chunk's ``i``-th call, fresh objects each time."""
        if self._columns is not None:
            return tuple([column[i] for column in self._columns]), {}
        body = self._bodies[self._bounds[i] : self._bounds[i + 1]]
        call: tuple[tuple[Any, ...], dict[str, Any]] = _Unpickler(io.BytesIO(body), self._resolve).load()
        return call


def _dump_call(call: tuple[tuple[Any, ...], dict[str, Any]], large: LargeObjects, what: str) -> bytes:
    return _dump(call, large, what, partial(why_unpicklable_call, *call))


def _dump(value: Any, large: LargeObjects, what: str, why: Callable[[Exception], str]) -> bytes:
    file = io.BytesIO()
    try:
        _Pickler(file, large).dump(value)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"{what} cannot be sent to a worker: {why(error)}",
            hint="create it inside the function, or pass what it is made from (a path, a URL, parameters)",
        ) from error
    return file.getvalue()


def _share_repeated(column: Sequence[Any], large: LargeObjects) -> Sequence[Any]:
    """The column with objects that several tasks are given, and that are large, replaced by references."""
    uses = Counter(map(id, column))
    if len(uses) == len(column):
        return column
    repeated = {i for i, n in uses.items() if n > 1}
    replaced: dict[int, Any] = {}
    for value in column:
        key = id(value)
        if key in repeated and key not in replaced and type(value) not in _ATOMIC:
            replaced[key] = _share_if_large(value, large)
    return [replaced.get(id(value), value) for value in column] if replaced else column


def _share_if_large(value: Any, large: LargeObjects) -> Any:
    if type(value) in _ATOMIC or isinstance(value, SharedObject) or is_large(value):
        return value
    size = len(_dump(value, LargeObjects(), "an argument", partial(why_unpicklable, value)))
    return SharedObject(large.add(value)) if size >= LARGE_BYTES else value


_hashes: dict[bytes, str] = {}


def _content_hash(buffers: Sequence[Buffer]) -> str:
    """SHA-256 over the buffers; a fast hash first, so that the same content is not digested twice."""
    quick = xxhash.xxh3_128()
    for buffer in buffers:
        quick.update(_LENGTH.pack(memoryview(buffer).nbytes & 0xFFFFFFFF))
        quick.update(buffer)
    known = _hashes.get(quick.digest())
    if known is None:
        digest = hashlib.sha256()
        for buffer in buffers:
            digest.update(struct.pack("<Q", memoryview(buffer).nbytes))
            digest.update(buffer)
        known = _hashes[quick.digest()] = digest.hexdigest()
    return known
