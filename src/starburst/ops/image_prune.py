"""Images and caches that nobody needs any more. What a session that is open may still run, stays, however old it is."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment
from starburst.aws.resource import ask
from starburst.aws.stored_images import StoredImage, delete_images, stored_images
from starburst.clock import Clock, SystemClock
from starburst.config import load_settings
from starburst.environment.caches import cache_path
from starburst.errors import SessionNotFound, StarburstError
from starburst.ops.tasks import cluster_tasks
from starburst.protocol.keys import Keys
from starburst.protocol.records import Manifest
from starburst.protocol.sessions import EventLog, list_session_ids, read_manifest
from starburst.protocol.state import SessionState
from starburst.store import Store, open_store

__all__ = ["CachePlan", "ImageView", "Images", "PrunePlan", "environments_in_use", "prune_caches"]

_DAY_S = 86400.0
_YOUNG_S = 3600.0
"""Whatever is younger may be of a call that has built it and has not written its session yet."""
_AT_ONCE = 8
_CACHES = ("bases", "builds", "bytecode", "layers", "locks")


class ImageView(msgspec.Struct, frozen=True, kw_only=True):
    """One image of the repository.

    Attributes:
        digest: Its digest.
        tags: Its tags.
        size_bytes: Of its layers; other images may share some.
        pushed_at: Seconds since 1970.
        pulled_at: The same, as far as ECR says; 0 if it does not.
        used_by: Open sessions, running tasks, or the settings, that name it.
        ours: Whether starburst built it.
    """

    digest: str
    tags: tuple[str, ...]
    size_bytes: int
    pushed_at: float
    pulled_at: float
    used_by: tuple[str, ...]
    ours: bool


class PrunePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is removed, or was.

    Attributes:
        images: Those that go.
        kept: Images that stay although nothing uses them, with the reason, by digest.
        unsure: Why nothing can be removed now.
        done: Whether it was done.
    """

    images: tuple[ImageView, ...]
    kept: dict[str, str] = {}
    unsure: tuple[str, ...] = ()
    done: bool = False


@dataclass(slots=True)
class Images:
    """The image repository of a set-up, and who uses what is in it.

    Attributes:
        aws: The account.
        deployment: What is set up.
        clock: Time.
    """

    aws: Aws
    deployment: Deployment
    clock: Clock = field(default_factory=SystemClock)

    async def all(self) -> tuple[list[ImageView], list[str]]:
        """All images, the newest first; and sessions that could not be read.

        Raises:
            NotSetUp: There is no repository.
            CloudError: AWS did not answer.
        """
        stored = await stored_images(self.aws)
        users, unsure = await self._users()
        return [_view(image, users) for image in stored], unsure

    async def plan(self, days: float) -> PrunePlan:
        """Which images nothing has used for so many days.

        Images that somebody pushed under a tag of their own are not ours to remove.

        Raises:
            NotSetUp: There is no repository.
            CloudError: AWS did not answer.
        """
        stored = await stored_images(self.aws)
        users, unsure = await self._users()
        before = self.clock.time() - max(days * _DAY_S, _YOUNG_S)
        going = {
            image.digest
            for image in stored
            if image.is_ours and image.last_used_at < before and not _used_by(image, users)
        }
        # What others are built upon stays with them: else the next one would be built upon another, and be another.
        needed = {platform for image in stored if image.digest not in going for platform in image.platforms}
        going -= {image.digest for image in stored if image.base_for in needed}
        if unsure:
            going = set()
        images = tuple(_view(image, users) for image in stored if image.digest in going)
        return PrunePlan(images=images, unsure=tuple(unsure))

    async def apply(self, plan: PrunePlan) -> PrunePlan:
        """Remove them, but for those that have come into use since.

        Raises:
            CloudError: AWS did not do it.
        """
        users, unsure = await self._users()
        going = [image for image in plan.images if not unsure and not _used_by(image, users)]
        kept = await delete_images(self.aws, {image.digest for image in going}) if going else {}
        gone = tuple(image for image in going if image.digest not in kept)
        return PrunePlan(images=gone, kept=kept, unsure=(*plan.unsure, *unsure), done=True)

    async def _users(self) -> tuple[Mapping[str, list[str]], list[str]]:
        """Who uses an image, by digest or by its whole name, and which sessions could not be read."""
        users: dict[str, list[str]] = defaultdict(list)
        unsure: list[str] = []
        root = f"s3://{self.deployment.bucket}"
        store = open_store(root, region=self.aws.region, profile=self.aws.profile)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look(session_id: str) -> None:
            async with gate:
                try:
                    manifest = await read_manifest(store, session_id)
                    image = manifest.deployment.get("image")
                    if image and await _may_run(store, manifest, self.clock.time()):
                        users[_name(str(image))].append(session_id)
                except SessionNotFound:
                    return
                except StarburstError as error:
                    unsure.append(f"session {session_id} cannot be read: {error.message}")

        try:
            await asyncio.gather(*map(look, await list_session_ids(store)))
        except StarburstError as error:
            unsure.append(f"the sessions in {root} cannot be listed: {error.message}")
        for image, tasks in (await self._run()).items():
            users[_name(image)] += [f"task {task}" for task in tasks]
        for named in (self.deployment.image, load_settings().image):
            if named:
                users[_name(named)].append("the settings")
        return users, unsure

    async def _run(self) -> Mapping[str, list[str]]:
        """The images of tasks that run, also of sessions whose store is elsewhere."""
        tasks: dict[str, list[str]] = defaultdict(list)
        for task in await cluster_tasks(self.aws):
            tasks[task.definition].append(task.task_id)
        images: dict[str, list[str]] = defaultdict(list)
        for definition, names in tasks.items():
            answer = await ask(
                self.aws, ("ClientException",), "ecs", "describe_task_definition", taskDefinition=definition
            )
            for container in answer["taskDefinition"]["containerDefinitions"] if answer else ():
                images[str(container["image"])] += names
        return images


