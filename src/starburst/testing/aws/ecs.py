"""Skeleton."""

from __future__ import annotations

from starburst.testing.aws.world import World


def install(world: World) -> None:
    """Nothing yet."""
