"""Container images as ECR knows them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from starburst.aws.clients import Aws
from starburst.errors import CloudError, NotSetUp

__all__ = ["Image", "find_image"]

_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/"
    r"(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MANIFESTS = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]
_ARCHITECTURES = {"amd64": "X86_64", "arm64": "ARM64"}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that workers can run.

    Attributes:
        reference: How a task definition names it; by digest where that is known.
        architectures: ``X86_64``, ``ARM64``; empty if that cannot be known without pulling it.
    """

    reference: str
    architectures: frozenset[str] = frozenset()


async def find_image(aws: Aws, reference: str) -> Image:
    """Look an image up; one that is not in ECR is taken as it is.

    Args:
        aws: The account.
        reference: As ``docker pull`` takes it.

    Raises:
        NotSetUp: It is not in its ECR repository.
        CloudError: ECR cannot be asked.
    """
    match = _ECR.fullmatch(reference)
    if match is None:
        return Image(reference)
    wanted = {"imageDigest": match["digest"]} if match["digest"] else {"imageTag": match["tag"] or "latest"}
    try:
        answer = await aws.call(
            "ecr",
            "batch_get_image",
            region=match["region"],
            registryId=match["account"],
            repositoryName=match["repository"],
            imageIds=[wanted],
            acceptedMediaTypes=_MANIFESTS,
        )
    except CloudError as error:
        if error.code != "RepositoryNotFoundException":
            raise
        answer = {"images": []}
    if not answer["images"]:
        raise NotSetUp(
            f"the worker image {reference} is not there",
            hint="build it and push it (docs/aws.md), or name another one: image=, starburst setup --image",
        )
    found = answer["images"][0]
    digest = found["imageId"].get("imageDigest")
    host, _, path = reference.partition("/")
    by_digest = f"{host}/{match['repository']}@{digest}" if digest else f"{host}/{path}"
    return Image(by_digest, _architectures(str(found.get("imageManifest", ""))))


def _architectures(manifest: str) -> frozenset[str]:
    """Those that an index lists; a plain manifest does not tell."""
    try:
        entries = json.loads(manifest).get("manifests", ())
    except (ValueError, AttributeError):
        return frozenset()
    names = {str(entry.get("platform", {}).get("architecture")) for entry in entries}
    return frozenset(_ARCHITECTURES[name] for name in names if name in _ARCHITECTURES)
