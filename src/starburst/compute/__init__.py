"""Where workers run: the provider interface, the built-in providers, and how they are found by name."""

from starburst.compute.base import Launched, LaunchSpec, Place, Provider, ProviderStatus, WorkerState
from starburst.compute.registry import load_provider

__all__ = [
    "LaunchSpec",
    "Launched",
    "Place",
    "Provider",
    "ProviderStatus",
    "WorkerState",
    "load_provider",
]
