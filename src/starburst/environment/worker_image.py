"""The whole way from a lock to an image in a registry; what is there already is not made again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starburst._version import __version__
from starburst.container import LOCK_VARIABLE
from starburst.environment.base_images import BASE_MAX_AGE_S, Base, Reference, find_base, stock_image
from starburst.environment.build import install
from starburst.environment.caches import cache_path
from starburst.environment.dockerfile import Recipe, dockerfile_recipe, system_packages_recipe
from starburst.environment.engine_build import build_with_engine, find_built
from starburst.environment.engines import find_engine
from starburst.environment.image import Pushed, assemble, push, tag_of
from starburst.environment.layers import Compression, pack, writing
from starburst.environment.lock import Lock
from starburst.environment.platforms import Platform
from starburst.environment.registry import Registry
from starburst.environment.settings import ProjectSettings
from starburst.environment.steps import Steps

__all__ = ["Home", "WorkerImage", "look_up", "worker_image"]

BuildRemotely = Callable[[Recipe, bool], Coroutine[Any, Any, Base]]
"""Takes the recipe, and whether it is built though it is there."""


@dataclass(frozen=True, slots=True)
class Home:
    """The repository for workers' images.

    Attributes:
        registry: The registry, as it is reached from here.
        repository: The repository's name there.
        uri: How those name it who pull from it.
        build_remotely: Builds the image of a recipe there, where no engine is here; None if that cannot be done.
    """

    registry: Registry
    repository: str
    uri: str
    build_remotely: BuildRemotely | None = None


@dataclass(frozen=True, slots=True)
class WorkerImage:
    """An image in a registry.

    Attributes:
        reference: By digest: what tasks name.
        tag: What it was found or pushed under.
        platform: What it is for.
        lock: What is in it.
        pushed: What had to be sent; None if the tag was there.
    """

    reference: str
    tag: str
    platform: Platform
    lock: Lock
    pushed: Pushed | None


async def worker_image(
    lock: Lock,
    settings: ProjectSettings,
    home: Home,
    steps: Steps,
    *,
    compression: Compression = "zstd",
    rebuild: bool = False,
) -> WorkerImage:
    """Have an image with the packages of a lock in a registry.

    Args:
        lock: The packages, and what they are for.
        settings: The project's: its base image, system packages or Dockerfile.
        home: Where the image goes.
        steps: Gets the steps.
        compression: Of the layers.
        rebuild: Make it, and what it stands on, though they are there.

    Raises:
        EnvironmentBuildError: It cannot be built or pushed.
    """
    base = await _base(settings, lock.platform, home, steps, anew=rebuild)
    tag = tag_of(lock.sha256, base.digest, lock.platform, __version__)
    pushed: Pushed | None = None
    digest: str | None = None
    with steps("look up") as step:
        if not rebuild:
            digest = await asyncio.to_thread(home.registry.digest_of, home.repository, tag)
        if digest is not None:
            step.cached(f"{home.uri}:{tag}")
    if digest is None:
        pushed = await _build(lock, base, home, tag, steps=steps, compression=compression)
        digest = pushed.digest
    return WorkerImage(f"{home.uri}@{digest}", tag, lock.platform, lock, pushed)


async def _build(
    lock: Lock, base: Base, home: Home, tag: str, *, steps: Steps, compression: Compression
) -> Pushed:
    cache = cache_path()
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        # Beside uv's cache, if that is where it usually is: then files are linked, not copied.
        scratch = tempfile.TemporaryDirectory(prefix="build-", dir=cache)
    with scratch as folder:
        await install(lock, Path(folder), steps)
        with steps("pack") as step:
            layers = await asyncio.to_thread(pack, Path(folder), cache / "layers", compression=compression)
            step.say(f"{sum(layer.size_bytes for layer in layers) / 1e6:,.1f} MB in {len(layers)} layers")
            if all(layer.cached for layer in layers):
                step.cached()
        image = assemble(
            base,
            layers,
            lock.platform,
            environment={LOCK_VARIABLE: lock.sha256},
            labels={"cloud.starburst.lock": lock.sha256, "cloud.starburst.version": __version__},
        )
        return await asyncio.to_thread(
            push,
            image,
            home.registry,
            home.repository,
            tag,
            steps=steps,
            base_registry=_registry_of(base.reference, home),
        )


async def look_up(lock: Lock, settings: ProjectSettings, home: Home) -> tuple[str | None, str | None]:
    """The tag of the image with these packages, and its digest; builds nothing.

    Returns:
        None for the tag if what the packages are put on is not built yet, None for the digest if the image is not.

    Raises:
        EnvironmentBuildError: A registry refuses or does not answer, or a file cannot be read.
    """
    base, recipe = await _ingredients(settings, lock.platform, home)
    if recipe is not None:
        tag = await asyncio.to_thread(recipe.tag)
        base = await find_built(recipe, tag, home.registry, home.repository)
    if base is None:
        return None, None
    tag = tag_of(lock.sha256, base.digest, lock.platform, __version__)
    return tag, await asyncio.to_thread(home.registry.digest_of, home.repository, tag)


async def _base(
    settings: ProjectSettings, platform: Platform, home: Home, steps: Steps, *, anew: bool
) -> Base:
    """What the packages are put on: the stock image, or one that is made of it first."""
    base, recipe = await _ingredients(settings, platform, home, anew=anew)
    if recipe is not None:
        return await _made(recipe, settings, home, steps, base, anew=anew)
    assert base is not None
    return base


async def _ingredients(
    settings: ProjectSettings, platform: Platform, home: Home, *, anew: bool = False
) -> tuple[Base | None, Recipe | None]:
    """The image that everything stands on, where it is known, and what is to be made of it first, if anything."""
    if settings.dockerfile is not None:
        return None, await asyncio.to_thread(dockerfile_recipe, settings.dockerfile, platform)
    reference = Reference.parse(settings.base_image or stock_image(platform))
    registry = _registry_of(reference, home)
    base = await asyncio.to_thread(
        find_base,
        registry,
        reference,
        platform,
        cache=cache_path() / "bases",
        max_age_s=0.0 if anew else BASE_MAX_AGE_S,
    )
    if not settings.system_packages:
        return base, None
    return base, system_packages_recipe(base, settings.system_packages, platform)


async def _made(
    recipe: Recipe, settings: ProjectSettings, home: Home, steps: Steps, base: Base | None, *, anew: bool
) -> Base:
    if settings.build == "codebuild" and home.build_remotely is not None:
        return await home.build_remotely(recipe, anew)
    engine = await find_engine(settings.engine, steps=steps)
    base_registry = None if base is None else _registry_of(base.reference, home)
    return await build_with_engine(
        recipe,
        engine,
        home.registry,
        home.repository,
        steps=steps,
        base=base,
        base_registry=base_registry,
        anew=anew,
    )


def _registry_of(reference: Reference, home: Home) -> Registry:
    """The registry of an image: that of the workers' images, with its password, or another one, without."""
    return home.registry if reference.host == home.registry.host else Registry(reference.host)
