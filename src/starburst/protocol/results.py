"""Result objects: runs of finished tasks, and the chain that they form within a chunk.

The results of a chunk are a chain: the object at the chunk's first task, then the object at the first task after
that one's, and so on. Each link is created once, so of two workers that hold the same chunk (one of them believed
lost) the first to write a link decides it, and the other drops its copy. So every task has exactly one result.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from starburst.errors import CorruptObject, ObjectNotFound
from starburst.protocol.keys import ChunkId, DoneMark, Keys
from starburst.protocol.pack import Pack, PackIndex, decode_index, decode_pack, encode_pack, index_size_bytes
from starburst.protocol.payload import dump_value, load_value
from starburst.protocol.records import Failure, ResultHeader, Segment, encode_msgpack
from starburst.store.base import Store

__all__ = [
    "BrokenChain",
    "Outcome",
    "Run",
    "chain_end",
    "decode_result",
    "encode_result",
    "finish_chunk",
    "read_index",
]

Buffer = bytes | bytearray | memoryview
_INDEX_GUESS_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one task ended: with ``value``, or with ``failure`` and, where it could be pickled, ``error``."""

    value: Any = None
    failure: Failure | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class Run:
    """Consecutive finished tasks, as segments and the frames that belong to them.

    Attributes:
        ok: How many have a value.
        failed: How many have none.
    """

    segments: list[Segment] = field(default_factory=list)
    frames: list[Buffer] = field(default_factory=list)
    ok: int = 0
    failed: int = 0
    task_s: float = 0.0
    retried: int = 0

    @property
    def count(self) -> int:
        """How many tasks it covers."""
        return self.ok + self.failed

    @property
    def size_bytes(self) -> int:
        """Bytes of all frames."""
        return sum(memoryview(frame).nbytes for frame in self.frames)

    def add_values(self, values: Sequence[Any]) -> None:
        """Append values; raises whatever pickling raises, and then nothing was appended."""
        frames = dump_value(list(values))
        self.segments.append(Segment("values", len(values), len(frames)))
        self.frames.extend(frames)
        self.ok += len(values)

    def add_failure(self, failure: Failure, error: BaseException | None = None) -> None:
        """Append one failure, with the exception itself if it survives pickling."""
        frames: list[Buffer] = [encode_msgpack(failure)]
        pickled = _pickled_exception(error) if error is not None else None
        if pickled is not None:
            frames.append(pickled)
        self.segments.append(Segment("failure", 1, len(frames)))
        self.frames.extend(frames)
        self.failed += 1

    def extend(self, other: Run) -> None:
        """Append the tasks of a run that follows this one."""
        self.segments.extend(other.segments)
        self.frames.extend(other.frames)
        self.ok += other.ok
        self.failed += other.failed
        self.task_s += other.task_s
        self.retried += other.retried


def encode_result(run: Run, *, first: int, worker: str, attempt: int, compress: bool) -> list[Buffer]:
    """A result object for ``run``, whose first task is ``first``."""
    header = ResultHeader(
        first=first,
        count=run.count,
        worker=worker,
        attempt=attempt,
        segments=tuple(run.segments),
        task_s=run.task_s,
        retried=run.retried,
    )
    return encode_pack(header, run.frames, compress=compress)


def decode_result(data: Buffer, key: str) -> tuple[ResultHeader, Iterator[Outcome]]:
    """A result object's header and an iterator over its tasks' outcomes, in order.

    Raises:
        CorruptObject: The object is damaged; the iterator raises it too, for frames.
    """
    pack = decode_pack(data, key)
    header = pack.record(ResultHeader)
    segments = header.segments
    plausible = all(s.count == 1 or (s.kind == "values" and s.count > 1) for s in segments)
    plausible &= all(s.n_frames > 0 for s in segments) and bool(segments)
    if (
        not plausible
        or sum(s.n_frames for s in segments) != len(pack)
        or sum(s.count for s in segments) != header.count
    ):
        raise CorruptObject(f"the object {key} is damaged: its segments do not add up")
    return header, _outcomes(pack, header)


def _outcomes(pack: Pack, header: ResultHeader) -> Iterator[Outcome]:
    at = 0
    for segment in header.segments:
        frames = [pack.frame(i) for i in range(at, at + segment.n_frames)]
        at += segment.n_frames
        if segment.kind == "values":
            yield from _values(frames, segment.count, pack.index.key)
        else:
            yield _failure(frames, pack.index.key)