async def _may_run(store: Store, manifest: Manifest, now: float) -> bool:
    """Whether workers of a session may still be started: those of ``resume=True`` open again with each call."""
    if manifest.kind == "resume":
        return True
    state = SessionState.of(manifest)
    for event in await EventLog(store, Keys(manifest.session_id)).news():
        state.apply(event)
    return state.name(now) == "open"


def _name(image: str) -> str:
    """The digest in an image's name; the tag of one that is named by tag."""
    _, at, digest = image.partition("@")
    return digest if at else image.rpartition("/")[2].partition(":")[2] or "latest"


def _used_by(image: StoredImage | ImageView, users: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(sorted({user for name in (image.digest, *image.tags) for user in users.get(name, ())}))


def _view(image: StoredImage, users: Mapping[str, list[str]]) -> ImageView:
    return ImageView(
        digest=image.digest,
        tags=image.tags,
        size_bytes=image.size_bytes,
        pushed_at=image.pushed_at,
        pulled_at=image.pulled_at,
        used_by=_used_by(image, users),
        ours=image.is_ours,
    )


class CachePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What goes, or went, of what is kept on this machine.

    Attributes:
        folder: Where it is.
        entries: How many packed layers, compiled files, remembered locks and base images.
        size_bytes: Their size.
        done: Whether it was done.
    """

    folder: str
    entries: int = 0
    size_bytes: int = 0
    done: bool = False


async def environments_in_use(stores: Iterable[Store], now: float) -> frozenset[Path] | None:
    """Unpacked packages that workers on this machine may still run; None if not all sessions can be read."""
    found: set[Path] = set()
    for store in stores:
        try:
            for session_id in await list_session_ids(store):
                manifest = await read_manifest(store, session_id)
                isolated = manifest.deployment.get("isolated") if manifest.launch_type == "LOCAL" else None
                if isolated and await _may_run(store, manifest, now):
                    found.add(Path(isolated["packages"]))
        except SessionNotFound:
            continue
        except (StarburstError, KeyError, TypeError):
            return None
    return frozenset(found)


def prune_caches(days: float, *, now: float, dry_run: bool, in_use: Collection[Path] | None) -> CachePlan:
    """Remove from this machine's caches what has not been read or written for so many days.

    Args:
        days: So many.
        now: Seconds since 1970.
        dry_run: Only look.
        in_use: Unpacked packages that stay; None: all of these.
    """
    before = now - max(days * _DAY_S, _YOUNG_S)
    entries = [*_entries(cache_path()), *([] if in_use is None else _unpacked(cache_path(), in_use))]
    old = [entry for entry in entries if _used_at(entry) < before]
    size = sum(about.st_size for entry in old for about in _files(entry))
    if not dry_run:
        for entry in old:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    return CachePlan(folder=str(cache_path()), entries=len(old), size_bytes=size, done=not dry_run)


def _entries(cache: Path) -> Iterable[Path]:
    """What can be removed by itself; also folders of builds that were killed."""
    for name in _CACHES:
        yield from sorted((cache / name).glob("*"))
    yield from sorted(cache.glob("build-*"))


def _unpacked(cache: Path, in_use: Collection[Path]) -> Iterable[Path]:
    """The packages of isolated workers on this machine, but for those that are in use."""
    return (entry for entry in sorted((cache / "environments").glob("*")) if entry not in in_use)


def _used_at(entry: Path) -> float:
    times = [max(about.st_atime, about.st_mtime) for about in _files(entry)]
    return max(times, default=math.inf)  # gone already


def _files(entry: Path) -> list[os.stat_result]:
    """The files in it, or itself, but for those that somebody else removes meanwhile."""
    found = []
    inside = [file for file in entry.rglob("*") if not file.is_dir()] if entry.is_dir() else []
    for file in inside or [entry]:
        with contextlib.suppress(FileNotFoundError):
            found.append(file.lstat())
    return found
