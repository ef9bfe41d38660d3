"""Benchmarks: starburst beside its rivals, in the same run. ``make bench`` or ``python -m bench --help``."""
