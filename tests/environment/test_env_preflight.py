"""Modules that workers would not have, and libraries of the system that they lack."""

import sys
from dataclasses import dataclass

import cloudpickle
import pytest

from starburst.environment.code import collect
from starburst.environment.code_roots import Root
from starburst.environment.preflight import missing, needed_modules
from starburst.environment.system_libraries import hint_for, system_library_hint
from starburst.protocol.payload import LargeObjects, dump_function

SCRIPT = """
import collections, json, threading
import numpy as np
import sklearn.linear_model as lm
from dataclasses import dataclass
from enum import Enum

TABLE = np.arange(10)

class Colour(Enum):
    RED = 1

@dataclass
class Model:
    weight: float = 1.0
    def fit(self):
        import pandas
        return lm.LinearRegression()

def optional():
    try:
        import torch
    except ImportError:
        torch = None
    with open("x") as file:
        import yaml.nodes
    from . import sibling
    return torch

def work(x, model=Model(), colour=Colour.RED):
    def inner():
        from PIL import Image
        return Image
    return np.sum(TABLE), json.dumps, collections.OrderedDict(), optional(), inner
"""


def pickled(fn):
    return dump_function(fn, LargeObjects())


def of_script(text, name="work"):
    """A function as a script of that text would send it."""
    from types import ModuleType

    module = ModuleType("made_up_script")
    sys.modules[module.__name__] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        exec(compile(text, "script.py", "exec"), vars(module))
        return pickled(vars(module)[name])
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules[module.__name__]


def test_names_of_a_function_that_travels_by_value():
    found = needed_modules(of_script(SCRIPT))
    assert {"numpy", "sklearn.linear_model", "pandas", "yaml.nodes", "json", "collections"} <= found
    assert any(name.startswith("PIL") for name in found)
    assert "torch" not in found, "it may be missing"
    assert not {name for name in found if "sibling" in name or name.startswith((".", "cloudpickle"))}


@dataclass
class Callable:
    size: int = 3

    def __call__(self, x):
        return x


@pytest.mark.parametrize("fn", [Callable(), len, sorted, "abc".upper, Callable().__call__, lambda x: x])
def test_any_callable_can_be_looked_at(fn):
    assert isinstance(needed_modules(pickled(fn)), set)


def test_what_is_damaged_needs_nothing():
    assert needed_modules(b"\x80\x05not a pickle") == set()


def test_nothing_of_a_pickle_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    needed_modules(cloudpickle.dumps(Trap()))
    assert list(tmp_path.iterdir()) == []


def test_imports_of_local_modules_count_too(tmp_path):
    (tmp_path / "helper.py").write_text(
        "import sklearn.svm\nfrom typing import TYPE_CHECKING\nimport pkg.deep\n"
        "if TYPE_CHECKING:\n    import tensorflow\n"
        "try:\n    import torch\nexcept ImportError:\n    torch = None\n"
        "def later():\n    import jax\n"
    )
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("from . import side\n")
    (tmp_path / "pkg" / "side.py").write_text("import cv2\n")
    (tmp_path / "pkg" / "deep.py").write_text(
        "from .side import thing\nfrom .. import nonsense\nimport helper\n"
    )
    (tmp_path / "unused.py").write_text("import bs4\n")
    (tmp_path / "broken.py").write_text("import (\n")
    tree = collect([Root(str(tmp_path))])
    text = "def work(x):\n    import helper, broken\n    return helper.later()\n"
    function = of_script(text)
    found = needed_modules(function, tree)
    assert {"helper", "pkg.deep", "pkg.side", "sklearn.svm", "cv2", "typing"} <= found
    assert not found & {"torch", "tensorflow", "jax", "bs4"}
    told = missing(found, {"numpy"}, tree)
    assert [(each.module, each.distribution) for each in told] == [
        ("cv2", "opencv-python-headless"),
        ("sklearn.svm", "scikit-learn"),
    ]
    assert told[1].fix == "uv add scikit-learn"
    assert missing(found, {"Scikit_Learn", "opencv-python-headless"}, tree) == []


@pytest.mark.parametrize(
    ("module", "package"),
    [("yaml", "pyyaml"), ("PIL.Image", "pillow"), ("dateutil.tz", "python-dateutil"), ("attr", "attrs")],
)
def test_names_of_packages_that_differ_from_their_modules(module, package):
    [told] = missing({module}, set())
    assert told.distribution.lower() == package
    assert told.fix.lower() == f"uv add {package}"
    assert missing({module}, {package.upper()}) == []


def test_names_that_are_not_installed_here_are_guessed():
    told = {
        each.module: each.distribution
        for each in missing({"serial", "some_thing", "google.cloud.nope"}, set())
    }
    assert told == {
        "serial": "pyserial",
        "some_thing": "some-thing",
        "google.cloud.nope": "google-cloud-nope",
    }
    [told] = missing({"some_thing"}, set(), how_to_add="pip install {}")
    assert told.fix == "pip install some-thing"


def test_a_module_that_was_loaded_from_nowhere_is_told_so(monkeypatch):
    from types import ModuleType

    odd = ModuleType("oddly_loaded")
    odd.__file__ = "/somewhere/oddly_loaded.py"
    monkeypatch.setitem(sys.modules, "oddly_loaded", odd)
    [told] = missing({"oddly_loaded"}, set())
    assert "register_pickle_by_value(oddly_loaded)" in told.fix


def test_the_standard_library_and_what_workers_bring_themselves_is_never_missing():
    assert (
        missing({"json", "os.path", "_thread", "cloudpickle.cloudpickle", "starburst.api", "__main__"}, set())
        == []
    )


# ---- libraries of the system ----


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgomp.so.1", "libgomp1"),
        ("libgdal.so.32", "libgdal32"),
        ("libglib-2.0.so.0", "libglib2.0-0"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libX11.so.6", "libx11-6"),
        ("libXrender.so.1", "libxrender1"),
        ("libsndfile.so.1", "libsndfile1"),
        ("libpq.so.5", "libpq5"),
        ("libmagic.so.1", "libmagic1"),
        ("libxml2.so.2", "libxml2"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libfoo.so.1", None),
    ],
)
def test_the_package_of_a_library(library, package):
    assert system_library_hint(library) == package


def test_what_to_do_about_a_missing_library():
    said = "libGL.so.1: cannot open shared object file: No such file or directory"
    assert hint_for(said) == (
        'the workers\' image lacks libGL.so.1, a library of the system: system_packages=["libgl1"] adds it'
    )
    assert "apt-file search libfoo.so.1" in hint_for(said.replace("libGL", "libfoo"))
    assert hint_for(said, image=False).endswith(
        "lacks libGL.so.1, a library of the system: apt install libgl1"
    )
    assert hint_for("No module named 'cv2'") is None
