"""A container image of a shell and a few programs of this machine, with the libraries that they need."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

NAME = "localhost/starburst-tiny:latest"
_PROGRAMS = ("sh", "sleep", "env", "cat", "id", "touch")


def build(podman, folder):
    """Make the image known to this podman."""
    archive = folder / "tiny.tar"
    with tarfile.open(archive, "w") as tar:
        for path in _files():
            tar.add(path.resolve(), arcname=str(path).lstrip("/"))
    subprocess.run([*podman, "import", str(archive), NAME], check=True, capture_output=True)


def _files():
    programs = [Path("/bin") / Path(shutil.which(name)).name for name in _PROGRAMS]
    listing = subprocess.run(["ldd", *map(str, programs)], check=True, capture_output=True, text=True).stdout
    return [*programs, *(Path(found) for found in sorted(set(re.findall(r"(/\S+) \(0x", listing))))]
