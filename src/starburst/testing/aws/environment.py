"""Environment variables: what moto reads when it is imported, what clients need, what tasks get."""

from __future__ import annotations

import os
from pathlib import Path

from starburst.testing.aws.world import ACCESS_KEY, SECRET_KEY, SimOptions

__all__ = ["for_clients", "prepare"]


def prepare(options: SimOptions) -> None:
    """Set up the simulator's own process; before moto is imported."""
    for name in [each for each in os.environ if each.startswith(("AWS_", "MOTO_"))]:
        del os.environ[name]
    os.environ["MOTO_ACCOUNT_ID"] = options.account
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"


def for_clients(options: SimOptions, *, endpoint: str, s3_endpoint: str) -> dict[str, str]:
    """What a process needs in order to use the simulated account, and nothing of the user's own settings."""
    nowhere = str(Path(options.folder) / "no-such-file")
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": options.region,
        "AWS_DEFAULT_REGION": options.region,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
