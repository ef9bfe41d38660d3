"""The worker image of the tests: put together from files of this machine, without a base image or a builder.

Three layers: this Python with the libraries of this machine that it needs, the packages that starburst needs,
and the tree under test. Compiled files come along, because the container's root cannot be written.
"""

import compileall
import importlib.metadata
import io
import platform
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = "/opt/starburst"
_SOURCES = Path(__file__).parents[1] / "src"
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"}
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"

BASE = "base/python"
"""Where tests keep the image that workers' images stand on."""


def architecture():
    """This machine's, as image configurations name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def image_config():
    """What the image says about itself, beside its layers."""
    environment = {
        "PATH": "/usr/local/bin",
        "PYTHONPATH": PACKAGES,
        "LANG": "C.UTF-8",
        "SSL_CERT_FILE": _CERTIFICATES,
    }
    return {"Env": [f"{name}={value}" for name, value in environment.items()], "WorkingDir": "/tmp"}


def python_layer():
    """Python in /usr/local, wherever it is on this machine, and the shared libraries of it and of all packages."""
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layer = _Layer()
    for folder in ("dev", "proc", "sys", "etc", "root"):
        layer.folder(folder)
    layer.folder("tmp", mode=0o1777)
    layer.text("etc/passwd", _PASSWD)
    layer.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    layer.text("etc/nsswitch.conf", "hosts: files dns\n")
    site = Path(sysconfig.get_path("platlib"))
    layer.file(_CERTIFICATES.lstrip("/"), site / "botocore" / "cacert.pem")  # the machine may have none

    program = Path(sys.executable).resolve()
    layer.file(f"usr/local/bin/{minor}", program)
    layer.link("usr/local/bin/python3", minor)
    layer.link("usr/local/bin/python", minor)
    stdlib = Path(sysconfig.get_path("stdlib"))
    natives = layer.tree(f"usr/local/lib/{minor}", stdlib, _tree_files(stdlib))
    dynload = Path(sysconfig.get_config_var("DESTSHARED"))
    if not dynload.is_relative_to(stdlib):
        natives += layer.tree(f"usr/local/lib/{minor}/lib-dynload", dynload, _tree_files(dynload))

    natives += [path for path in _package_files() if ".so" in path.suffixes]
    libraries = _libraries([program, *natives], inside=site)
    # Where the C library is, the loader looks by itself.
    home = next(path.parent for name, path in libraries.items() if name.startswith("libc.so"))
    for name, path in sorted(libraries.items()):
        target = path if name.startswith("ld-linux") else home / name
        layer.file(str(target).lstrip("/"), path)
    return layer.close()


def packages_layer():
    """What starburst, its extra ``aws`` and the tests' tasks need."""
    site = Path(sysconfig.get_path("platlib"))
    layer = _Layer()
    layer.tree(PACKAGES.lstrip("/"), site, _package_files())
    return layer.close()


def starburst_layer():
    """The tree under test, with the installed entry points."""
    compileall.compile_dir(_SOURCES, quiet=2)
    layer = _Layer()
    layer.tree(PACKAGES.lstrip("/"), _SOURCES, _tree_files(_SOURCES))
    about = Path(importlib.metadata.distribution("starburst-cloud")._path)
    layer.tree(f"{PACKAGES.lstrip('/')}/{about.name}", about, _tree_files(about))
    return layer.close()


class _Layer:
    """A layer in the making: uncompressed, since it only goes round this machine; everything belongs to root."""

    def __init__(self):
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.GNU_FORMAT)
        self._folders = set()

    def close(self):
        self._tar.close()
        return self._buffer.getvalue()

    def folder(self, name, mode=0o755):
        if name in self._folders or name in ("", "."):
            return
        self.folder(str(Path(name).parent))
        self._folders.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def text(self, name, text):
        data = text.encode()
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))

    def file(self, name, path):
        """Readable by everyone, of the same second as here: compiled files know their source by it."""
        self.folder(str(Path(name).parent))
        with path.open("rb") as file:
            info = self._tar.gettarinfo(arcname=name, fileobj=file)
            info.type, info.linkname = tarfile.REGTYPE, ""
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = int(info.mtime)
            info.size = path.stat().st_size
            self._tar.addfile(info, file)

    def link(self, name, target):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def tree(self, name, root, paths):
        """Files below ``root``, with their compiled ones; returns native code among them."""
        natives = []
        for path in paths:
            self.file(f"{name}/{path.relative_to(root)}", path)
            if path.suffix == ".py":
                compiled = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
                if compiled.exists():
                    self.file(f"{name}/{compiled.relative_to(root)}", compiled)
            elif ".so" in path.suffixes:
                natives.append(path)
        return natives


def _tree_files(root):
    for path in sorted(root.iterdir()):
        if path.is_dir():
            known = path.name in _LEFT_OUT or path.name.startswith("config-")
            if not known and path.name not in ("__pycache__", "site-packages", "dist-packages"):
                yield from _tree_files(path)
        elif path.is_file() and path.suffix != ".a":
            yield path


def _package_files():
    for name in sorted(_needed()):
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(file.locate())
            skip = file.parts[0] == ".." or not _LEFT_OUT.isdisjoint(file.parts) or file.suffix == ".pyc"
            if not skip and path.is_file():
                yield path


def _needed():
    """All distributions behind starburst's own requirements, and numpy."""
    todo, found = [("starburst-cloud", "aws"), ("numpy", "")], set()
    while todo:
        name, extra = todo.pop()
        for text in importlib.metadata.requires(name) or ():
            wanted = Requirement(text)
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": extra})
            if applies and wanted.name not in found:
                todo.append((wanted.name, ""))
        found.add(name)
    return found - {"starburst-cloud"}


def _libraries(programs, inside):
    """Shared libraries outside the packages that these programs load, by their names."""
    listing = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    found = {}
    for line in listing.splitlines():
        words = line.split()
        path = next((Path(word) for word in words if word.startswith("/") and not word.endswith(":")), None)
        if path is not None and not path.is_relative_to(inside):
            found[path.name if words[0].startswith("/") else words[0]] = path
    return found
