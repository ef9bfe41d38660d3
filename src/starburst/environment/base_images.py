"""The image that workers' images stand on: a stock one of Python, for one platform."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starburst.environment.layers import writing
from starburst.environment.platforms import Platform
from starburst.environment.registry import MANIFEST_TYPES, Manifest, Registry
from starburst.errors import EnvironmentBuildError

__all__ = ["BASE_MAX_AGE_S", "Base", "Descriptor", "Reference", "find_base", "stock_image"]

BASE_MAX_AGE_S = 86_400.0
"""How long a tag is taken to stand for the same image."""
_DOCKER_HUB = "registry-1.docker.io"
_REFERENCE = re.compile(
    r"(?:(?P<host>localhost(?::\d+)?|[^/@:]+(?:\.[^/@:]+)+(?::\d+)?|[^/@:]+:\d+|\[[0-9a-fA-F:]+\](?::\d+)?)/)?"
    r"(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_OCI_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": _OCI_LAYER,
    **{kind: kind for kind in (_OCI_LAYER, f"{_OCI_LAYER}+gzip", f"{_OCI_LAYER}+zstd")},
}


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is, as ``docker pull`` takes it.

    Attributes:
        host: The registry.
        repository: The image's name there.
        tag: ``latest`` unless given.
        digest: ``sha256:…``, which counts more than the tag; empty if not given.
    """

    host: str
    repository: str
    tag: str = "latest"
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``python:3.11-slim``, ``registry.example.org:5000/base@sha256:…`` and the like.

        Raises:
            EnvironmentBuildError: It is none.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise EnvironmentBuildError(
                f"{text!r} is not the name of an image",
                hint="write it as docker pull takes it: python:3.11-slim",
            )
        host, repository = match["host"] or "docker.io", match["repository"]
        if host in ("docker.io", "index.docker.io"):
            host = _DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        return cls(host, repository, match["tag"] or "latest", match["digest"] or "")

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}{f'@{self.digest}' if self.digest else f':{self.tag}'}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as a manifest names it.

    Attributes:
        media_type: What it is.
        digest: ``sha256:…``.
        size_bytes: Its size.
    """

    media_type: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Base:
    """A base image for one platform.

    Attributes:
        reference: Where it comes from.
        digest: Of its manifest for the platform.
        layers: From the lowest up, under their OCI names.
        config: Its configuration.
    """

    reference: Reference
    digest: str
    layers: tuple[Descriptor, ...]
    config: dict[str, Any]


def stock_image(platform: Platform) -> str:
    """The stock image of a Python: slim, on the Debian whose glibc wheels are chosen for."""
    return f"python:{platform.python}-slim-bookworm"


def find_base(
    registry: Registry,
    reference: Reference,
    platform: Platform,
    *,
    cache: Path | None = None,
    max_age_s: float = BASE_MAX_AGE_S,
    now: Callable[[], float] = time.time,
) -> Base:
    """Look a base image up.

    Args:
        registry: That of the reference.
        reference: The image.
        platform: Which of its images, if it has several.
        cache: A folder that keeps what was found.
        max_age_s: How long a tag is taken to stand for the same image; a digest always does.
        now: Seconds since 1970.

    Raises:
        EnvironmentBuildError: It is not there, not for this platform, or of a kind that cannot be built upon.
    """
    wanted = f"{reference} {platform.oci_architecture}"
    kept = cache / f"base-{hashlib.sha256(wanted.encode()).hexdigest()[:32]}.json" if cache else None
    if kept is not None:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if reference.digest or 0 <= now() - kept.stat().st_mtime < max_age_s:
                found = json.loads(kept.read_bytes())
                layers = tuple(Descriptor(*layer) for layer in found["layers"])
                return Base(reference, str(found["digest"]), layers, dict(found["config"]))
    base = _look_up(registry, reference, platform)
    if kept is not None:
        layers_kept = [[one.media_type, one.digest, one.size_bytes] for one in base.layers]
        with writing(kept.parent):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=kept.parent, suffix=".part", delete=False) as file:
                json.dump({"digest": base.digest, "layers": layers_kept, "config": base.config}, file)
            Path(file.name).replace(kept)
    return base


def _look_up(registry: Registry, reference: Reference, platform: Platform) -> Base:
    manifest = _get(registry, reference, reference.digest or reference.tag)
    about = json.loads(manifest.data)
    if "manifests" in about:
        manifest = _get(registry, reference, _of_platform(about, reference, platform))
        about = json.loads(manifest.data)
    if manifest.media_type not in MANIFEST_TYPES or "layers" not in about:
        raise _unusable(reference, f"its manifest is of the kind {manifest.media_type}")
    config = json.loads(registry.read_blob(reference.repository, about["config"]["digest"]))
    if (config.get("os"), config.get("architecture")) != ("linux", platform.oci_architecture):
        raise _not_for(reference, platform, f"{config.get('os')}/{config.get('architecture')}")
    layers = []
    for layer in about["layers"]:
        kind = _LAYERS.get(layer["mediaType"])
        if kind is None:
            raise _unusable(reference, f"it has a layer of the kind {layer['mediaType']}")
        layers.append(Descriptor(kind, layer["digest"], layer["size"]))
    if len(config.get("rootfs", {}).get("diff_ids", ())) != len(layers):
        raise _unusable(reference, "its configuration does not list its layers")
    return Base(reference, manifest.digest, tuple(layers), config)


def _get(registry: Registry, reference: Reference, what: str) -> Manifest:
    found = registry.get_manifest(reference.repository, what)
    if found is None:
        raise EnvironmentBuildError(
            f"the base image {reference} is not there",
            hint="check its name, or name another one: base_image in [tool.starburst]",
        )
    return found


def _of_platform(index: dict[str, Any], reference: Reference, platform: Platform) -> str:
    found = [(one.get("platform") or {}, one["digest"]) for one in index["manifests"]]
    usable = [(about, digest) for about, digest in found if about.get("os") == "linux"]
    for about, digest in usable:
        if about.get("architecture") == platform.oci_architecture:
            return str(digest)
    has = ", ".join(sorted({f"linux/{about.get('architecture')}" for about, _ in usable})) or "none for Linux"
    raise _not_for(reference, platform, has)


def _not_for(reference: Reference, platform: Platform, has: str) -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"the base image {reference} is not for linux/{platform.oci_architecture}, only for {has}",
        hint="name another base image, or another instance type or architecture for the workers",
    )


def _unusable(reference: Reference, why: str) -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"the base image {reference} cannot be built upon: {why}",
        hint="name another one, such as python:3.11-slim",
    )
