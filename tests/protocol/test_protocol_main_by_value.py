"""What a script's ``__main__`` defines must work in a process whose ``__main__`` is another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import pickle, sys
from dataclasses import dataclass
from enum import Enum

import numpy as np
from starburst.protocol.chunking import cut_by_bytes
from starburst.protocol.payload import LargeObjects, dump_function, dump_value, load_value, pack_columns

TABLE = np.arange(300_000.0)

class Colour(Enum):
    RED = 1

@dataclass
class Point:
    x: int
    colour: Colour

    def moved(self, by):
        return Point(self.x + by, self.colour)

def work(point, by):
    assert TABLE[5] == 5.0
    return {"point": point.moved(by)}

if __name__ == "__main__":
    if sys.argv[1] == "send":
        large = LargeObjects()
        function = dump_function(work, large)
        calls = pack_columns([[Point(i, Colour.RED) for i in range(4)], [10] * 4], [4], cut_by_bytes, large)
        found = {name: [bytes(b) for b in buffers] for name, (buffers, _) in large.found.items()}
        with open(sys.argv[2], "wb") as file:
            pickle.dump((function, calls.layout, calls.frames[0], found), file)
        print(len(found), len(function) < 20_000)
        input()
        with open(sys.argv[3], "rb") as file:
            results = load_value(pickle.load(file))
        assert results == [{"point": Point(i + 10, Colour.RED)} for i in range(4)], results
        assert all(type(result["point"]) is Point for result in results)
        print("same class")
"""

WORKER = """
import pickle, sys
from starburst.protocol.payload import CallBlock, dump_value, load_function, load_value

with open(sys.argv[1], "rb") as file:
    function, layout, frame, found = pickle.load(file)
resolve = lambda sha256: load_value(found[sha256])
work = load_function(function, resolve)
block = CallBlock(layout, frame, 4, resolve)
results = []
for i in range(4):
    args, kwargs = block.call(i)
    results.append(work(*args, **kwargs))
with open(sys.argv[2], "wb") as file:
    pickle.dump([bytes(b) for b in dump_value(results)], file)
"""

READER = """
import pickle, sys
from starburst.protocol.payload import load_value

with open(sys.argv[1], "rb") as file:
    results = load_value(pickle.load(file))
print([result["point"].moved(1).x for result in results], type(results[0]["point"]).__name__)
"""


def test_classes_and_functions_of_a_script_travel_there_and_back(tmp_path: Path) -> None:
    for name, text in (("script.py", SCRIPT), ("worker.py", WORKER), ("reader.py", READER)):
        (tmp_path / name).write_text(text)
    sent, results = str(tmp_path / "sent"), str(tmp_path / "results")
    with subprocess.Popen(
        [sys.executable, "-W", "error", "script.py", "send", sent, results],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline().split() == ["1", "True"], "the global array is stored apart"
        subprocess.run([sys.executable, "-W", "error", "worker.py", sent, results], cwd=tmp_path, check=True)
        out, _ = script.communicate("\n", timeout=60)
    assert script.returncode == 0
    assert out.strip() == "same class"
    reader = subprocess.run(
        [sys.executable, "-W", "error", "reader.py", results],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert reader.stdout.split("]")[0] == "[11, 12, 13, 14"
    assert reader.stdout.strip().endswith("Point")
