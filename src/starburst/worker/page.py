"""A page of memory that a runner shares with its agent: which task it runs, and since when.

It outlives the runner, so that the agent can tell which task took the runner down.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

__all__ = ["Page"]

_TASK = struct.Struct("<qd")
_SIZE = 64


class Page:
    """The shared page.

    Args:
        fd: The file that both sides map; None makes a new one, whose descriptor is :attr:`fd`.
    """

    __slots__ = ("_map", "fd")

    def __init__(self, fd: int | None = None) -> None:
        new = fd is None
        if fd is None:
            with tempfile.TemporaryFile() as file:
                file.truncate(_SIZE)
                fd = os.dup(file.fileno())
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        if new:
            self.begin(-1, 0.0)

    def begin(self, task: int, since_s: float) -> None:
        """Task ``task`` starts at ``since_s`` of the machine's monotonic clock; -1: none runs."""
        _TASK.pack_into(self._map, 0, task, since_s)

    def read(self) -> tuple[int, float]:
        """The running task, or -1, and its start."""
        task, since_s = _TASK.unpack_from(self._map, 0)
        return task, since_s

    def close(self) -> None:
        """Release the mapping and the descriptor."""
        self._map.close()
        os.close(self.fd)
