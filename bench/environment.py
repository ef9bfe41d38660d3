"""Workers' images: how long their first one takes, the next, an edited line; what is sent, and in how much memory."""

from __future__ import annotations

import tempfile

from bench.fresh import run_fresh
from bench.model import OURS, Figure, Limit, Probe


def images(_contender: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        inside, _ = run_fresh("build_images", folder)
    assert inside["same"], "the same packages gave two images"
    return {
        "image": inside["first_s"],
        "image-blobs": inside["first_blobs"],
        "image-mb": inside["first_mb"],
        "image-packed": inside["packed_s"],
        "image-again": inside["again_s"],
        "image-again-blobs": inside["again_blobs"],
        "image-code": inside["code_s"],
        "image-code-blobs": inside["code_blobs"],
    }


def big(_contender: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        inside, _ = run_fresh("push_big_image", folder)
    return {"image-big-rss": inside["peak_rss_mb"], "image-big": inside["seconds"]}


PROBES = (
    Probe(
        (
            Figure("image", "numpy, pandas, scikit-learn: list to image, wheels cached", limit=Limit(10)),
            Figure("image-blobs", "the same, blobs sent", "blobs"),
            Figure("image-mb", "the same, sent", "MB"),
            Figure("image-packed", "the same, empty registry, layers packed before"),
            Figure("image-again", "the same, its tag is there", limit=Limit(1.5)),
            Figure("image-again-blobs", "the same, blobs sent", "blobs", Limit(0)),
            Figure("image-code", "an edited line of code: packed and stored", limit=Limit(1)),
            Figure("image-code-blobs", "the same, blobs of the image sent", "blobs", Limit(0)),
        ),
        images,
        (OURS,),
        pooled=False,
    ),
    Probe(
        (
            Figure("image-big-rss", "packages of 1 GB: peak memory of pack and push", "MB", Limit(500)),
            Figure("image-big", "the same, time"),
        ),
        big,
        (OURS,),
        pooled=False,
        warmups=0,
    ),
)
