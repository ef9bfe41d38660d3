from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from starburst import errors
from starburst.errors import (
    CollectTimeout,
    OptionError,
    SerializationError,
    StarburstError,
    TaskError,
    TaskFailed,
    TaskTimeout,
    WorkerLost,
)

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, StarburstError)]


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    lines = [
        line for line in (errors.__doc__ or "").splitlines() if re.search(r"(── |^    Starburst)\w+", line)
    ]
    parents: dict[int, str] = {}
    drawn = {}
    for line in lines:
        name = re.search(r"[A-Z]\w+", line)
        assert name is not None
        depth = name.start()
        drawn[name[0]] = parents.get(max((d for d in parents if d < depth), default=-1))
        parents = {d: n for d, n in parents.items() if d < depth} | {depth: name[0]}
    assert drawn == {
        kind.__name__: kind.__bases__[0].__name__ if kind is not StarburstError else None for kind in ALL
    }


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (OptionError, ValueError),
        (SerializationError, TypeError),
        (CollectTimeout, TimeoutError),
        (TaskTimeout, TimeoutError),
    ],
)
def test_errors_are_also_what_python_programmers_expect(kind: type[StarburstError], builtin: type) -> None:
    assert issubclass(kind, builtin)
    with pytest.raises(builtin, match="what happened"):
        raise kind("what happened")


def test_each_error_explains_itself() -> None:
    assert len(ALL) > 20
    for kind in ALL:
        assert kind.__doc__
        assert kind.__doc__.splitlines()[0].rstrip(";:").endswith((".", ""))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_survive_pickling_and_copying(kind: type[StarburstError]) -> None:
    error = kind("what happened", hint="do this")
    error.add_note("a note")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert (twin.message, twin.hint, str(twin), twin.args) == (
            error.message,
            "do this",
            str(error),
            error.args,
        )
        assert twin.__notes__ == ["a note"]


TASK: dict[str, Any] = {
    "task_id": "000001-00000042",
    "index": 42,
    "worker": "w-1",
    "attempt": 3,
    "session_id": "s",
    "output": "line 1\nline 2\n",
    "remote_traceback": "Traceback…\nValueError: x\n",
}


@pytest.mark.parametrize(
    "kind", [kind for kind in ALL if issubclass(kind, TaskError)], ids=lambda k: k.__name__
)
def test_a_tasks_error_keeps_where_and_how_when_it_travels(kind: type[TaskError]) -> None:
    error = kind("task 42 failed", hint="look at the log", **TASK)
    for twin in (error, pickle.loads(pickle.dumps(error))):
        assert {name: getattr(twin, name) for name in TASK} == TASK
        assert str(twin) == str(error)


def test_the_text_of_a_tasks_error_is_message_traceback_output_hint() -> None:
    text = str(TaskFailed("task 42 failed", hint="look at the log", **TASK))
    parts = [
        "task 42 failed",
        "Traceback…\nValueError: x",
        "Last output of the task:\nline 1\nline 2",
        "  → look at",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert str(WorkerLost("gone")) == "gone"


def test_the_hint_stands_on_a_line_of_its_own() -> None:
    assert str(StarburstError("what", hint="how")) == "what\n  → how"
    assert str(StarburstError("what")) == "what"
    assert StarburstError("what", hint="how").args == ("what",)


def test_the_users_exception_travels_as_the_cause() -> None:
    error = TaskFailed("task 42 failed", **TASK)
    error.__cause__ = ValueError("x")
    twin = pickle.loads(pickle.dumps(error))
    assert repr(twin.__cause__) == "ValueError('x')"


def test_a_cause_that_cannot_be_pickled_does_not_keep_the_error_from_travelling() -> None:
    error = TaskFailed("task 42 failed", **TASK)
    error.__cause__ = ValueError(lambda: None)
    twin = pickle.loads(pickle.dumps(error))
    assert twin.__cause__ is None
    assert twin.index == 42
