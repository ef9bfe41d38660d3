"""Trivial functions that are run remotely; a module of their own so that every contender can import them.

Nothing heavy is imported here: a worker that runs only these shall not pay for numpy.
"""

from __future__ import annotations

import time


def noop(item: int) -> int:
    """Nothing: what is left is the cost of the system."""
    return item


def sleep_1s(item: int) -> int:
    """One second of waiting."""
    time.sleep(1.0)
    return item
