import os

import pytest
from environment_parts import CPYTHON
from wheelhouse import make_sdist, make_wheel


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """A folder of small packages, and caches that all tests of this run share."""
    folder = tmp_path_factory.mktemp("house")
    make_wheel(folder, "pure")
    make_wheel(folder, "needs", requires=["pure"])
    make_wheel(folder, "clashes", requires=["pure>=5"])
    make_wheel(folder, "devtool")
    make_wheel(folder, "winonly")
    make_wheel(folder, "native", tag=f"{CPYTHON}-{CPYTHON}-manylinux_2_17_x86_64")
    make_wheel(folder, "newlibc", tag=f"{CPYTHON}-{CPYTHON}-manylinux_2_40_x86_64")
    make_wheel(folder, "otherpython", tag="cp37-cp37m-manylinux_2_17_x86_64")
    make_wheel(folder, "later", python=">=3.99")
    make_sdist(folder, "puresd")
    make_sdist(folder, "builtnative", tag=f"{CPYTHON}-{CPYTHON}-linux_x86_64")
    make_sdist(folder, "compiled", prelude='subprocess.run([os.environ.get("CC", "cc"), "x.c"], check=True)')
    make_sdist(folder, "broken", prelude='raise RuntimeError("set-up is wrong")')
    return folder, tmp_path_factory.mktemp("uv-cache"), tmp_path_factory.mktemp("starburst-cache")


@pytest.fixture
def house(packages, monkeypatch):
    """These packages and no others are found; pip has been told so, uv has not."""
    folder, uv_cache, own_cache = packages
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    monkeypatch.setenv("STARBURST_CACHE_DIR", str(own_cache))
    return folder
