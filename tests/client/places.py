"""Where the tests of clients run."""

CLOUD = {"fargate": "FARGATE", "ec2": "EC2"}
"""Kinds of places whose workers are tasks of a simulated AWS account, and their launch types."""
EVERYWHERE = ["folder", "s3", *CLOUD]
"""All kinds: workers of this machine on a folder store and on S3, then those of the cloud."""
USUAL = ["folder", *CLOUD]
"""Where a test runs that does not say more."""
