"""Images as container engines hand them out: an archive that becomes layers for a registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from starburst.environment.base_images import Base, Reference
from starburst.environment.image import Image, with_config
from starburst.environment.layers import Compression, Layer, writing
from starburst.environment.platforms import Platform
from starburst.errors import EnvironmentBuildError

__all__ = ["read_archive"]

_PIECE_BYTES = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 4
_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+"


def read_archive(
    archive: Path,
    into: Path,
    platform: Platform,
    *,
    base: Base | None = None,
    compression: Compression = "zstd",
) -> Image:
    """Make an image for a registry of what ``docker save`` wrote.

    Args:
        archive: The file.
        into: A folder for the layers; they have to stay until the image is pushed.
        platform: What it should be for.
        base: What it stands on, where that is known: its layers are taken over as the registry has them.
        compression: Of the other layers.

    Raises:
        EnvironmentBuildError: It is not for the platform, or damaged, or there is no space left.
    """
    with writing(into), _opened(archive) as tar:
        into.mkdir(parents=True, exist_ok=True)
        try:
            about = json.loads(_member(tar, "manifest.json").read())[0]
            config = _member(tar, about["Config"]).read()
            described = json.loads(config)
            diff_ids = list(described["rootfs"]["diff_ids"])
            names = list(about["Layers"])
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise _damaged(str(error)) from error
        if len(names) != len(diff_ids):
            raise _damaged(f"it has {len(names)} layers, of which {len(diff_ids)} are described")
        found = f"{described.get('os')}/{described.get('architecture')}"
        if found != f"linux/{platform.oci_architecture}":
            raise EnvironmentBuildError(
                f"the image that was built is for {found}, and workers are linux/{platform.oci_architecture}",
                hint="check --platform and the image after FROM in the Dockerfile: is it for that architecture, too?",
            )
        below = _taken_over(base, diff_ids)
        known = len(below.layers)
        try:
            layers = [
                _layer(tar, name, diff_id, into, compression)
                for name, diff_id in zip(names[known:], diff_ids[known:], strict=True)
            ]
        except (KeyError, EOFError, zlib.error, tarfile.TarError) as error:
            raise _damaged(str(error)) from error
    return with_config(below, layers, config)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(archive)  # noqa: SIM115 - closed below
    except tarfile.TarError as error:
        raise _damaged(str(error)) from error
    with tar:
        yield tar


def _taken_over(base: Base | None, diff_ids: list[str]) -> Base:
    """The base, if the image really begins with its layers; else one without any."""
    if base is not None and diff_ids[: len(base.layers)] == base.config["rootfs"]["diff_ids"]:
        return base
    return Base(base.reference if base else Reference("localhost", "none"), "", (), {})


def _layer(tar: tarfile.TarFile, name: str, diff_id: str, into: Path, compression: Compression) -> Layer:
    digest, inner = hashlib.sha256(), hashlib.sha256()
    with (
        _plain(_member(tar, name)) as source,
        tempfile.NamedTemporaryFile(dir=into, suffix=".layer", delete=False) as file,
    ):
        with _compressor(file, compression) as target:
            while piece := source.read(_PIECE_BYTES):
                inner.update(piece)
                target.write(piece)
        size = file.tell()
        file.seek(0)
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    if f"sha256:{inner.hexdigest()}" != diff_id:
        raise _damaged(f"the layer {name} is not what its digest names")
    kind = f"{_MEDIA_TYPE}{compression}"
    return Layer("system", Path(file.name), f"sha256:{digest.hexdigest()}", size, diff_id, kind)


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found


@contextmanager
def _plain(source: IO[bytes]) -> Iterator[IO[bytes]]:
    """The uncompressed layer: engines differ in what they put into the archive."""
    head = source.read(4)
    source.seek(0)
    if head.startswith(_GZIP):
        with gzip.open(source) as plain:
            yield io.BufferedReader(plain)
    elif head == _ZSTD:
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as reader:
            yield reader
    else:
        yield source


@contextmanager
def _compressor(file: Any, compression: Compression) -> Iterator[IO[bytes]]:
    if compression == "zstd":
        import zstandard

        with zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(file, closefd=False) as writer:
            yield writer
    else:
        with gzip.GzipFile(
            filename="", mode="wb", fileobj=file, compresslevel=_GZIP_LEVEL, mtime=0
        ) as packed:
            yield packed  # type: ignore[misc]


def _damaged(why: str) -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"the image that the container engine handed out cannot be read: {why}",
        hint="build again, or take another engine: engine in [tool.starburst]",
    )
