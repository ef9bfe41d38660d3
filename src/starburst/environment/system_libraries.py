"""Which Debian package has a shared library that a Python package looks for and does not bring."""

from __future__ import annotations

import re

__all__ = ["hint_for", "missing_library", "system_library_hint"]

_PACKAGES: tuple[tuple[str, str], ...] = (
    (r"libGL\.so\.1", "libgl1"),
    (r"libEGL\.so\.1", "libegl1"),
    (r"libOpenGL\.so\.0", "libopengl0"),
    (r"libGLU\.so\.1", "libglu1-mesa"),
    (r"libOSMesa\.so\.\d+", "libosmesa6"),
    (r"lib(glib|gobject|gio|gmodule|gthread)-2\.0\.so\.0", "libglib2.0-0"),
    (r"libgomp\.so\.1", "libgomp1"),
    (r"libgfortran\.so\.5", "libgfortran5"),
    (r"libquadmath\.so\.0", "libquadmath0"),
    (r"libstdc\+\+\.so\.6", "libstdc++6"),
    (r"libatomic\.so\.1", "libatomic1"),
    (r"libtbb\.so\.12", "libtbb12"),
    (r"lib(openblas|blas)\.so\.[03]|liblapack\.so\.3", "libopenblas0"),
    (r"libnuma\.so\.1", "libnuma1"),
    (r"libgdal\.so\.(\d+)", r"libgdal\1"),
    (r"libproj\.so\.(\d+)", r"libproj\1"),
    (r"libgeos_c\.so\.1", "libgeos-c1v5"),
    (r"libspatialindex\.so\.\d+", "libspatialindex6"),
    (r"libspatialite\.so\.\d+", "libspatialite7"),
    (r"libhdf5\.so\.\d+", "libhdf5-103-1"),
    (r"libnetcdf\.so\.(\d+)", r"libnetcdf\1"),
    (r"libX11\.so\.6", "libx11-6"),
    (r"libXext\.so\.6", "libxext6"),
    (r"libXrender\.so\.1", "libxrender1"),
    (r"libSM\.so\.6", "libsm6"),
    (r"libICE\.so\.6", "libice6"),
    (r"libXi\.so\.6", "libxi6"),
    (r"libXt\.so\.6", "libxt6"),
    (r"libXft\.so\.2", "libxft2"),
    (r"libXcursor\.so\.1", "libxcursor1"),
    (r"libXinerama\.so\.1", "libxinerama1"),
    (r"libXrandr\.so\.2", "libxrandr2"),
    (r"libXcomposite\.so\.1", "libxcomposite1"),
    (r"libXdamage\.so\.1", "libxdamage1"),
    (r"libXfixes\.so\.3", "libxfixes3"),
    (r"libxcb\.so\.1", "libxcb1"),
    (r"libxkbcommon\.so\.0", "libxkbcommon0"),
    (r"libfontconfig\.so\.1", "libfontconfig1"),
    (r"libfreetype\.so\.6", "libfreetype6"),
    (r"libdbus-1\.so\.3", "libdbus-1-3"),
    (r"libnss3\.so", "libnss3"),
    (r"libnspr4\.so", "libnspr4"),
    (r"libasound\.so\.2", "libasound2"),
    (r"libgtk-3\.so\.0", "libgtk-3-0"),
    (r"libgdk_pixbuf-2\.0\.so\.0", "libgdk-pixbuf-2.0-0"),
    (r"libcairo\.so\.2", "libcairo2"),
    (r"libpango-1\.0\.so\.0", "libpango-1.0-0"),
    (r"libpangocairo-1\.0\.so\.0", "libpangocairo-1.0-0"),
    (r"libpangoft2-1\.0\.so\.0", "libpangoft2-1.0-0"),
    (r"librsvg-2\.so\.2", "librsvg2-2"),
    (r"libjpeg\.so\.62", "libjpeg62-turbo"),
    (r"libtiff\.so\.6", "libtiff6"),
    (r"libpng16\.so\.16", "libpng16-16"),
    (r"libwebp\.so\.7", "libwebp7"),
    (r"libopenjp2\.so\.7", "libopenjp2-7"),
    (r"libsndfile\.so\.1", "libsndfile1"),
    (r"libportaudio\.so\.2", "libportaudio2"),
    (r"libsox\.so\.3", "libsox3"),
    (r"lib(avcodec|avformat|avutil|avdevice|avfilter|swscale|swresample)\.so\.\d+", "ffmpeg"),
    (r"libpq\.so\.5", "libpq5"),
    (r"lib(mysqlclient|mariadb)\.so\.\d+", "libmariadb3"),
    (r"libodbc\.so\.2", "unixodbc"),
    (r"libsybdb\.so\.5", "libsybdb5"),
    (r"libaio\.so\.1", "libaio1"),
    (r"libsqlite3\.so\.0", "libsqlite3-0"),
    (r"librdkafka\.so\.1", "librdkafka1"),
    (r"libzmq\.so\.5", "libzmq5"),
    (r"libmagic\.so\.1", "libmagic1"),
    (r"libxml2\.so\.2", "libxml2"),
    (r"libxslt\.so\.1", "libxslt1.1"),
    (r"libxmlsec1\.so\.1", "libxmlsec1"),
    (r"libssl\.so\.3|libcrypto\.so\.3", "libssl3"),
    (r"libcurl\.so\.4", "libcurl4"),
    (r"libffi\.so\.8", "libffi8"),
    (r"libyaml-0\.so\.2", "libyaml-0-2"),
    (r"libsodium\.so\.23", "libsodium23"),
    (r"libusb-1\.0\.so\.0", "libusb-1.0-0"),
    (r"libsnappy\.so\.1", "libsnappy1v5"),
    (r"libbz2\.so\.1\.0", "libbz2-1.0"),
    (r"liblzma\.so\.5", "liblzma5"),
    (r"libzstd\.so\.1", "libzstd1"),
    (r"libgsl\.so\.27", "libgsl27"),
    (r"libfftw3\.so\.3", "libfftw3-double3"),
    (r"libgmp\.so\.10", "libgmp10"),
    (r"libmpfr\.so\.6", "libmpfr6"),
    (r"libcdt\.so\.5|libcgraph\.so\.6|libgvc\.so\.6", "graphviz"),
    (r"libtesseract\.so\.5", "tesseract-ocr"),
    (r"libpoppler-cpp\.so\.0", "libpoppler-cpp0v5"),
    (r"libdmtx\.so\.0", "libdmtx0b"),
    (r"libzbar\.so\.0", "libzbar0"),
    (r"libR\.so", "r-base-core"),
    (r"libjvm\.so", "default-jre-headless"),
)
"""Of Debian 12, on which the stock images of Python stand; ``\\1`` is the number in the library's name."""

