"""A base image with system packages, built by a container engine of this machine, and put into the registry."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from starburst.environment.base_images import Base, Reference, find_base
from starburst.environment.docker_archive import read_archive
from starburst.environment.dockerfile import Recipe
from starburst.environment.engines import Engine, Login, Logins
from starburst.environment.image import push
from starburst.environment.image_errors import build_failed
from starburst.environment.layers import Compression, writing
from starburst.environment.registry import Registry
from starburst.environment.steps import Steps

__all__ = ["build_with_engine", "find_built"]

_TIMEOUT_S = 3600.0


async def build_with_engine(
    recipe: Recipe,
    engine: Engine,
    registry: Registry,
    repository: str,
    *,
    steps: Steps,
    base: Base | None = None,
    base_registry: Registry | None = None,
    login: Login | None = None,
    compression: Compression = "zstd",
    anew: bool = False,
    timeout_s: float = _TIMEOUT_S,
) -> Base:
    """Have the base image of a recipe in the registry: it is there, or is built and pushed.

    The engine only builds. What it made goes to the registry by our own client: the engine needs no password for that,
    and layers that are there are not sent.

    Args:
        recipe: What is built.
        engine: Who builds.
        registry: Where the result goes.
        repository: Its name there.
        steps: Is told how far it is; gets all that the engine says.
        base: The image that the recipe stands on, where it is known: its layers are taken over, not sent again.
        base_registry: Where that is; None if that is ``registry``.
        login: How the engine gets at it; None if its user can.
        compression: Of new layers.
        anew: Build it though it is there, and take no step that the engine has kept.
        timeout_s: How long the engine may build.

    Returns:
        The image, for the workers' packages to be put on.

    Raises:
        EnvironmentBuildError: A step fails, or the registry refuses; the message has the last lines.
    """
    with steps("system") as step:
        tag = await asyncio.to_thread(recipe.tag)
        found = None if anew else await find_built(recipe, tag, registry, repository)
        if found is not None:
            step.cached("it is there")
            return found
        folder = Path(tempfile.gettempdir())
        with writing(folder), tempfile.TemporaryDirectory(prefix="starburst-build-") as name:
            folder = Path(name)
            logins = Logins()
            if login is not None:
                place = folder / "login"
                place.mkdir(mode=0o700)
                logins = await engine.log_in(login, place, steps)
            local = f"localhost/starburst-base:{tag}"
            code, lines = await engine.build(
                recipe, local, steps, step, folder=folder, logins=logins, anew=anew, timeout_s=timeout_s
            )
            if code:
                raise build_failed(lines, recipe, engine.name)
            step.say("packed")
            archive = folder / "image.tar"
            await engine.save(local, archive, steps)
            image = await asyncio.to_thread(
                read_archive, archive, folder / "layers", recipe.platform, base=base, compression=compression
            )
            archive.unlink()
            await asyncio.to_thread(
                push, image, registry, repository, tag, steps=steps, base_registry=base_registry
            )
        step.say(f"{engine.name}, {sum(layer.size_bytes for layer in image.layers) / 1e6:,.1f} MB")
    built = await find_built(recipe, tag, registry, repository)
    assert built is not None, tag
    return built


async def find_built(recipe: Recipe, tag: str, registry: Registry, repository: str) -> Base | None:
    """The base image of this tag, if it was built already.

    Raises:
        EnvironmentBuildError: The registry refuses or does not answer, or the image is for something else.
    """

    def look() -> Base | None:
        digest = registry.digest_of(repository, tag)
        if digest is None:
            return None
        return find_base(registry, Reference(registry.host, repository, tag, digest), recipe.platform)

    return await asyncio.to_thread(look)
