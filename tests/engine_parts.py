"""What tests of builds with engines share: a base image with a shell and an apt-get of ours."""

import functools
import io
import os
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

from podman import own_podman, run_options
from starburst.environment.base_images import Reference, find_base
from starburst.environment.engines import Engine
from starburst.environment.platforms import Platform
from starburst.environment.registry import Registry
from worker_image import architecture, image_config, python_layer

HERE = Platform(
    f"{sys.version_info.major}.{sys.version_info.minor}", Platform.of_this_machine().architecture, "2.17"
)
OTHER = Platform(HERE.python, {"X86_64": "ARM64", "ARM64": "X86_64"}[HERE.architecture], "2.17")
PATH = "/usr/local/bin:/usr/bin"
PROGRAMS = ("cat", "rm")
FOLDERS = (
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/debian",
    "var",
    "var/lib",
    "var/lib/apt",
    "var/lib/apt/lists",
)

APT_GET = """\
#!/bin/sh
fail() {  # buildah may lose what was printed just before the end
  echo "$1" >&2; python -c "import time; time.sleep(0.3)"; exit 100
}
if [ "$1" = update ]; then : > /var/lib/apt/lists/lock; exit 0; fi
for each; do
  case $each in
    libnope*) fail "E: Unable to locate package $each" ;;
    liboffline*)
      echo "Err:1 http://deb.debian.org bookworm InRelease" >&2
      echo "  Temporary failure resolving 'deb.debian.org'" >&2
      fail "E: Unable to locate package $each" ;;
    libbig*) fail "E: You don't have enough free space: write error (28: No space left on device)" ;;
    libarm*) fail "exec /bin/sh: exec format error" ;;
    -*|install) ;;
    *) echo "$each" > "/usr/lib/debian/$each"; echo "Setting up $each ..." ;;
  esac
done
[ "$DEBIAN_FRONTEND" = noninteractive ]
"""


def shell_layer():
    """A shell, some programs, and an apt-get that fails on request; their C library comes with Python."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name in PROGRAMS:
            _add(tar, f"usr/bin/{name}", Path(f"/usr/bin/{name}").resolve().read_bytes())
        _add(tar, "usr/bin/sh", Path("/bin/sh").resolve().read_bytes())
        _add(tar, "usr/bin/apt-get", APT_GET.encode())
        link = tarfile.TarInfo("bin")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
        tar.addfile(link)
    return buffer.getvalue()


def push_base(oci, repository="python", tag="slim", **variables):
    """Put a base image into a registry and look it up."""
    config = image_config()
    env = dict(line.split("=", 1) for line in config["Env"]) | {"PATH": PATH} | variables
    config["Env"] = [f"{name}={value}" for name, value in env.items() if name != "PYTHONPATH"]
    layers = [_python_layer(), shell_layer()]
    oci.push_image(repository, layers, config, architecture=architecture(), tag=tag, history=True)
    with Registry(oci.address) as client:
        return find_base(client, Reference.parse(f"{oci.address}/{repository}:{tag}"), HERE)


@contextmanager
def own_engines():
    """podman and buildah of this machine, with a storage of their own; they need no rights to make containers."""
    before = os.environ.get("BUILDAH_ISOLATION")
    os.environ["BUILDAH_ISOLATION"] = "chroot"
    try:
        with own_podman() as podman:
            options = [each for each in podman[1:] if not each.startswith("--runtime=")]
            yield {
                "podman": Engine("podman", tuple(podman)),
                "buildah": Engine("buildah", ("buildah", *options)),
            }
    finally:
        os.environ.pop("BUILDAH_ISOLATION")
        if before is not None:
            os.environ["BUILDAH_ISOLATION"] = before


def run_python(engine, image, code):
    """Pull an image and run Python in it; returns what it printed."""
    command = [
        *engine.command,
        "run",
        "--rm",
        "--tls-verify=false",
        *run_options(),
        image,
        "python",
        "-c",
        code,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


@functools.cache
def _python_layer():
    return python_layer()


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o755
    tar.addfile(info, io.BytesIO(data))
