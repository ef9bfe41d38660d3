"""Where what was once worked out is kept on this machine; all of it may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_path"]


def cache_path() -> Path:
    """The folder: ``STARBURST_CACHE_DIR``, else the system's usual one for caches."""
    if given := os.environ.get("STARBURST_CACHE_DIR"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("starburst"))
