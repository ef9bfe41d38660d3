"""Workers' images, built and pushed as for the cloud, in a fresh process: see :mod:`bench.environment`."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import resource
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.fresh import peak_memory_bytes
from bench.model import timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starburst.environment.worker_image import WorkerImage

ROOT = Path(__file__).parent.parent
BASE = "base/python"
REPOSITORY = "starburst-worker"
PACKAGES = ("numpy", "pandas", "scikit-learn")
N_BIG = 25
BIG_BYTES = 40_000_000


def build(folder: Path) -> dict[str, Any]:
    """From a list of packages to an image in an empty registry, twice; then a line of code is changed."""
    from starburst.environment.platforms import Platform
    from starburst.environment.registry import Registry
    from starburst.environment.settings import project_lock, project_settings
    from starburst.environment.steps import Steps
    from starburst.environment.worker_image import Home, worker_image

    with _registries() as (public, ours):
        project = _project(folder / "project", public.address)
        platform = Platform(f"{sys.version_info.major}.{sys.version_info.minor}", _architecture())
        home = Home(Registry(ours.address), REPOSITORY, f"{ours.address}/{REPOSITORY}")
        took: list[dict[str, float]] = []

        def once() -> WorkerImage:
            steps = Steps()

            async def go() -> WorkerImage:
                settings = project_settings(project)
                lock = await project_lock(project, settings, platform, steps, choice=None)
                return await worker_image(lock, settings, home, steps)

            made = asyncio.run(go())
            took.append({step.name: round(step.seconds, 2) for step in steps.steps})
            return made

        os.environ["STARBURST_CACHE_DIR"] = str(folder / "cache")
        first_s, first = timed(once)
        again_s, again = timed(once)
        code_s, _ = timed(lambda: _change_code(project))
        after = once()
        # The registry is emptied, what was compiled and packed here stays.
        with _registries() as (_, empty):
            home = Home(Registry(empty.address), REPOSITORY, f"{empty.address}/{REPOSITORY}")
            packed_s, packed = timed(once)
    return {
        "first_s": first_s,
        "first_blobs": _sent(first),
        "first_mb": 0 if first.pushed is None else first.pushed.bytes_sent / 1e6,
        "again_s": again_s,
        "again_blobs": _sent(again),
        "code_s": code_s,
        "code_blobs": _sent(after),
        "packed_s": packed_s,
        "packed_blobs": _sent(packed),
        "same": first.reference.partition("@")[2] == packed.reference.partition("@")[2],
        "steps": took,
        "biggest_child_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3,
    }


def push_big(folder: Path) -> dict[str, Any]:
    """Pack and push packages of 1 GB, which a tenth of compression helps."""
    from starburst.environment.base_images import Reference, find_base
    from starburst.environment.image import assemble, push
    from starburst.environment.layers import pack
    from starburst.environment.platforms import Platform
    from starburst.environment.registry import Registry
    from starburst.environment.steps import Steps

    packages = folder / "packages"
    for number in range(N_BIG):
        _distribution(packages, f"big{number}")
    with _registries() as (public, ours):
        registry = Registry(public.address)
        platform = Platform(f"{sys.version_info.major}.{sys.version_info.minor}", _architecture())
        base = find_base(registry, Reference.parse(f"{public.address}/{BASE}:latest"), platform)

        _forget_peak()  # of what made up packages and base image

        def go() -> int:
            layers = pack(packages, folder / "layers")
            image = assemble(base, layers, platform)
            pushed = push(
                image, Registry(ours.address), REPOSITORY, "big", steps=Steps(), base_registry=registry
            )
            return pushed.blobs_sent

        seconds, blobs = timed(go)
    return {"seconds": seconds, "blobs": blobs, "peak_rss_mb": peak_memory_bytes() / 1e6}


def _sent(image: WorkerImage) -> int:
    return 0 if image.pushed is None else image.pushed.blobs_sent


def _change_code(project: Path) -> None:
    """Edit a line of a program, and have what its next call sends in the store."""
    from starburst.client.code import OwnCode
    from starburst.protocol.pack import encode_pack
    from starburst.protocol.payload import LargeObjects, dump_function
    from starburst.protocol.records import CodeHeader
    from starburst.store import open_store

    library = project / "mylib.py"
    library.write_text(library.read_text() + "CHANGED = True\n")
    sys.path.insert(0, str(project))
    function = dump_function(importlib.import_module("mylib").work, LargeObjects())
    store = open_store((project.parent / "store").as_uri())

    async def send() -> None:
        code = await OwnCode(travels=True).look(function)
        assert code.archive is not None
        header = CodeHeader(nonce=code.layer[:16], roots=code.archive.roots, n_files=code.archive.n_files)
        await store.create(f"code/{code.layer}", encode_pack(header, [code.archive.data], compress=True))

    asyncio.run(send())


def _project(folder: Path, registry: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\nversion = "1"\n[tool.starburst]\nbase_image = "{registry}/{BASE}:latest"\n'
    )
    (folder / "requirements.txt").write_text("\n".join(PACKAGES) + "\n")
    (folder / "mylib.py").write_text("def work(x):\n    return x\n")
    return folder


def _distribution(folder: Path, name: str) -> None:
    package, about = folder / name, folder / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    with (package / "data.bin").open("wb") as file:
        for _ in range(BIG_BYTES // 1_100_000):
            file.write(os.urandom(1_000_000) + bytes(100_000))
    (about / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (about / "RECORD").write_text(f"{name}/data.bin,,\n{about.name}/METADATA,,\n{about.name}/RECORD,,\n")


def _forget_peak() -> None:
    """The kernel begins anew with the present size (proc(5), ``clear_refs``)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def _architecture() -> Any:
    from starburst.environment.platforms import Platform

    return Platform.of_this_machine().architecture


@contextmanager
def _registries() -> Iterator[tuple[Any, Any]]:
    """One that has the base image, as the public ones do, and an empty one."""
    sys.path.append(str(ROOT / "tests"))  # theirs are real ones
    registry: Any = importlib.import_module("oci_registry").OciRegistry
    image: Any = importlib.import_module("worker_image")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        public, ours = registry(Path(folder) / "public"), registry(Path(folder) / "ours")
        try:
            public.start()
            ours.start()
            public.push_image(
                BASE,
                [image.python_layer()],
                image.image_config(),
                architecture=image.architecture(),
                tag="latest",
                history=True,
            )
            yield public, ours
        finally:
            public.stop()
            ours.stop()
