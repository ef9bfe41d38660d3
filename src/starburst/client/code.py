"""The program's own modules, as each submission sends them: an archive for workers elsewhere, a mark for those here."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starburst.environment.code_roots import find_roots, loaded_modules
from starburst.errors import EnvironmentBuildError

if TYPE_CHECKING:  # on this machine nothing travels: these and what they import would only cost time
    from starburst.environment.code import CodeArchive, CodeTree
    from starburst.environment.preflight import Missing

__all__ = ["Code", "OwnCode", "check_modules"]

_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class Code:
    """What a submission says of the program's own code.

    Attributes:
        layer: Name of its archive in the store; empty if workers use the folders themselves.
        edition: Changes when a module that the program has imported is written anew; empty before.
        archive: The archive of that name.
    """

    layer: str = ""
    edition: str = ""
    archive: CodeArchive | None = None


class OwnCode:
    """The program's own code, looked at anew for each submission, read only when it has changed.

    Args:
        travels: Whether an archive is needed; else only the edition is told.

    Attributes:
        provided: The packages that workers have: then a function that needs others is refused. None if that is not
            known.
        how_to_add: What a person does to have one more package there; ``{}`` stands for its name.
    """

    def __init__(self, *, travels: bool) -> None:
        self.provided: frozenset[str] | None = None
        self.how_to_add = "uv add {}"
        self._travels = travels
        self._lock = threading.Lock()
        self._known: tuple[CodeTree, CodeArchive] | None = None

    async def look(self, function: bytes) -> Code:
        """What to say in a submission of this pickled function.

        Raises:
            EnvironmentBuildError: The code is too large, cannot be read, or needs modules that workers do not have.
        """
        if not self._travels:
            return Code(edition=_editions.current())
        return await asyncio.to_thread(self._look, function)

    def _look(self, function: bytes) -> Code:
        from starburst.environment.code import archive, collect
        from starburst.environment.preflight import needed_modules

        with self._lock:
            names = needed_modules(function)
            tree = collect(find_roots(), loaded=loaded_modules(), names=names)
            for link in tree.outside:
                if link not in _told:
                    _told.add(link)
                    warnings.warn(
                        f"{link} leads out of the project: workers do not get what is there", stacklevel=1
                    )
            if self.provided is not None:
                check_modules(function, self.provided, tree, how_to_add=self.how_to_add)
            if not tree.files:
                return Code()
            if self._known is None or self._known[0] != tree:
                self._known = tree, archive(tree)
            packed = self._known[1]
            return Code(layer=packed.sha256, archive=packed)


def check_modules(
    function: bytes, provided: frozenset[str], tree: CodeTree | None, *, how_to_add: str = "uv add {}"
) -> None:
    """Refuse a function that needs modules which workers do not have.

    Args:
        function: The pickled function.
        provided: The packages that workers have.
        tree: The code that travels.
        how_to_add: How a package is added to theirs; ``{}`` stands for its name.

    Raises:
        EnvironmentBuildError: With each module and its fix.
    """
    from starburst.environment.preflight import missing, needed_modules

    found = missing(needed_modules(function, tree), provided, tree, how_to_add=how_to_add)
    if found:
        raise EnvironmentBuildError(
            f"workers would not find {_and(found)}, which this function needs: nothing was started",
            hint="; ".join(dict.fromkeys(each.fix for each in found)),
        )


def _and(found: list[Missing]) -> str:
    return ", ".join(
        each.module if each.module == each.distribution else f"{each.module} (package {each.distribution})"
        for each in found
    )


class _Editions:
    """Notices that files of imported modules are written anew.

    A worker on this machine imports from the same folders, once; what it has imported must not outlive its file.
    Modules that the program has not imported itself are not looked at.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int]] = {}
        self._changed: dict[str, tuple[int, int]] = {}

    def current(self) -> str:
        """The present edition; empty as long as nothing has changed since it was first asked for."""
        with self._lock:
            for file in loaded_modules().values():
                try:
                    found = os.stat(file)  # noqa: PTH116
                except OSError:
                    continue
                now = (found.st_mtime_ns, found.st_size)
                if self._seen.setdefault(file, now) != now:
                    self._seen[file] = self._changed[file] = now
            if not self._changed:
                return ""
            return hashlib.sha256(repr(sorted(self._changed.items())).encode()).hexdigest()[:16]


_editions = _Editions()
