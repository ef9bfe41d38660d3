"""The stores in which sessions may be: the usual one, and the bucket of every region that is set up."""

from __future__ import annotations

from dataclasses import dataclass

from starburst.aws.deployment import load_deployments
from starburst.client.plan import current_options
from starburst.config import default_store_url
from starburst.store import open_store
from starburst.store.base import Store

__all__ = ["StorePlace", "usual_places"]


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store by its address, and what it takes to open it.

    Attributes:
        url: Its URL.
        region: The bucket's region, if it has one.
        profile: The AWS profile to use, or None.
    """

    url: str
    region: str | None = None
    profile: str | None = None

    def open(self) -> Store:
        """Open it.

        Raises:
            StoreError: It cannot be opened.
        """
        return open_store(self.url, region=self.region, profile=self.profile)


def usual_places(store: str | None = None, region: str | None = None) -> list[StorePlace]:
    """Where to look for sessions, the likeliest first.

    Args:
        store: A store's URL: then only there.
        region: Only the bucket of this region.

    Raises:
        OptionError: ``store`` is not text.
        ConfigError: The settings cannot be read.
    """
    options = current_options({"store": store or None})
    if store:
        return [StorePlace(store, options.region, options.profile)]
    buckets = [
        StorePlace(f"s3://{one.bucket}", one.region, options.profile or one.profile)
        for one in load_deployments()
        if region in (None, one.region)
    ]
    if region is not None:
        return buckets
    usual = StorePlace(options.store or default_store_url(), options.region, options.profile)
    return [usual, *(place for place in buckets if place.url != usual.url)]
