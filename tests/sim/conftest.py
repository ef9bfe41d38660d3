"""Fixtures for tests of the simulated AWS."""

from ec2_capacity import capacity

from simulated import account, aws

__all__ = ["account", "aws", "capacity"]
