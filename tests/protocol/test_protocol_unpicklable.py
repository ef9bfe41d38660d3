"""Whatever cannot be pickled, the message names it and the way to it."""

from __future__ import annotations

import functools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from starburst.errors import SerializationError
from starburst.protocol.chunking import cut_by_bytes
from starburst.protocol.payload import LargeObjects, dump_call, dump_function, pack_calls, pack_columns

LOCK = threading.Lock()


class Client:
    def __init__(self, part: Any) -> None:
        self.size = 3
        self.part = part

    def fetch(self, x: int) -> int:
        return x


class Slotted:
    __slots__ = ("empty", "guard", "size")

    def __init__(self) -> None:
        self.size = 1
        self.guard = threading.Lock()


class Stubborn:
    def __reduce__(self) -> Any:
        raise ValueError("I stay here\nand more")


class Silent:
    def __reduce__(self) -> Any:
        raise ValueError


def generate() -> Iterator[int]:
    yield 1


def closing_over(value: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return value

    return inner


def class_with_a_lock() -> Any:
    class Guarded:
        guard = threading.Lock()

    return Guarded()


def nested(value: Any, depth: int) -> Any:
    for i in range(depth):
        value = {f"level {i}": value}
    return value


def local_default() -> Callable[..., Any]:
    def inner(x: int, *, guard: Any = LOCK) -> Any:
        return x, guard

    return inner


@pytest.fixture
def a_socket() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


LOCK_TEXT = "is a _thread.lock, which cannot be pickled"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: closing_over(LOCK), f"closing_over.<locals>.inner cannot .* variable 'value' {LOCK_TEXT}"),
        (lambda: closing_over([1, LOCK]), "element 1 of the closed-over variable 'value' is a _thread.lock"),
        (
            lambda: closing_over(closing_over(LOCK)),
            "variable 'value' of the closed-over variable 'value' is a _thr",
        ),
        (
            lambda: functools.partial(print, 1, LOCK),
            f"the function partial cannot .* the argument 1 {LOCK_TEXT}",
        ),
        (lambda: functools.partial(print, end=generate()), "the argument 'end' is a generator"),
        (
            lambda: functools.partial(closing_over(LOCK)),
            "closed-over variable 'value' of the function is a _thread",
        ),
        (
            lambda: Client(LOCK).fetch,
            f"attribute 'part' of the object that Client.fetch is bound to {LOCK_TEXT}",
        ),
        (lambda: lambda guard=LOCK: guard, f"the default argument 0 {LOCK_TEXT}"),
        (local_default, f"the default argument 'guard' {LOCK_TEXT}"),
        (lambda: lambda: LOCK, f"the global variable 'LOCK' {LOCK_TEXT}"),
    ],
)
def test_functions(
    make: Callable[[], Callable[..., Any]], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)  # as functions of a script's __main__ go
    try:
        with pytest.raises(SerializationError, match=text) as caught:
            dump_function(make(), LargeObjects())
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert "inside the function" in str(caught.value.hint)
    assert isinstance(caught.value, TypeError)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LOCK, f"argument 1 {LOCK_TEXT}"),
        (generate, "argument 1 is a generator, which cannot be pickled"),
        (lambda: [0, generate()], "the element 1 of argument 1 is a generator"),
        (lambda: {"k": (1, 2, LOCK)}, "the element 2 of the entry 'k' of argument 1 is a _thread.lock"),
        (lambda: Client(LOCK), f"the attribute 'part' of argument 1 {LOCK_TEXT}"),
        (
            lambda: [Client([Client(LOCK)])],
            "attribute 'part' of the element 0 of the attribute 'part' of the elem",
        ),
        (Slotted, f"the attribute 'guard' of argument 1 {LOCK_TEXT}"),
        (lambda: closing_over(LOCK), "the closed-over variable 'value' of argument 1 is a _thread.lock"),
        (
            class_with_a_lock,
            "class attribute 'guard' of the class class_with_a_lock.<locals>.Guarded of",
        ),
        (lambda: nested(LOCK, 10), f"'level 0' of .* of the entry 'level 9' of argument 1 {LOCK_TEXT}"),
        (Stubborn, r"argument 1 is a \S*Stubborn, which cannot be pickled \(I stay here\)"),
        (Silent, r"argument 1 is a \S*Silent, which cannot be pickled \(ValueError\)"),
    ],
)
def test_arguments(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(
        SerializationError, match=rf"an argument of task 2 cannot be sent to a worker: .*{text}"
    ):
        pack_columns([[1, 2, 3], [0, "fine", make()]], [3], cut_by_bytes, LargeObjects())
    with pytest.raises(SerializationError, match=f"an argument cannot be sent to a worker: .*{text}"):
        dump_call((0, make()), {}, LargeObjects())


def test_a_socket_in_an_attribute_of_a_named_argument(a_socket: socket.socket) -> None:
    with pytest.raises(
        SerializationError, match=r"the attribute 'part' of argument 'db' is a socket\.socket, which"
    ):
        pack_calls([((), {}), ((1,), {"db": Client(a_socket)})], [2], cut_by_bytes, LargeObjects())


def test_an_object_that_contains_itself_does_not_lead_in_circles() -> None:
    client = Client(None)
    client.part = [client, LOCK]
    with pytest.raises(
        SerializationError, match="the element 1 of the attribute 'part' of argument 0 is a _thr"
    ):
        dump_call((client,), {}, LargeObjects())


def test_a_repeated_argument_that_cannot_be_pickled() -> None:
    with pytest.raises(SerializationError, match=r"the attribute 'part' is a _thread\.lock"):
        pack_columns([[Client(LOCK)] * 3], [3], cut_by_bytes, LargeObjects())


def test_excessive_depth_is_an_error_of_ours() -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(SerializationError, match=r"cannot be pickled .*recursion"):
        dump_call((deep,), {}, LargeObjects())


def test_what_is_nested_too_deeply_is_told_in_a_sentence() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(SerializationError, match="argument 1 is a list, which cannot be pickled") as caught:
        dump_call((1, nested), {}, LargeObjects())
    assert "recursion" in str(caught.value)
    assert len(caught.value.message) < 300
    while nested:  # or the end of the list nests as deeply
        nested = nested.pop()
