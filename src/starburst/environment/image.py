"""A worker's image, put together from a base and layers, and pushed: no engine, no Docker."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starburst.environment.base_images import Base, Descriptor
from starburst.environment.layers import PACKAGES, Layer
from starburst.environment.platforms import Platform
from starburst.environment.registry import Blob, Manifest, Registry
from starburst.environment.steps import Step, Steps
from starburst.errors import EnvironmentBuildError

__all__ = ["Image", "Pushed", "assemble", "push", "tag_of", "with_config"]

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_CREATED = "1980-01-01T00:00:00Z"
_USER = "65532:65532"
"""Nobody in particular; nothing in the image belongs to it."""
_LAYOUT = 1
"""To be raised when images of the same inputs must be built anew."""
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is ready to be pushed.

    Attributes:
        base: What it stands on.
        layers: What is on top of that, from the lowest up.
        config: Its configuration.
        manifest: Its manifest; the digest is the image's.
    """

    base: Base
    layers: tuple[Layer, ...]
    config: bytes
    manifest: Manifest

    @property
    def digest(self) -> str:
        """What names the image for ever."""
        return self.manifest.digest


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did.

    Attributes:
        digest: What the tag stands for. It is another than the image's if the tag may not be moved and somebody else
            pushed first: the tag names what went in, so that image does the same.
        blobs_sent: How many were sent.
        bytes_sent: Their sizes together.
        blobs_present: How many were there already, or were taken over within the registry.
    """

    digest: str
    blobs_sent: int = 0
    bytes_sent: int = 0
    blobs_present: int = 0


def tag_of(lock_sha256: str, base_digest: str, platform: Platform, starburst_version: str) -> str:
    """The tag of an image with these packages, on this base, for this platform and worker."""
    inputs = [
        _LAYOUT,
        lock_sha256,
        base_digest,
        platform.python,
        platform.oci_architecture,
        platform.glibc,
        starburst_version,
    ]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    return f"py{platform.python}-{platform.oci_architecture}-{digest[:32]}"


def assemble(
    base: Base,
    layers: Sequence[Layer],
    platform: Platform,
    *,
    python_path: Sequence[str] = (PACKAGES,),
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Image:
    """Put an image together; the same inputs give the same digest.

    Args:
        base: What it stands on.
        layers: What is put on top, from the lowest up.
        platform: Whose.
        python_path: Folders in the image for ``PYTHONPATH``; programs are looked for in their ``bin``.
        environment: More variables.
        labels: What the image says about itself.
    """
    config = copy.deepcopy(base.config)
    config.pop("container", None)
    config.pop("container_config", None)
    config.update(created=_CREATED, architecture=platform.oci_architecture, os="linux")
    config["config"] = _run(config.get("config") or {}, python_path, environment or {}, labels or {})
    config["rootfs"] = {
        "type": "layers",
        "diff_ids": [*config["rootfs"]["diff_ids"], *(layer.diff_id for layer in layers)],
    }
    config["history"] = [
        *(config.get("history") or [{"created": _CREATED} for _ in base.layers]),
        *({"created": _CREATED, "created_by": f"starburst: {layer.name}"} for layer in layers),
    ]
    return with_config(base, layers, _json(config))


def with_config(base: Base, layers: Sequence[Layer], config: bytes) -> Image:
    """An image of a base, layers on top of it, and a configuration that was written for them."""
    described = Descriptor(_CONFIG, _sha256(config), len(config))
    own = [Descriptor(layer.media_type, layer.digest, layer.size_bytes) for layer in layers]
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(described),
            "layers": [_descriptor(layer) for layer in (*base.layers, *own)],
        }
    )
    return Image(base, tuple(layers), config, Manifest(manifest, _MANIFEST, _sha256(manifest)))


def push(
    image: Image,
    registry: Registry,
    repository: str,
    tag: str,
    *,
    steps: Steps,
    base_registry: Registry | None = None,
) -> Pushed:
    """Push an image: first what it is made of, then the manifest under its tag.

    What is there already is not sent, so that a push that was interrupted goes on where it was. The tag appears in the
    last request: it never stands for half an image.

    Args:
        image: The image.
        registry: Where it goes.
        repository: Its name there; it must exist if the registry does not make it.
        tag: Its tag.
        steps: Is told how far it is.
        base_registry: Where the base's layers come from; None if that is ``registry``.

    Raises:
        EnvironmentBuildError: A registry refuses or does not answer, or there is no space left here.
    """
    with steps("push") as step:
        count = len(image.base.layers) + len(image.layers) + 1
        if registry.digest_of(repository, tag) == image.digest:
            step.cached("it is there")
            return Pushed(image.digest, blobs_present=count)
        sent = _Sending(image, registry, repository, base_registry or registry, step).run()
        digest = registry.put_manifest(repository, tag, image.manifest)
        step.say(f"{len(sent)} of {count} layers sent, {sum(sent) / 1e6:,.1f} MB")
        return Pushed(digest, len(sent), sum(sent), count - len(sent))


class _Sending:
    """The blobs of one push, some at once."""

    def __init__(
        self, image: Image, registry: Registry, repository: str, base_registry: Registry, step: Step
    ) -> None:
        self._image, self._registry, self._repository = image, registry, repository
        self._base_registry, self._step = base_registry, step
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._bytes = 0

    def run(self) -> list[int]:
        """Send what is missing; returns the sizes of what was sent."""
        own = {layer.digest: layer for layer in self._image.layers}
        bases = {layer.digest: layer for layer in self._image.base.layers}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="push") as pool:
            # The big ones first: the last one to end is a small one.
            jobs = [
                pool.submit(self._own, layer)
                for layer in sorted(own.values(), key=lambda layer: -layer.size_bytes)
            ]
            jobs += [pool.submit(self._of_base, layer) for layer in bases.values() if layer.digest not in own]
            jobs.append(pool.submit(self._config))
            try:
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
                return [size for job in jobs if (size := job.result()) is not None]
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _config(self) -> int | None:
        return self._send(Blob.of_bytes(self._image.config))

    def _own(self, layer: Layer) -> int | None:
        if not layer.path.exists():
            raise EnvironmentBuildError(
                f"the packed layer {layer.path} of {layer.name} has been removed meanwhile",
                hint="run the command again",
            )
        return self._send(Blob(layer.digest, layer.size_bytes, lambda: layer.path.open("rb")))

    def _of_base(self, layer: Descriptor) -> int | None:
        """Have a layer of the base there, too: it is there, or taken over there, or fetched and sent."""
        if self._registry.has_blob(self._repository, layer.digest):
            return None
        source = self._image.base.reference.repository
        if (
            self._base_registry.host == self._registry.host
            and source != self._repository
            and self._registry.mount_blob(self._repository, layer.digest, source)
        ):
            return None
        scratch = self._image.layers[0].path.parent if self._image.layers else None
        with tempfile.TemporaryDirectory(prefix="base-", dir=scratch) as folder:
            path = Path(folder) / "layer"
            self._base_registry.download_blob(source, layer.digest, layer.size_bytes, path)
            return self._send(
                Blob(layer.digest, layer.size_bytes, lambda: path.open("rb")), known_missing=True
            )

    def _send(self, blob: Blob, *, known_missing: bool = False) -> int | None:
        """Send a blob that is not there; returns its size if it was not."""
        self._progress(0)
        if not known_missing and self._registry.has_blob(self._repository, blob.digest):
            return None
        self._registry.upload_blob(self._repository, blob, progress=self._progress)
        return blob.size_bytes

    def _progress(self, size: int) -> None:
        if self._stopped.is_set():
            raise EnvironmentBuildError("the push was stopped", hint="run the command again")
        with self._lock:
            self._bytes += size
            self._step.say(f"{self._bytes / 1e6:,.1f} MB")


def _run(
    of_base: Mapping[str, Any],
    python_path: Sequence[str],
    environment: Mapping[str, str],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """How containers run: as nobody in particular, in the one folder that can be written."""
    variables = dict(line.partition("=")[::2] for line in of_base.get("Env") or ())
    path = variables.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    variables |= {
        "PATH": ":".join([path, *(f"{folder}/bin" for folder in python_path)]),
        "PYTHONPATH": ":".join(python_path),
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",  # noqa: S108 - in the container
        **environment,
    }
    kept = {
        name: value for name, value in of_base.items() if name not in ("Entrypoint", "Cmd", "Healthcheck")
    }
    run = {
        **kept,
        "User": _USER,
        "WorkingDir": "/tmp",  # noqa: S108 - in the container
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "Cmd": ["python"],
    }
    if labels or of_base.get("Labels"):
        run["Labels"] = {**(of_base.get("Labels") or {}), **labels}
    return run


def _descriptor(one: Descriptor) -> dict[str, Any]:
    return {"mediaType": one.media_type, "digest": one.digest, "size": one.size_bytes}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
