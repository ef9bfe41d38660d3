"""A client of image registries: the parts of the OCI distribution API that building an image needs.

Kept libraries were looked at first. ``oras`` (0.2.43) reads a whole blob into memory before it sends it, tries a broken
request again without asking how far it got, and knows neither timeouts nor mounting; ``httpx`` would be a new
dependency. ``urllib3`` is there with boto3, and does what this needs: files are streamed, redirects and tries are ours.

Source: OCI Distribution Specification 1.1.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from starburst.environment.layers import writing
from starburst.environment.registry_auth import Credentials
from starburst.environment.registry_errors import Refusal, refused
from starburst.environment.registry_http import Later, Patience, RegistryHttp
from starburst.environment.registry_upload import PIECE_BYTES, Blob, Upload
from starburst.errors import EnvironmentBuildError

__all__ = ["MANIFEST_TYPES", "Blob", "Manifest", "Registry"]

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_REFUSAL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, as it is stored.

    Attributes:
        data: The very bytes that the digest names.
        media_type: What it is.
        digest: ``sha256:…``.
    """

    data: bytes
    media_type: str
    digest: str


class Registry:
    """A registry. Several threads may use it; close it in the end (or use ``with``).

    Args:
        host: Such as ``123456789012.dkr.ecr.eu-west-1.amazonaws.com``, with a port if it needs one.
        username: Who asks; ``AWS`` for ECR. None for nobody.
        password: A password or token; it goes to this host, and to the token server that it names.
        insecure_http: Speak plain HTTP; loopback hosts are always spoken to so.
        sleep: Waits so many seconds between tries. It may raise, to stop.
        piece_bytes: Blobs are sent in pieces of this size.
    """

    def __init__(
        self,
        host: str,
        *,
        username: str | None = None,
        password: str | None = None,
        insecure_http: bool = False,
        sleep: Callable[[float], object] = time.sleep,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        credentials = None if username is None or password is None else Credentials(username, password)
        self._http = RegistryHttp(host, credentials, insecure_http=insecure_http, sleep=sleep)
        self._piece_bytes = piece_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """As given."""
        return self._http.host

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has it.

        Raises:
            EnvironmentBuildError: As all methods here: the registry refuses, or does not answer.
        """
        answer = self._http.ask(
            "HEAD",
            f"/v2/{repository}/blobs/{digest}",
            doing="to look for a layer",
            repository=repository,
            actions="pull,push",
            expect=(200, 404),
        )
        return answer.status == 200

    def get_manifest(self, repository: str, reference: str) -> Manifest | None:
        """What a tag or digest stands for; None if there is no such thing, or no such repository."""
        answer = self._http.ask(
            "GET",
            f"/v2/{repository}/manifests/{reference}",
            doing=f"to read the image {reference}",
            repository=repository,
            expect=(200, 404),
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
        )
        if answer.status == 404:
            return None
        digest = f"sha256:{hashlib.sha256(answer.data).hexdigest()}"
        if ":" in reference and digest != reference:
            raise self._damaged(repository, reference)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(answer.data, kind if kind in MANIFEST_TYPES else _stated_type(answer.data), digest)

    def digest_of(self, repository: str, tag: str) -> str | None:
        """The digest that a tag stands for; None if there is no such tag, or no such repository."""
        answer = self._http.ask(
            "HEAD",
            f"/v2/{repository}/manifests/{tag}",
            doing=f"to look for the image {tag}",
            repository=repository,
            expect=(200, 404),
            headers={"Accept": ", ".join(MANIFEST_TYPES)},
        )
        if answer.status == 404:
            return None
        if digest := answer.headers.get("Docker-Content-Digest"):
            return digest
        found = self.get_manifest(repository, tag)
        return found.digest if found else None

    def put_manifest(self, repository: str, tag: str, manifest: Manifest) -> str:
        """Let a tag stand for a manifest whose blobs are all there.

        Returns:
            The digest that the tag stands for now. It is another one only if the tag may not be moved and stood for
            something else before.
        """
        patience = Patience(self.host, "to store the image", self._http.sleep)
        path = f"/v2/{repository}/manifests/{tag}"
        headers = {"Content-Type": manifest.media_type}
        while True:
            try:
                answer = self._http.once(
                    "PUT", path, scope=_push(repository), body=manifest.data, headers=headers
                )
            except Later as later:
                patience.after(later)
                continue
            if answer.status in (200, 201, 202):
                return manifest.digest
            refusal = Refusal.of(answer.status, answer.data)
            taken = self.digest_of(repository, tag) if refusal.tag_is_taken else None
            if taken is None:
                raise refused(self.host, repository, f"to store the image {tag}", refusal)
            return taken

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Have a blob of another repository in this one, too; False if the registry does not do it."""
        query = urllib.parse.urlencode({"mount": digest, "from": source})
        answer = self._http.ask(
            "POST",
            f"/v2/{repository}/blobs/uploads/?{query}",
            doing="to take over a layer",
            repository=repository,
            actions="pull,push",
            # Any refusal but that of a password: then it is sent.
            expect=(201, 202, 400, 404, 405),
        )
        return answer.status == 201

    def upload_blob(
        self, repository: str, blob: Blob, *, progress: Callable[[int], object] = lambda _: None
    ) -> None:
        """Send a blob.

        Args:
            repository: Where it goes.
            blob: What is sent.
            progress: Is told how many bytes were read to be sent, again and again. It may raise, to stop.
        """
        Upload(self._http, repository, blob, piece_bytes=self._piece_bytes, progress=progress).run()

    def download_blob(self, repository: str, digest: str, size_bytes: int, into: Path) -> None:
        """Fetch a blob into a file; a file that appears is whole.

        Raises:
            EnvironmentBuildError: The registry refuses or does not answer, there is no space left, or what comes is not
                what the digest names.
        """
        patience = Patience(self.host, "to fetch a layer", self._http.sleep)
        with writing(into.parent), tempfile.NamedTemporaryFile(dir=into.parent, delete=False) as file:
            try:
                while not self._fetched(repository, digest, file, patience):
                    pass
                file.seek(0)
                found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                if file.tell() == size_bytes and found == digest:
                    Path(file.name).replace(into)
                    return
            finally:
                Path(file.name).unlink(missing_ok=True)
        raise self._damaged(repository, digest)

    def read_blob(self, repository: str, digest: str) -> bytes:
        """A small blob, such as the configuration of an image."""
        answer = self._http.ask(
            "GET",
            f"/v2/{repository}/blobs/{digest}",
            doing="to read an image's configuration",
            repository=repository,
            expect=(200,),
        )
        if f"sha256:{hashlib.sha256(answer.data).hexdigest()}" != digest:
            raise self._damaged(repository, digest)
        return answer.data

    def _fetched(self, repository: str, digest: str, file: IO[bytes], patience: Patience) -> bool:
        """Fetch what the file lacks; False if that broke off."""
        have = file.seek(0, 2)
        headers = {"Range": f"bytes={have}-"} if have else {}
        path = f"/v2/{repository}/blobs/{digest}"
        try:
            status, pieces = self._http.stream(path, scope=f"repository:{repository}:pull", headers=headers)
            if status == 200:
                file.seek(0)
                file.truncate()
            elif status != 206 or not have:
                data = b"".join(pieces)[:_REFUSAL_BYTES]
                raise refused(self.host, repository, "to read a layer", Refusal.of(status, data))
            for piece in pieces:
                file.write(piece)
        except Later as later:
            patience.after(later)
            return False
        return True

    def _damaged(self, repository: str, digest: str) -> EnvironmentBuildError:
        return EnvironmentBuildError(
            f"what the registry {self.host} sends for {repository}@{digest} is not what that digest names",
            hint="try again; if it stays so, a proxy changes it or the registry is damaged: take another base image",
        )


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _stated_type(data: bytes) -> str:
    try:
        return str(json.loads(data).get("mediaType") or MANIFEST_TYPES[0])
    except (ValueError, AttributeError):
        return MANIFEST_TYPES[0]
