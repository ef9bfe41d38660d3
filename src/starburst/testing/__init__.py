"""Tools for tests of code that builds on starburst: faulty stores, and contracts for stores and providers.

The contracts are in modules of their own (``starburst.testing.contracts`` …), since they need pytest.
"""

from __future__ import annotations

from starburst.testing.stores import Fault, FaultyStore, Script, Verb

__all__ = ["Fault", "FaultyStore", "Script", "Verb"]
