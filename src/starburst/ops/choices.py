"""What whoever sets up has chosen, and which account and region that is for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starburst.aws.bucket import check_bucket_name
from starburst.aws.clients import Aws
from starburst.aws.deployment import Deployment, load_deployments
from starburst.aws.loggroup import check_retention
from starburst.aws.names import bucket_name
from starburst.aws.regions import check_region
from starburst.config import load_settings
from starburst.errors import ConfigError, CredentialsError, OptionError

__all__ = ["DEFAULT_TYPES", "Choices", "names_of", "open_aws", "stored_deployment"]

DEFAULT_TYPES = ("c7g.xlarge",)
_POLICY_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}|aws):policy/.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What can be chosen; what is not, stays as it is, and is the default in a new set-up.

    Attributes:
        bucket: The bucket's name.
        fargate_only: No EC2 capacity.
        instance_types: EC2 types that get capacity now; others get it when they are first used.
        subnets: Where workers run, instead of the default VPC's public subnets.
        security_groups: Of workers, instead of one of ours.
        new_vpc: Make a VPC for workers.
        image: The workers' container image.
        permissions_boundary: Limits the roles.
        log_days: How long workers' output is kept.
        remote_build: Images can be built by AWS.
    """

    bucket: str | None = None
    fargate_only: bool | None = None
    instance_types: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    new_vpc: bool = False
    image: str | None = None
    permissions_boundary: str | None = None
    log_days: int | None = None
    remote_build: bool | None = None

    def __post_init__(self) -> None:
        if self.bucket is not None:
            check_bucket_name(self.bucket)
        if self.log_days is not None:
            check_retention(self.log_days)
        if self.fargate_only and self.instance_types:
            raise OptionError(
                "instance types are for EC2, and it is to be set up for Fargate only",
                hint="leave one of --fargate-only and --instance-types out",
            )
        if self.new_vpc and (self.subnets or self.security_groups):
            raise OptionError(
                "a new VPC has subnets and a security group of its own",
                hint="leave --new-vpc out, or --subnets and --security-groups",
            )
        if self.permissions_boundary is not None and not _POLICY_ARN.fullmatch(self.permissions_boundary):
            raise OptionError(
                f"{self.permissions_boundary!r} is not the ARN of a policy",
                hint="such as arn:aws:iam::123456789012:policy/boundary",
            )


def names_of(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names from ``"a,b"`` or a list of such; each once, in order."""
    parts = [given] if isinstance(given, str) else list(given or ())
    names = (name.strip() for part in parts for name in part.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def open_aws(region: str | None = None, profile: str | None = None) -> Aws:
    """AWS in the region that is meant: given, set, the environment's, the profile's, or the only one set up.

    Raises:
        OptionError: There is no such region.
        CredentialsError: None is set anywhere.
        ConfigError: The settings cannot be read.
    """
    settings = load_settings()
    profile = profile or settings.profile
    aws = Aws(region or settings.region, profile)
    try:
        name = aws.region
    except CredentialsError:
        known = load_deployments()
        if len(known) != 1:
            raise
        name = known[0].region
        aws = Aws(name, profile)
    check_region(name)
    stored = stored_deployment(name)
    if stored is not None and not profile and stored.usual_profile:
        aws = Aws(name, stored.usual_profile)
    return aws


def usual_bucket(stored: Deployment | None, account: str, region: str) -> str:
    """The bucket of an earlier set-up, or the one that a set-up would make."""
    return stored.bucket if stored else bucket_name(account, region)


def stored_deployment(region: str, account: str | None = None) -> Deployment | None:
    """What is stored of an earlier set-up of this region (and account); a file that cannot be read does not count."""
    try:
        known = load_deployments()
    except ConfigError:
        return None
    return next(
        (one for one in known if one.region == region and account in (None, one.account)),
        None,
    )
