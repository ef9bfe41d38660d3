"""Parallel Python on your own AWS account, or on this machine."""
