"""A blob on its way to a registry.

How blobs are sent:

- small ones by one PUT; bigger ones piece by piece, so that a broken connection costs one piece. The last piece goes
  with the PUT that ends the upload: ECR fails an empty one.
- After a break the registry is asked how far it got. ECR accepts every piece but goes on naming the end of the first
  one in ``Range`` (aws/containers-roadmap#2831), so what it confirmed before counts if it is more.
- An upload that cannot be taken up (Distribution 2.8 forgets one that broke within a piece) begins anew.
- The registry checks the digest of the whole, so that no wrong guess about an offset can damage an image.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import IO

from starburst.environment.registry_errors import Refusal, refused, unreachable
from starburst.environment.registry_http import Answer, Later, Patience, RegistryHttp

__all__ = ["PIECE_BYTES", "Blob", "Upload"]

PIECE_BYTES = 20 << 20
"""What ECR itself stores an upload in; S3 behind a registry wants at least 5 MB."""
_COMMIT_S = 300.0
"""A registry may check, and copy, all of a blob before it answers."""
_DOING = "to take a layer"


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that can be opened as often as needed.

    Attributes:
        digest: ``sha256:…``.
        size_bytes: Its size.
        open: Opens it for reading.
    """

    digest: str
    size_bytes: int
    open: Callable[[], IO[bytes]]

    @classmethod
    def of_bytes(cls, data: bytes) -> Blob:
        """A small one that is in memory."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), lambda: BytesIO(data))


class Upload:
    """Sends one blob.

    Args:
        http: The registry.
        repository: Where the blob goes.
        blob: What is sent.
        piece_bytes: The size of a piece.
        progress: Is told of each piece of the file that is read. It may raise, to stop.
    """

    def __init__(
        self,
        http: RegistryHttp,
        repository: str,
        blob: Blob,
        *,
        piece_bytes: int,
        progress: Callable[[int], object],
    ) -> None:
        self._http, self._repository, self._blob = http, repository, blob
        self._piece_bytes, self._progress = piece_bytes, progress
        self._scope = f"repository:{repository}:pull,push"
        self._location = ""
        self._sent_bytes = 0

    def run(self) -> None:
        """Send it.

        Raises:
            EnvironmentBuildError: The registry refuses it, or breaks off again and again without getting on.
        """
        patience = Patience(self._http.host, "to send a layer", self._http.sleep)
        furthest = 0
        while True:
            try:
                if not self._location:
                    self._begin()
                while not self._send_piece():
                    if self._sent_bytes > furthest:
                        furthest = self._sent_bytes
                        patience.renew()
            except Later as later:
                patience.after(later)
                if self._is_there():
                    return  # only the answer was lost
                self._take_up()
            except _LostError as lost:
                if not self._sent_bytes:
                    raise refused(self._http.host, self._repository, _DOING, lost.refusal) from lost
                patience.after(Later(str(lost.refusal)))
                self._location = ""
            else:
                return

    def _begin(self) -> None:
        answer = self._http.ask(
            "POST",
            f"/v2/{self._repository}/blobs/uploads/",
            doing=_DOING,
            repository=self._repository,
            actions="pull,push",
            body=b"",
            expect=(202,),
        )
        self._sent_bytes = 0
        self._goes_on(answer)

    def _send_piece(self) -> bool:
        """Send the next piece; True if it was the last one, and the blob is there."""
        blob, first = self._blob, self._sent_bytes
        size = min(self._piece_bytes, blob.size_bytes - first)
        last = first + size == blob.size_bytes
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if size < blob.size_bytes:
            headers["Content-Range"] = f"{first}-{first + size - 1}"
        url = self._location
        if last:
            url += f"{'&' if '?' in url else '?'}digest={urllib.parse.quote(blob.digest)}"
        answer = self._http.once(
            "PUT" if last else "PATCH",
            url,
            scope=self._scope,
            body=lambda: _Slice(blob.open(), first, size, self._progress),
            headers=headers,
            answer_s=_COMMIT_S,
        )
        # ECR says 201 to a piece.
        if answer.status not in (201, 202, 204):
            refusal = Refusal.of(answer.status, answer.data)
            if answer.status in (400, 404, 416):
                raise _LostError(refusal)
            raise refused(self._http.host, self._repository, _DOING, refusal)
        self._sent_bytes = first + size
        if not last:
            self._goes_on(answer)
        return last

    def _is_there(self) -> bool:
        """Whether the blob has arrived."""
        answer = self._http.ask(
            "HEAD",
            f"/v2/{self._repository}/blobs/{self._blob.digest}",
            doing="to look for a layer",
            repository=self._repository,
            actions="pull,push",
            expect=(200, 404),
        )
        return answer.status == 200

    def _take_up(self) -> None:
        """Go on where the registry says, or begin anew if it does not know the upload any more."""
        if not self._location:
            return
        try:
            answer = self._http.once("GET", self._location, scope=self._scope)
        except Later:
            answer = None
        if answer is None or answer.status not in (200, 202, 204):
            self._location = ""
            return
        told = re.search(r"(\d+)-(\d+)", answer.headers.get("Range", ""))
        # "0-0" is what an empty upload says, too.
        got = int(told[2]) + 1 if told and int(told[2]) else 0
        if got > self._blob.size_bytes:
            self._location = ""
            return
        self._sent_bytes = max(got, self._sent_bytes)
        self._goes_on(answer)

    def _goes_on(self, answer: Answer) -> None:
        location = answer.headers.get("Location", "") or self._location
        if not location:
            raise unreachable(self._http.host, _DOING, "its answer does not name the place (Location)")
        self._location = urllib.parse.urljoin(answer.url, location)


class _LostError(Exception):
    """The registry does not know the upload any more, or disagrees about its offset."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class _Slice:
    """A part of a file, as something that can be read."""

    def __init__(self, file: IO[bytes], first: int, size: int, progress: Callable[[int], object]) -> None:
        self._file, self._left, self._progress = file, size, progress
        file.seek(first)

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the part; empty at its end."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self._progress(len(data))
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()
