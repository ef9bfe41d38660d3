"""Where a program's own modules are: for scripts, notebooks, projects, and what is installed to be edited."""

import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import starburst
from starburst.environment.code_roots import Root, find_roots, loaded_modules


def module(name, file, **more):
    made = ModuleType(name)
    made.__file__ = str(file)
    vars(made).update(more)
    return made


def found(*path, modules=(), editable=()):
    return find_roots(
        path=[str(p) for p in path], modules={m.__name__: m for m in modules}, editable=editable
    )


def test_folders_of_the_module_path_that_hold_nothing_installed(tmp_path, monkeypatch):
    script, more = tmp_path / "app", tmp_path / "more"
    script.mkdir()
    more.mkdir()
    system = [
        sysconfig.get_path("stdlib"),
        *site.getsitepackages(),
        "/nowhere/python311.zip",
        sys.prefix + "/bin",
    ]
    assert found(script, *system, more, script, tmp_path / "gone") == [Root(str(script)), Root(str(more))]
    monkeypatch.chdir(more)
    assert found("") == [Root(str(more))], "as in a notebook or an interactive session"


def test_the_src_folder_of_the_project_around_the_script(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "src").mkdir()
    (tmp_path / "scripts").mkdir()
    source = Root(str(tmp_path / "src"), namespaces=True)
    assert found(tmp_path / "scripts") == [Root(str(tmp_path / "scripts")), source]
    assert found(tmp_path / "src") == [source]


def test_a_project_above_the_checkout_is_another_one(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "src").mkdir()
    (tmp_path / "mine" / ".git").mkdir(parents=True)
    assert found(tmp_path / "mine") == [Root(str(tmp_path / "mine"))]


def test_projects_that_are_installed_to_be_edited(tmp_path):
    flat, source = tmp_path / "flat", tmp_path / "with-src"
    flat.mkdir()
    (source / "src").mkdir(parents=True)
    assert found(editable=[flat, source]) == [Root(str(flat)), Root(str(source / "src"), namespaces=True)]


def test_packages_that_a_finder_of_setuptools_redirects(tmp_path):
    mapping = {"mine": str(tmp_path / "lib" / "mine"), "mine.sub": str(tmp_path / "else" / "sub")}
    finder = module("__editable___mine_1_0_finder", "/env/site-packages/f.py", MAPPING=mapping)
    assert found(modules=[finder]) == [Root(str(tmp_path / "lib"), frozenset({"mine"}))]


def test_the_packages_of_a_worker_are_no_code_of_a_program_that_runs_in_it(tmp_path):
    (tmp_path / "packages").mkdir()
    program = "from starburst.environment.code_roots import find_roots; print(find_roots())"
    path = os.pathsep.join([str(Path(starburst.__file__).parents[1]), str(tmp_path / "packages")])
    env = {**os.environ, "PYTHONPATH": path}

    def roots(**more):
        command = [sys.executable, "-P", "-c", program]
        return subprocess.run(command, env=env | more, capture_output=True, text=True, check=True).stdout

    assert "packages" in roots()
    assert "packages" not in roots(STARBURST_LOCK="abc")


def test_whatever_else_the_program_has_imported(tmp_path):
    (tmp_path / "app").mkdir()
    modules = [
        module("inside", tmp_path / "app" / "inside.py"),
        module("odd", tmp_path / "loader" / "odd.py"),
        module("strange", tmp_path / "loader" / "strange" / "__init__.py"),
        module("strange.part", tmp_path / "loader" / "strange" / "part.py"),
        module("installed", tmp_path / "site-packages" / "installed.py"),
        module("starburst.thing", tmp_path / "x" / "thing.py"),
        module("json", sysconfig.get_path("stdlib") + "/json/__init__.py"),
        module("__main__", tmp_path / "loader" / "main.py"),
    ]
    roots = found(tmp_path / "app", modules=modules)
    assert roots == [
        Root(str(tmp_path / "app")),
        Root(str(tmp_path / "loader"), frozenset({"odd", "strange"})),
    ]
    names = loaded_modules({m.__name__: m for m in modules})
    assert set(names) == {"inside", "odd", "strange", "strange.part"}


def test_this_very_program():
    assert __name__ in loaded_modules()
    assert any(__file__.startswith(root.path) for root in find_roots())
    assert not [name for name in loaded_modules() if name.startswith(("pytest", "starburst", "json"))]
