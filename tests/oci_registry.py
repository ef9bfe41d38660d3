"""A real image registry for tests, Debian's docker-registry, and images that are put into it over its API."""

import hashlib
import http.client
import json
import re
import shutil
import subprocess
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from helpers import eventually
from starburst.testing.aws.seaweed import GUARD

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


_SETTINGS = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {data}}}}}
http: {{addr: "127.0.0.1:0"}}
"""


@dataclass(frozen=True)
class Blob:
    """One piece of content: its digest names it."""

    data: bytes
    media_type: str

    @property
    def digest(self):
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    def descriptor(self):
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


class OciRegistry:
    """A registry on loopback without passwords; everything it keeps is in ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.address = ""
        self._guard = None

    def start(self):
        program = shutil.which("docker-registry")
        assert program, "docker-registry is missing: make system"
        self.folder.mkdir(parents=True)
        settings = self.folder / "config.yml"
        settings.write_text(_SETTINGS.format(data=self.folder / "data"))
        with self._log().open("wb") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "registry", program, "serve", str(settings)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.address = eventually(self._listens_at, 30, what="the registry")
        return self

    def stop(self):
        if self._guard is not None:
            self._guard.stdin.close()
            self._guard.wait(timeout=20)
            self._guard = None

    def push_image(self, repository, layers, config, *, architecture, tag, history=False):
        """Put an image of uncompressed layers there; returns the digest of its manifest.

        ``history`` makes it complete enough for engines to build upon.
        """
        blobs = [Blob(layer, _LAYER) for layer in layers]
        about = {
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob in blobs]},
        }
        if history:
            about["history"] = [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)]
        described = Blob(json.dumps(about).encode(), _CONFIG)
        for blob in [*blobs, described]:
            self._push_blob(repository, blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described.descriptor(),
            "layers": [blob.descriptor() for blob in blobs],
        }
        return self.push_manifest(repository, Blob(json.dumps(manifest).encode(), MANIFEST), tag)

    def push_index(self, repository, images, *, tag):
        """Put an image of several platforms there: ``images`` are tags or digests by architecture."""
        manifests = []
        for architecture, image in images.items():
            platform = {"architecture": architecture, "os": "linux"}
            manifests.append({**self.manifest(repository, image).descriptor(), "platform": platform})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self.push_manifest(repository, Blob(json.dumps(index).encode(), INDEX), tag)

    def manifest(self, repository, image):
        """What a tag or digest stands for."""
        status, data = self._request(
            "GET", f"/v2/{repository}/manifests/{image}", accept=f"{MANIFEST}, {INDEX}"
        )
        assert status == 200, data
        return Blob(data, json.loads(data)["mediaType"])

    def push_manifest(self, repository, blob, tag):
        status, data = self._request(
            "PUT", f"/v2/{repository}/manifests/{tag}", blob.data, content_type=blob.media_type
        )
        assert status == 201, data
        return blob.digest

    def _push_blob(self, repository, blob):
        status, _ = self._request("HEAD", f"/v2/{repository}/blobs/{blob.digest}")
        if status == 200:
            return
        status, data = self._request("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, data
        place = urllib.parse.urlsplit(self._location)
        target = f"{place.path}?{place.query}&digest={urllib.parse.quote(blob.digest)}"
        status, data = self._request("PUT", target, blob.data, content_type="application/octet-stream")
        assert status == 201, data

    def _request(self, method, target, body=None, *, content_type=None, accept="*/*"):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        headers = {"Accept": accept, **({"Content-Type": content_type} if content_type else {})}
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        data = response.read()
        self._location = response.headers.get("Location", "")
        connection.close()
        return response.status, data

    def _listens_at(self):
        assert self._guard.poll() is None, self._log().read_text()[-3000:]
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", self._log().read_text())
        return found and found[1]

    def _log(self):
        return self.folder / "registry.log"
