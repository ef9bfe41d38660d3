"""Small packages made here: wheels of any platform, source distributions, and an index that serves them."""

import base64
import hashlib
import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MACHINES = {"x86_64": 62, "aarch64": 183}
_BACKEND = """
import base64, hashlib, os, subprocess, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    {prelude}
    name = "{name}-{version}-{tag}.whl"
    about = "{name}-{version}.dist-info"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.write("{name}.py", "{name}.py")
        wheel.writestr(about + "/METADATA", open("PKG-INFO").read())
        wheel.writestr(about + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n")
        wheel.writestr(about + "/RECORD", "".join(f"{{entry}},,\\n" for entry in wheel.namelist()))
    return name
"""


def elf(machine):
    """The beginning of a shared object for this processor."""
    return (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + (3).to_bytes(2, "little")
        + _MACHINES[machine].to_bytes(2, "little")
    )


def metadata(name, version, requires=(), python=""):
    lines = ["Metadata-Version: 2.2", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] if python else []
    return "\n".join(lines + [f"Requires-Dist: {entry}" for entry in requires]) + "\n"


def make_wheel(folder, name, version="1.0", *, tag="py3-none-any", requires=(), python="", files=None):
    """A wheel with one module of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    about = f"{name}-{version}.dist-info"
    pure = str(tag.endswith("any")).lower()
    contents = {f"{name}.py": f"VERSION = {version!r}\n".encode(), **(files or {})}
    contents[f"{about}/METADATA"] = metadata(name, version, requires, python).encode()
    contents[f"{about}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode()
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for entry, data in contents.items():
            wheel.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{entry},sha256={digest},{len(data)}\n"
        wheel.writestr(f"{about}/RECORD", f"{record}{about}/RECORD,,\n")
    return path


def make_sdist(folder, name, version="1.0", *, tag="py3-none-any", prelude="pass", requires=()):
    """A source distribution that builds itself, without fetching a build system."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    contents = {
        "PKG-INFO": metadata(name, version, requires),
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {list(requires)!r}\n',
        "backend.py": _BACKEND.format(name=name, version=version, tag=tag, prelude=prelude),
        f"{name}.py": f"VERSION = {version!r}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for entry, text in contents.items():
            info = tarfile.TarInfo(f"{name}-{version}/{entry}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


class _Index(ThreadingHTTPServer):
    folder = None
    login = None
    yanked = ()
    refuse = 401


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = server.login and "Basic " + base64.b64encode(server.login.encode()).decode()
        if wanted and self.headers.get("Authorization") != wanted:
            return self._answer(server.refuse, b"", "text/plain")
        parts = self.path.strip("/").split("/")
        if parts[0] == "files":
            path = server.folder / parts[1].partition("?")[0]
            return self._answer(200, path.read_bytes(), "application/octet-stream")
        links = "".join(
            self._link(path) for path in sorted(server.folder.iterdir()) if self._named(path) == parts[-1]
        )
        self._answer(
            200 if links else 404, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"
        )

    def do_HEAD(self):
        self.do_GET()

    @staticmethod
    def _named(path):
        return path.name.split("-")[0].replace("_", "-").lower()

    def _link(self, path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yanked = ' data-yanked="broken"' if path.name in self.server.yanked else ""
        return f'<a href="/files/{path.name}#sha256={digest}"{yanked}>{path.name}</a>'

    def _answer(self, status, body, kind):
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Basic realm=index")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serve_index(folder, *, login=None, yanked=(), refuse=401):
    """A package index over HTTP on loopback; with ``login`` only for ``user:password``."""
    server = _Index(("127.0.0.1", 0), _Handler)
    server.folder, server.login, server.yanked, server.refuse = folder, login, yanked, refuse
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
