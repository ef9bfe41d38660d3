"""Providers by name: the built-in ones, then those that other distributions register."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starburst.compute.base import Provider
from starburst.errors import ProviderError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "load_provider"]

ENTRY_POINT_GROUP = "starburst.providers"

# Looked up first: that needs no scan of the installed distributions, which takes longer than the import.
_BUILT_IN = {
    "LOCAL": "starburst.compute.local:LocalProvider",
    "FARGATE": "starburst.compute.ecs:FargateProvider",
    "EC2": "starburst.compute.ec2:Ec2Provider",
}


def load_provider(name: str, deployment: Mapping[str, Any] | None = None) -> Provider:
    """The provider of that name, with its default settings.

    Args:
        name: A built-in name or one registered under the entry point group ``starburst.providers``;
            upper and lower case are the same.
        deployment: What a session's manifest keeps for it, to look after that session.

    Raises:
        ProviderError: There is no such provider, or it cannot be loaded; others are not touched.
    """
    wanted = name.upper()
    if target := _BUILT_IN.get(wanted):
        return _attached(_make(name, pkgutil.resolve_name(target)), deployment)
    registered = _registered()
    if (entry_point := registered.get(wanted)) is None:
        known = ", ".join(sorted({*_BUILT_IN, *registered}))
        raise ProviderError(
            f"There is no provider {name!r}.", hint=f"Use one of: {known}; others come with their packages."
        )
    try:
        factory = entry_point.load()
    except Exception as error:
        raise ProviderError(
            f"Provider {name!r} ({entry_point.value}) cannot be imported: {error!r}.",
            hint="Reinstall or update the package that brings it.",
        ) from error
    return _attached(_make(name, factory), deployment)


def _attached(provider: Provider, deployment: Mapping[str, Any] | None) -> Provider:
    if deployment is not None:
        provider.attach(deployment)
    return provider


def _registered() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name.upper(): point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _make(name: str, factory: object) -> Provider:
    if not callable(factory):
        raise ProviderError(f"Provider {name!r} is registered as {factory!r}, which cannot be called.")
    try:
        provider = factory()
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(f"Provider {name!r} cannot be set up: {error!r}.") from error
    if not isinstance(provider, Provider):
        raise ProviderError(
            f"Provider {name!r} is a {type(provider).__name__}, which lacks methods of a provider.",
            hint="Compare it with starburst.compute.Provider; starburst.testing has a contract test for it.",
        )
    return provider
