"""Result files: whole or not there, as a pickle or as JSON."""

from __future__ import annotations

import json
import pickle
import threading

import numpy as np
import pytest

from starburst.cli.output import CommandError
from starburst.cli.results import write_results
from starburst.errors import TaskFailed


def test_pickle(tmp_path):
    values = [1, {"a": (2, 3)}, np.arange(3), lambda: 4]
    write_results(tmp_path / "r.pkl", values)
    read = pickle.loads((tmp_path / "r.pkl").read_bytes())
    assert read[:2] == values[:2]
    assert (read[2] == values[2]).all()
    assert read[3]() == 4


def test_json_with_arrays_and_failures(tmp_path):
    error = TaskFailed("it raised", task_id="000001-00000002", index=2)
    write_results(tmp_path / "r.json", [1, np.float64(2.5), np.arange(4).reshape(2, 2), error])
    assert json.loads((tmp_path / "r.json").read_bytes()) == [
        1,
        2.5,
        [[0, 1], [2, 3]],
        {"error": "TaskFailed", "message": "it raised", "task_id": "000001-00000002", "index": 2},
    ]


@pytest.mark.parametrize(
    ("name", "values"), [("r.json", [object()]), ("r.json", [{1j: 2}]), ("r.pkl", [threading.Lock()])]
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, name, values):
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(CommandError):
        write_results(path, values)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [name]