_MISSING = re.compile(r"(?P<name>lib[\w.+-]+\.so[\w.]*): cannot open shared object file")


def system_library_hint(library: str) -> str | None:
    """The Debian package that has a shared library.

    Args:
        library: Its name, such as ``libGL.so.1``.

    Returns:
        The package, such as ``libgl1``; None if it is not one of the usual ones.
    """
    for pattern, package in _PACKAGES:
        match = re.fullmatch(pattern, library)
        if match is not None:
            return match.expand(package) if "\\" in package else package
    return None


def missing_library(message: str) -> str | None:
    """The shared library whose lack an ``ImportError`` or ``OSError`` tells of, if that is what its text says."""
    match = _MISSING.search(message)
    return None if match is None else match["name"]


def hint_for(message: str, *, image: bool = True) -> str | None:
    """What to do about an error that tells of a missing shared library; None about any other.

    Args:
        message: The error's text.
        image: Whether it is of a worker in an image of ours, not of one that uses a machine's own libraries.
    """
    library = missing_library(message)
    if library is None:
        return None
    package = system_library_hint(library)
    if not image:
        what = f"apt install {package}" if package else f"apt-file search {library} names its Debian package"
        return f"the machine of this worker lacks {library}, a library of the system: {what}"
    if package is None:
        return (
            f"the workers' image lacks {library}, a library of the system: find its Debian package "
            f"(apt-file search {library}) and name it in system_packages=[...]"
        )
    return (
        f'the workers\' image lacks {library}, a library of the system: system_packages=["{package}"] adds it'
    )
