"""Fixtures for tests of the simulated AWS."""

from simulated import account, aws

__all__ = ["account", "aws"]
