"""Tools for tests of code that builds on starburst: a manual clock, faulty stores, contracts.

The contracts for stores and providers are in modules of their own (``starburst.testing.contracts`` …), since they
need pytest.
"""

from __future__ import annotations

from starburst.testing.clock import ManualClock
from starburst.testing.stores import Fault, FaultyStore, Script, Verb

__all__ = ["Fault", "FaultyStore", "ManualClock", "Script", "Verb"]
