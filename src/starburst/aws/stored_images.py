"""What is in the image repository, and taking images out of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import REPOSITORY
from starburst.errors import CloudError, NotSetUp

__all__ = ["StoredImage", "delete_images", "stored_images"]

_PER_CALL = 100
_OURS = re.compile(r"(?P<base>base-)?(?P<platform>py\d+\.\d+-[a-z0-9]+)-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One image.

    Attributes:
        digest: Its name for ever.
        tags: Its tags; none if another image has taken them.
        size_bytes: Of its layers, compressed; some of them may be other images', too.
        pushed_at: Seconds since 1970.
        pulled_at: The same, of the last time that it was pulled, to a day or so; 0 if that is not known.
    """

    digest: str
    tags: tuple[str, ...]
    size_bytes: int
    pushed_at: float
    pulled_at: float = 0.0

    @property
    def is_ours(self) -> bool:
        """Whether starburst built it: all its tags are of the kind that starburst makes, or it has none left."""
        return all(_OURS.fullmatch(tag) for tag in self.tags)

    @property
    def base_for(self) -> str:
        """The platform, as tags spell it, of an image that others are built upon; empty if it is none."""
        found = [match for tag in self.tags if (match := _OURS.fullmatch(tag)) and match["base"]]
        return found[0]["platform"] if found else ""

    @property
    def platforms(self) -> frozenset[str]:
        """The platforms in the tags of an image that workers run."""
        found = [match for tag in self.tags if (match := _OURS.fullmatch(tag)) and not match["base"]]
        return frozenset(match["platform"] for match in found)

    @property
    def last_used_at(self) -> float:
        """Seconds since 1970: pushed or pulled, whichever was later."""
        return max(self.pushed_at, self.pulled_at)


async def stored_images(aws: Aws) -> list[StoredImage]:
    """All images of our repository, the newest first.

    Raises:
        NotSetUp: There is no repository.
        CloudError: AWS did not answer.
    """
    try:
        found = await aws.pages("ecr", "describe_images", "imageDetails", repositoryName=REPOSITORY)
    except CloudError as error:
        if error.code != "RepositoryNotFoundException":
            raise
        raise NotSetUp(
            f"the image repository {REPOSITORY} is not there in {aws.region}",
            hint=f"starburst setup --region {aws.region}",
        ) from error
    images = [_image(each) for each in found]
    return sorted(images, key=lambda image: -image.pushed_at)


async def delete_images(aws: Aws, digests: Collection[str]) -> dict[str, str]:
    """Delete images, with all their tags.

    Returns:
        Those that ECR kept, by digest, with its reason: an image that a multi-platform image lists, for instance.

    Raises:
        CloudError: AWS did not do it.
    """
    kept: dict[str, str] = {}
    names = sorted(digests)
    for first in range(0, len(names), _PER_CALL):
        some = [{"imageDigest": digest} for digest in names[first : first + _PER_CALL]]
        answer = await aws.call("ecr", "batch_delete_image", repositoryName=REPOSITORY, imageIds=some)
        for failure in answer.get("failures", ()):
            if failure.get("failureCode") != "ImageNotFound":
                digest = str(failure.get("imageId", {}).get("imageDigest", ""))
                kept[digest] = str(failure.get("failureReason") or failure.get("failureCode"))
    return kept


def _image(about: Mapping[str, Any]) -> StoredImage:
    pushed, pulled = about.get("imagePushedAt"), about.get("lastRecordedPullTime")
    return StoredImage(
        digest=str(about["imageDigest"]),
        tags=tuple(sorted(about.get("imageTags", ()))),
        size_bytes=int(about.get("imageSizeInBytes", 0)),
        pushed_at=pushed.timestamp() if pushed else 0.0,
        pulled_at=pulled.timestamp() if pulled else 0.0,
    )
