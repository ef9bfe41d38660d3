"""The shape of the repository: file sizes, public names, what an import loads, links, and leaks of this machine."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import starburst

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "starburst"
MAX_LINES = 400
TOO_LONG_BUT_GOOD: frozenset[str] = frozenset()
"""Files that may be longer, each with a reason beside it. Empty, and meant to stay so."""

HEAVY = {"boto3", "botocore", "cloudpickle", "numpy", "obstore", "rich", "typer"}
CLIENT_ONLY = {"boto3", "botocore", "rich", "typer"}

# In brackets so that this file does not find itself.
LEAKS = re.compile(
    r"/[w]ork/\w|/[r]oot/\w|/[h]ome/(?!user/|you/|app/)\w|/[U]sers/\w"
    r"|--(?:extra-)?[i]ndex-url|[p]ythonhosted\.org|[p]ypi\.org/simple"
)


def tracked(pattern: str = "*") -> list[Path]:
    """Files under version control; without git or outside a clone, all files that are not hidden or built."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", pattern]
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(command, check=False, capture_output=True, text=True)
        if listing.returncode == 0:
            return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [
        path
        for path in ROOT.rglob(pattern)
        if path.is_file()
        and not any(
            part.startswith(".") or part in {"__pycache__", "results"}
            for part in path.relative_to(ROOT).parts[:-1]
        )
    ]


def loaded_by(*modules: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a new process that imported ``modules``."""
    code = "import importlib, json, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", code, *modules]
    return set(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")
    }
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert set(long) == TOO_LONG_BUT_GOOD, long


def test_public_names_are_sorted_and_unique():
    assert starburst.__all__ == sorted(set(starburst.__all__))


@pytest.mark.parametrize("name", sorted(getattr(starburst, "__all__", ())))
def test_public_name_resolves(name: str):
    assert getattr(starburst, name) is not None
    assert name in dir(starburst)


def test_public_names_are_complete():
    """What type checkers see imported in ``__init__`` is exactly what ``__all__`` promises."""
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("starburst"))
        for alias in node.names
    }
    assert {name for name in imported if not name.startswith("_")} == set(starburst.__all__) - {"__version__"}


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(starburst, "no_such_name")  # noqa: B009 - what a user's typo does


def test_bare_import_is_light():
    assert loaded_by("starburst") & HEAVY == set()


def test_worker_loads_no_client_libraries():
    names = [
        ".".join(("starburst", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in (SOURCE / "worker").rglob("*.py")
    ]
    assert loaded_by(*names) & CLIENT_ONLY == set()


def test_no_machine_paths_or_index_hosts():
    leaks = []
    for path in tracked():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        leaks += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(lines, 1)
            if LEAKS.search(line)
        ]
    assert not leaks, "\n".join(leaks)


def anchors(document: Path) -> set[str]:
    """Names of a document's headings as they stand in links."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+\s+(.*?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_relative_links_resolve():
    broken = []
    for document in tracked("*.md"):
        text = re.sub(r"^```.*?^```|`[^`\n]*`", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", text):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (document.parent / name).resolve() if name else document
            if not path.exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}: no such file")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                broken.append(f"{document.relative_to(ROOT)}: {target}: no such heading")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", ["runtime", "demo", "test", "check", "bench"])
def test_requirements_are_pinned(name: str):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    loose = [
        line for line in lines if not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)
    ]
    assert not loose