def _values(frames: list[Buffer], count: int, key: str) -> Iterator[Outcome]:
    try:
        values = load_value([frames[0], *map(_writable, frames[1:])])
    except Exception as error:  # noqa: BLE001 - the user's classes may do anything while they load
        failure = Failure(
            kind="load",
            message=f"the result is there but cannot be loaded here: {type(error).__name__}: {error}",
            type_name=type(error).__name__,
        )
        yield from (Outcome(failure=failure, error=error) for _ in range(count))
    else:
        if not isinstance(values, list) or len(values) != count:
            raise CorruptObject(
                f"the object {key} is damaged: it does not hold {count} values where it should"
            )
        yield from (Outcome(value) for value in values)


def _failure(frames: list[Buffer], key: str) -> Outcome:
    import msgspec

    try:
        failure = msgspec.msgpack.decode(frames[0], type=Failure)
    except msgspec.MsgspecError as error:
        raise CorruptObject(f"the object {key} is damaged: {error}") from error
    if len(frames) == 1:
        return Outcome(failure=failure)
    try:
        return Outcome(failure=failure, error=pickle.loads(frames[1]))
    except Exception:  # noqa: BLE001 - its text is in the failure
        return Outcome(failure=failure)


def _writable(frame: Buffer) -> Buffer:
    view = memoryview(frame)
    return bytearray(view) if view.readonly else view


def _pickled_exception(error: BaseException) -> bytes | None:
    """The exception's pickle, if it can be loaded again.

    Many exceptions cannot, because their constructors want other arguments than they keep; those are put together
    again without their constructor.
    """
    parts = (_rebuilt, (type(error), error.args, dict(vars(error))))
    return _checked_pickle(error, type(error)) or _checked_pickle(_Rebuild(parts), type(error))


def _checked_pickle(value: Any, kind: type[BaseException]) -> bytes | None:
    try:
        data = bytes(cloudpickle.dumps(value, protocol=5))
        return data if isinstance(pickle.loads(data), kind) else None
    except Exception:  # noqa: BLE001 - then its text must do
        return None


@dataclass(frozen=True, slots=True)
class _Rebuild:
    """Pickles as a call of ``parts``."""

    parts: tuple[Any, tuple[Any, ...]]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


async def read_index(store: Store, key: str) -> PackIndex:
    """Header and frame table of a pack, with one ranged request where the header is short, else two.

    Raises:
        ObjectNotFound: It is not there.
        CorruptObject: It is damaged.
    """
    start = await store.get_range(key, 0, _INDEX_GUESS_BYTES)
    size = index_size_bytes(start, key)
    if size > start.nbytes == _INDEX_GUESS_BYTES:
        start = await store.get_range(key, 0, size)
    return decode_index(start, key)


class BrokenChain(CorruptObject):
    """A link of a chunk's results is damaged: how far they go cannot be known.

    Attributes:
        position: The first task of that link.
        ok: Tasks with a value before it.
        failed: Tasks without one before it.
    """

    def __init__(self, message: str, *, hint: str | None, position: int, ok: int, failed: int) -> None:
        super().__init__(message, hint=hint)
        self.position = position
        self.ok = ok
        self.failed = failed

    def failed_to(self, end: int) -> int:
        """Tasks without a value in a chunk that ends at ``end``: all from the damaged link on are given up."""
        return self.failed + end - self.position


async def chain_end(store: Store, keys: Keys, chunk: ChunkId) -> tuple[int, int, int]:
    """How far a chunk's results go.

    Returns:
        The first task without a result, and tasks with a value and tasks without one before it.

    Raises:
        BrokenChain: A link is damaged.
    """
    position, ok, failed = chunk.first, 0, 0
    while True:
        key = keys.result(chunk, position)
        try:
            header = (await read_index(store, key)).record(ResultHeader)
            _check_place(header, position, key)
        except ObjectNotFound:
            return position, ok, failed
        except CorruptObject as error:
            raise BrokenChain(
                error.message, hint=error.hint, position=position, ok=ok, failed=failed
            ) from error
        bad = sum(segment.count for segment in header.segments if segment.kind == "failure")
        position, ok, failed = position + header.count, ok + header.count - bad, failed + bad


def _check_place(header: ResultHeader, position: int, key: str) -> None:
    if header.first != position or header.count < 1:
        raise CorruptObject(f"the object {key} is not the result of task {position}")


async def finish_chunk(store: Store, keys: Keys, chunk: ChunkId, ok: int, failed: int) -> None:
    """Mark a chunk whose results are complete; whoever marks it writes the same key."""
    await store.create(keys.done(DoneMark(chunk, ok, failed)), b"")
