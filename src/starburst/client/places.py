"""The stores in which sessions may be: the usual one, and the bucket of every region that is set up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from starburst.aws.deployment import Deployment, deployment_of, load_deployments
from starburst.client.plan import current_options
from starburst.config import default_store_url
from starburst.errors import InvalidStoreURL, NotSetUp
from starburst.options import Options
from starburst.store import open_store
from starburst.store.base import Store

__all__ = ["StorePlace", "place_at", "places_of", "usual_places"]


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store by its address, and what it takes to open it.

    Attributes:
        url: Its URL.
        region: The bucket's region, if it has one.
        profile: The AWS profile to use, or None.
        set_up: Whether ``starburst setup`` made it.
    """

    url: str
    region: str | None = None
    profile: str | None = None
    set_up: bool = False

    def open(self) -> Store:
        """Open it.

        Raises:
            StoreError: It cannot be opened.
        """
        return open_store(self.url, region=self.region, profile=self.profile)

    @contextlib.contextmanager
    def known(self) -> Iterator[None]:
        """Where the store is said not to be there: the set-up can make its bucket again.

        Raises:
            NotSetUp: It is the bucket of the set-up.
        """
        try:
            yield
        except InvalidStoreURL as error:
            if not self.set_up:
                raise
            raise NotSetUp(
                f"the bucket of the set-up cannot be used: {error.message}",
                hint=f"`starburst setup --region {self.region}` makes what is missing",
            ) from error


def place_at(url: str, options: Options) -> StorePlace:
    """The store at an address; the bucket of a set-up is in that one's region, and opened with its profile."""
    bucket = url.removeprefix("s3://").partition("/")[0] if url.startswith("s3://") else ""
    for one in load_deployments():
        if one.bucket == bucket:
            return _bucket_of(one, options, url)
    return StorePlace(url, options.region, options.profile)


def usual_places(store: str | None = None, region: str | None = None) -> list[StorePlace]:
    """Where to look for sessions, the likeliest first.

    Args:
        store: A store's URL: then only there.
        region: Only the bucket of this region.

    Raises:
        OptionError: ``store`` is not text.
        NotSetUp: ``region`` is not set up.
        ConfigError: The settings cannot be read.
    """
    options = current_options({"store": store or None})
    if store:
        return [place_at(store, options)]
    if region is not None:
        return [_bucket_of(deployment_of(region), options)]
    return places_of(options)


def places_of(options: Options) -> list[StorePlace]:
    """The store of these options, then the buckets of all regions that are set up.

    Raises:
        ConfigError: The settings cannot be read.
    """
    usual = place_at(options.store or default_store_url(), options)
    buckets = [_bucket_of(one, options) for one in load_deployments()]
    return [usual, *(place for place in buckets if place.url != usual.url)]


def _bucket_of(deployment: Deployment, options: Options, url: str | None = None) -> StorePlace:
    profile = options.profile or deployment.usual_profile
    return StorePlace(url or f"s3://{deployment.bucket}", deployment.region, profile, set_up=True)
