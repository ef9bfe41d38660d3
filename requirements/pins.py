"""Resolve pyproject.toml into the pinned files beside this script: ``make pins``.

All groups are resolved together once, so that a package has one version in every file; then each group
is resolved alone against those versions. Only names and versions are written: no index addresses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
HEADER = "# Tested versions, for `make {target}`. Written by `make pins` from pyproject.toml.\n"


def main() -> None:
    """Write runtime, demo, test, check and bench.txt."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    files = {
        "runtime": ("setup", runtime),
        "demo": ("demo", runtime + extras["demo"]),
        "test": ("test", runtime + extras["demo"] + extras["sim"] + groups["test"]),
        "check": ("check", groups["check"]),
        "bench": ("bench", runtime + extras["demo"] + groups["bench"]),
    }
    together = resolve([requirement for _, wanted in files.values() for requirement in wanted], None)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "together.txt"
        constraints.write_text("\n".join(together))
        for name, (target, wanted) in files.items():
            pins = resolve(wanted, constraints)
            (FOLDER / f"{name}.txt").write_text(HEADER.format(target=target) + "\n".join(pins) + "\n")
            print(f"requirements/{name}.txt: {len(pins)} packages")


def resolve(requirements: list[str], constraints: Path | None) -> list[str]:
    """``name==version`` of all that pip would install for ``requirements``, sorted."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", "-"]
    if constraints is not None:
        command += ["--constraint", str(constraints)]
    result = subprocess.run([*command, *sorted(set(requirements))], check=True, stdout=subprocess.PIPE)
    packages = [entry["metadata"] for entry in json.loads(result.stdout)["install"]]
    return sorted(f"{package['name'].lower()}=={package['version']}" for package in packages)


if __name__ == "__main__":
    main()
