"""Parallel Python on your own AWS account, or on this machine.

    import starburst

    results = starburst.map(simulate, range(10_000), workers=50)

Everything public is here and is loaded when it is first used, so that ``import starburst`` costs nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from starburst._version import __version__

if TYPE_CHECKING:
    from starburst.client.executor import Executor
    from starburst.client.listing import SessionSummary, list_sessions
    from starburst.client.mapping import imap, imap_unordered, starmap
    from starburst.client.mapping import map_ as map  # noqa: A004 - the name says what it does
    from starburst.client.opening import attach, session
    from starburst.client.plan import plan
    from starburst.client.session import Session
    from starburst.client.status import SessionStatus
    from starburst.errors import (
        AccessDenied,
        CloudError,
        CloudUnavailable,
        CollectTimeout,
        ConfigError,
        CorruptObject,
        CredentialsError,
        IncompatibleVersion,
        InvalidStoreURL,
        NotSetUp,
        ObjectNotFound,
        OptionError,
        PermissionDenied,
        ProviderError,
        QuotaExceeded,
        SerializationError,
        SessionEnded,
        SessionError,
        SessionNotFound,
        StarburstError,
        StoreError,
        StoreFull,
        StoreUnavailable,
        TaskCancelled,
        TaskError,
        TaskFailed,
        TaskTimeout,
        WorkerLost,
    )
    from starburst.ops.setup import SetupPlan, setup
    from starburst.ops.teardown import TeardownPlan, teardown
    from starburst.options import Options

_CLIENT = {
    "Executor": "executor",
    "Session": "session",
    "SessionStatus": "status",
    "SessionSummary": "listing",
    "attach": "opening",
    "imap": "mapping",
    "imap_unordered": "mapping",
    "list_sessions": "listing",
    "map": "mapping",
    "plan": "plan",
    "session": "opening",
    "starmap": "mapping",
}
_OPS = {"SetupPlan": "setup", "TeardownPlan": "teardown", "setup": "setup", "teardown": "teardown"}

__all__ = [
    "AccessDenied",
    "CloudError",
    "CloudUnavailable",
    "CollectTimeout",
    "ConfigError",
    "CorruptObject",
    "CredentialsError",
    "Executor",
    "IncompatibleVersion",
    "InvalidStoreURL",
    "NotSetUp",
    "ObjectNotFound",
    "OptionError",
    "Options",
    "PermissionDenied",
    "ProviderError",
    "QuotaExceeded",
    "SerializationError",
    "Session",
    "SessionEnded",
    "SessionError",
    "SessionNotFound",
    "SessionStatus",
    "SessionSummary",
    "SetupPlan",
    "StarburstError",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskTimeout",
    "TeardownPlan",
    "WorkerLost",
    "__version__",
    "attach",
    "imap",
    "imap_unordered",
    "list_sessions",
    "map",
    "plan",
    "session",
    "setup",
    "starmap",
    "teardown",
]


if not TYPE_CHECKING:  # a checker that saw this would take any name for a good one

    def __getattr__(name: str) -> Any:
        """Load a public name when it is first asked for."""
        import importlib

        if name not in __all__:
            raise AttributeError(f"module 'starburst' has no attribute {name!r}")
        if name == "Options":
            found: Any = importlib.import_module("starburst.options").Options
        elif name in _CLIENT:
            _install_display()
            module = importlib.import_module(f"starburst.client.{_CLIENT[name]}")
            found = getattr(module, "map_" if name == "map" else name)
        elif name in _OPS:
            found = getattr(importlib.import_module(f"starburst.ops.{_OPS[name]}"), name)
        else:
            found = getattr(importlib.import_module("starburst.errors"), name)
        globals()[name] = found
        return found


@functools.cache
def _install_display() -> None:
    """Give the client its display, once: it does not know the layer above it."""
    import importlib

    display = importlib.import_module("starburst.ui.progress")
    importlib.import_module("starburst.client.progress").set_renderer(display.open_sink)
    steps = importlib.import_module("starburst.ui.steps")
    importlib.import_module("starburst.environment.steps").set_steps_display(steps.open_steps)


def __dir__() -> list[str]:
    return sorted(__all__)
