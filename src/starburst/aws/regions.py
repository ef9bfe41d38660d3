"""Regions by name, so that a typing mistake is told from a network that is down."""

from __future__ import annotations

import difflib

from starburst.errors import OptionError

__all__ = ["check_region"]


def check_region(name: str) -> None:
    """Refuse what is not a region; asks nobody.

    Raises:
        OptionError: The installed boto3 knows no such region with ECS in it.
    """
    import boto3  # type: ignore[import-untyped]

    session = boto3.Session(region_name="us-east-1")
    known = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ecs", partition)
    ]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        raise OptionError(
            f"{name!r} is not a region of AWS, or has no ECS",
            hint=f"{guess}`aws ec2 describe-regions` lists them; for a new one: pip install --upgrade boto3",
        )
