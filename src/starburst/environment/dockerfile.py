"""Recipes of images with system packages: a Dockerfile of ours or of the user's, and what names its result.

What is built from one is only a base: Python and what Debian brings. The workers' packages are layers on top of it, so
another version of them builds none of this again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starburst.environment.base_images import Base
from starburst.environment.docker_context import context_hash, ignore_lines
from starburst.environment.platforms import Platform
from starburst.errors import EnvironmentBuildError

__all__ = [
    "CHECKED",
    "Recipe",
    "dockerfile_recipe",
    "generated_dockerfile",
    "image_name",
    "system_packages_recipe",
]

CHECKED = "starburst-check"
"""What the line begins with by which a build tells which Python its image has."""
_FORMAT = 1
"""To be raised when images of the same inputs must be built anew."""
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?::[a-z0-9]+)?(?:=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?")
_FROM = re.compile(
    r"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*(\S+)(?:[ \t]+AS[ \t]+(\S+))?", re.IGNORECASE | re.MULTILINE
)
_READS_FILES = re.compile(
    r"^[ \t]*(?:ONBUILD[ \t]+)?(?:COPY|ADD)\b|--mount\b|^[ \t]*#[ \t]*syntax[ \t]*=",
    re.IGNORECASE | re.MULTILINE,
)
"""What may take files from the build context."""
_CHECK = (
    "import platform, sys, time; "
    "python = '%d.%d' % sys.version_info[:2]; "
    "libc, version = platform.libc_ver(); "
    "print('{word}: Python', python, platform.machine(), libc or 'no-glibc', version or '0'); "
    "sys.stdout.flush(); "
    "numbers = [int(part) for part in (version or '0').split('.')[:2]]; "
    "good = python == '{python}' and platform.machine() == '{machine}' and libc == 'glibc' and numbers >= {glibc}; "
    "good or time.sleep(0.5); "
    "sys.exit(0 if good else 3)"
)
"""Some builders lose what a program printed just before it failed: hence the pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a base image is built from.

    Attributes:
        text: The whole Dockerfile, with a last step of ours that checks the Python in it.
        platform: What the image is for.
        source_name: What it comes from, for messages: ``system_packages`` or the Dockerfile's path.
        folder: The build context; None for an empty one.
        ignore: Lines of ``.dockerignore``, and ours after them: what never gets into an image.
        base_digest: Of the image that it stands on, if that is known; a part of the tag.
    """

    text: str
    platform: Platform
    source_name: str
    folder: Path | None = None
    ignore: tuple[str, ...] = ()
    base_digest: str = ""

    def tag(self) -> str:
        """The tag of the result: of the text, the files, the base and the platform; reads all files of the context."""
        inputs = [
            _FORMAT,
            self.text,
            self.base_digest,
            self.platform.python,
            self.platform.oci_architecture,
            self.platform.glibc,
            context_hash(self.folder, self.ignore) if self.folder else "",
        ]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        return f"base-py{self.platform.python}-{self.platform.oci_architecture}-{digest[:32]}"

    @property
    def images(self) -> tuple[str, ...]:
        """The images that it stands on, as far as they are written out."""
        found = _FROM.findall(self.text)
        stages = {stage.lower() for _, stage in found if stage}
        names = [
            name for name, _ in found if name.lower() not in stages and "$" not in name and name != "scratch"
        ]
        return tuple(dict.fromkeys(names))


def generated_dockerfile(base: str, system_packages: Sequence[str], platform: Platform) -> str:
    """A Dockerfile that installs Debian packages; the same packages give the same text, in whichever order.

    Args:
        base: The image to stand on, as ``docker pull`` takes it; best by digest.
        system_packages: Names of Debian packages, also ``name=version``.
        platform: Whose Python is checked in the end.

    Raises:
        EnvironmentBuildError: One of them cannot be the name of a package, or there is none.
    """
    names = sorted(set(checked_packages(system_packages)))
    listed = "".join(f"      {name} \\\n" for name in names)
    return (
        f"FROM {base}\n"
        "USER 0\n"
        "RUN apt-get update \\\n"
        " && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \\\n"
        f"{listed}"
        " && rm -rf /var/lib/apt/lists/* /var/cache/apt/*\n"
        f"{_check_step(platform)}"
    )


def checked_packages(system_packages: Sequence[object]) -> list[str]:
    """The names, if each can be one.

    Raises:
        EnvironmentBuildError: One cannot, or there is none.
    """
    if isinstance(system_packages, str) or not system_packages:
        raise EnvironmentBuildError(
            f"system_packages is {system_packages!r}, not a list of names of Debian packages",
            hint='system_packages = ["libgdal32"]',
        )
    names = []
    for name in system_packages:
        if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
            raise EnvironmentBuildError(
                f"{name!r} in system_packages is not the name of a Debian package",
                hint="names are like libgdal32 or libgdal32=3.6.2+dfsg-1; what else is needed goes into a Dockerfile "
                "of your own: dockerfile in [tool.starburst]",
            )
        names.append(name)
    return names


def system_packages_recipe(base: Base, system_packages: Sequence[str], platform: Platform) -> Recipe:
    """The recipe of a base image with Debian packages.

    Raises:
        EnvironmentBuildError: As :func:`generated_dockerfile`.
    """
    return Recipe(
        text=generated_dockerfile(image_name(base), system_packages, platform),
        platform=platform,
        source_name="system_packages",
        base_digest=base.digest,
    )


def dockerfile_recipe(
    path: Path, platform: Platform, *, folder: Path | None = None, base_digest: str = ""
) -> Recipe:
    """The recipe of a Dockerfile of the user's.

    Args:
        path: The Dockerfile.
        platform: What it is built for.
        folder: The build context; the Dockerfile's folder unless given. Where the Dockerfile takes no files it is
            empty: else each edited line of code beside it would build the image anew.
        base_digest: Of the image in its ``FROM``, if that was looked up: a newer one then is another tag.

    Raises:
        EnvironmentBuildError: It cannot be read, or says nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EnvironmentBuildError(
            f"the Dockerfile {path} cannot be read: {why}", hint="check dockerfile in [tool.starburst]"
        ) from error
    if not _FROM.search(text):
        raise EnvironmentBuildError(
            f"the Dockerfile {path} has no FROM line", hint=f"FROM python:{platform.python}-slim-bookworm"
        )
    context = (folder or path.parent) if _READS_FILES.search(text) else None
    return Recipe(
        text="\n\n".join(
            [text.rstrip("\\ \t\r\n"), _check_step(platform)]
        ),  # a continued line would swallow our step
        platform=platform,
        source_name=str(path),
        folder=context,
        ignore=ignore_lines(context) if context else (),
        base_digest=base_digest,
    )


def image_name(base: Base) -> str:
    """A base image by its digest, as engines take it."""
    reference = base.reference
    host = "docker.io" if reference.host == "registry-1.docker.io" else reference.host
    return f"{host}/{reference.repository}@{base.digest}"


def _check_step(platform: Platform) -> str:
    """A step that runs the image's Python, whatever the builder; it adds nothing, and fails if that is another.

    It has no shell: that could be anything, or not be there.
    """
    glibc = [int(part) for part in platform.glibc.split(".")[:2]]
    code = _CHECK.format(word=CHECKED, python=platform.python, machine=platform.machine, glibc=glibc)
    return f"RUN {json.dumps(['python', '-c', code])}\n"
