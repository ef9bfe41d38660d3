"""Wheels of what is installed here: of starburst itself, and of packages that no index has."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

from starburst.environment.lock import FROM_INSTALLED, Requirement, normalized
from starburst.environment.platforms import Platform
from starburst.errors import EnvironmentBuildError

__all__ = ["DISTRIBUTION", "as_installed", "pack_installed", "starburst_wheel"]

DISTRIBUTION = "starburst-cloud"

_WRITTEN_BY_INSTALLERS = {
    "INSTALLER",
    "RECORD",
    "REQUESTED",
    "WHEEL",
    "direct_url.json",
    "uv_build.json",
    "uv_cache.json",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def starburst_wheel(folder: Path) -> Path:
    """Make a wheel of the starburst that runs now, be it editable or installed; the same files, the same bytes."""
    return pack_installed(DISTRIBUTION, folder)


def as_installed(name: str) -> Requirement:
    """A requirement for the files that are installed here under this name; its hash is theirs."""
    found = distribution(name)
    digest = hashlib.sha256("\n".join(tags_of(found)).encode())
    for entry, path in sorted(_contents(found).items()):
        digest.update(f"{entry}\0".encode() + hashlib.sha256(_read(name, path)).digest())
    return Requirement(normalized(name), found.version, FROM_INSTALLED, (f"sha256:{digest.hexdigest()}",))


def pack_installed(name: str, folder: Path) -> Path:
    """Make a wheel of the files that are installed here under this name.

    Raises:
        EnvironmentBuildError: A file of it is gone.
    """
    found = distribution(name)
    tags = tags_of(found)
    stem = f"{normalized(name).replace('-', '_')}-{found.version}"
    about = f"{stem}.dist-info"
    pure = str(all(tag.endswith("-none-any") for tag in tags)).lower()
    wheel_text = f"Wheel-Version: 1.0\nGenerator: starburst\nRoot-Is-Purelib: {pure}\n"
    wheel_text += "".join(f"Tag: {tag}\n" for tag in tags)
    record = ""
    path = folder / f"{stem}-{tags[0]}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for entry, source in sorted(_contents(found).items()):
            data = _read(name, source)
            target = (
                f"{about}/{entry.partition('/')[2]}" if entry.split("/")[0].endswith(".dist-info") else entry
            )
            _add(wheel, target, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{target},sha256={digest},{len(data)}\n"
        _add(wheel, f"{about}/WHEEL", wheel_text.encode())
        _add(wheel, f"{about}/RECORD", f"{record}{about}/WHEEL,,\n{about}/RECORD,,\n".encode())
    return path


def tags_of(found: Distribution) -> list[str]:
    """For which Pythons and platforms an installed package is."""
    lines = (found.read_text("WHEEL") or "").splitlines()
    tags = sorted(line.partition(":")[2].strip() for line in lines if line.startswith("Tag:"))
    return tags or ["py3-none-any"]


def check_platform(requirement: Requirement, platform: Platform) -> None:
    """Refuse to copy compiled files of this machine to a worker of another kind.

    Raises:
        EnvironmentBuildError: They are for another platform.
    """
    tags = tags_of(distribution(requirement.name))
    if any(tag.endswith("-none-any") for tag in tags):
        return
    python = platform.python.replace(".", "")
    fits = any(
        ("linux" in tag and tag.endswith(f"_{platform.machine}"))
        and (tag.startswith(f"cp{python}-") or "-abi3-" in tag)
        for tag in tags
    )
    if not fits:
        raise EnvironmentBuildError(
            f"{requirement} was installed from a folder or file of this machine and holds compiled code for "
            f"{', '.join(tags)}; workers run {platform}",
            hint=f"put wheels of {requirement.name} for {platform.machine} into an index or a find-links folder, take "
            'an instance_type of this machine\'s architecture, or build with "docker"',
        )


def _contents(found: Distribution) -> Mapping[str, Path]:
    """The files by their names in a wheel."""
    files = found.files or ()
    listed = {str(file): Path(str(found.locate_file(file))) for file in files if _belongs(file.parts)}
    if normalized(found.name) != DISTRIBUTION:
        return listed
    # What runs, wherever it is: for an editable installation the list names no modules.
    package = Path(__file__).parents[1]
    about = {entry: path for entry, path in listed.items() if ".dist-info/" in entry}
    return about | {f"{package.name}/{path.relative_to(package).as_posix()}": path for path in _tree(package)}


def _belongs(parts: tuple[str, ...]) -> bool:
    if parts[0] == ".." or "__pycache__" in parts or parts[-1].endswith((".pyc", ".pth")):
        return False
    return not (parts[0].endswith(".dist-info") and parts[-1] in _WRITTEN_BY_INSTALLERS)


def _tree(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            yield from _tree(path)
        elif path.is_file() and path.suffix != ".pyc":
            yield path


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentBuildError(
            f"{name} is not installed as its list of files says: {path.name} cannot be read: {error.strerror}",
            hint=f"install {name} again",
        ) from None


def _add(wheel: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    wheel.writestr(info, data)
