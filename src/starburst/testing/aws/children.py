"""Child processes of the simulator: their output, their end, and that nothing of them stays behind.

One thread waits for all of them. A container's processes end with its first one; so do the descendants here,
also those in sessions of their own: the simulator is their subreaper and knows them by a mark in their environment.
A warden process ends what is left if the simulator itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Child", "Children"]

_log = logging.getLogger(__name__)

_READ_BYTES = 1 << 16
_LONGEST_LINE = 1 << 18  # CloudWatch Logs' limit of one event
_POLL_S = 0.05
_SET_CHILD_SUBREAPER = 36

# Keeps the list of process groups, and ends them when its standard input is closed, which a dead parent's is.
_WARDEN = """
all=" "
while read -r verb group; do
  case $verb in
    +) all="$all$group ";;
    -) all="${all%% "$group" *} ${all#* "$group" }";;
  esac
done
for group in $all; do kill -9 "-$group"; done 2>/dev/null
"""


@dataclass(slots=True, eq=False)
class Child:
    """One child process that leads a session of its own.

    Attributes:
        process: The process.
        mark: What the environment of all its descendants contains; empty if they need not be found.
        on_lines: Gets the lines it prints, without their ends.
        on_exit: Gets its exit code once all its descendants are dead; negative for a signal.
    """

    process: subprocess.Popen[bytes]
    mark: bytes
    on_lines: Callable[[list[str]], None]
    on_exit: Callable[[int], None]
    rest: bytes = b""
    pidfd: int = -1
    ended: bool = field(default=False)

    def signal(self, number: int) -> None:
        """Send a signal to the first process, as container engines do."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group; what is in other groups follows when the first process is gone."""
        if not self.ended:
            _kill_group(self.process.pid)


class Children:
    """All child processes that run commands of users.

    Args:
        adopt: Become the parent of their orphans, so that those can be found and ended. Container engines watch
            over their own, and wait in vain for a process that somebody else was to reap.
    """

    def __init__(self, *, adopt: bool = True) -> None:
        self._selector = selectors.DefaultSelector()
        self._alive: dict[int, Child] = {}
        self._sessions: set[int] = set()
        self._new: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._ended = threading.Event()
        self._has_pidfd = hasattr(os, "pidfd_open")
        if adopt and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._warden = subprocess.Popen(
            ["sh", "-c", _WARDEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        self._thread = threading.Thread(target=self._run, name="children", daemon=True)
        self._thread.start()

    def start(
        self,
        command: list[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        mark: str,
        on_lines: Callable[[list[str]], None],
        on_exit: Callable[[int], None],
    ) -> Child:
        """Start a command; both callbacks come from the one thread that serves all children.

        Raises:
            OSError: It cannot be started.
        """
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.guard(process.pid)
        child = Child(process, mark.encode(), on_lines, on_exit)
        self._new.put(child)
        os.write(self._wake_write, b"x")
        return child

    def guard(self, group: int) -> None:
        """End this process group if the simulator is killed."""
        self._tell_warden(f"+ {group}\n")

    def stop(self) -> None:
        """Kill all of them and return when they are gone."""
        self._ended.set()
        os.write(self._wake_write, b"x")
        self._thread.join()
        with contextlib.suppress(BrokenPipeError):
            if self._warden.stdin is not None:
                self._warden.stdin.close()
        self._warden.wait()

    def _tell_warden(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self._warden.stdin is not None
            self._warden.stdin.write(line.encode())

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - the other children are still to be served
                _log.exception("serving the children failed")
        self._adopt()
        for child in list(self._alive.values()):
            child.kill()
        for child in list(self._alive.values()):
            self._finish(child)

    def _turn(self) -> None:
        ready = self._selector.select(None if self._has_pidfd else _POLL_S)
        ended = [] if self._has_pidfd else list(self._alive.values())
        for key, _ in ready:
            if key.fd == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, _READ_BYTES)
                self._adopt()
            elif key.fd == key.data.pidfd:
                ended.append(key.data)
            else:
                self._read(key.data)
        for child in ended:
            if self._has_pidfd or child.process.poll() is not None:
                self._finish(child)

    def _adopt(self) -> None:
        while not self._new.empty():
            child = self._new.get()
            self._alive[child.process.pid] = child
            self._sessions.add(child.process.pid)
            assert child.process.stdout is not None
            os.set_blocking(child.process.stdout.fileno(), False)
            self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
            if self._has_pidfd:
                child.pidfd = os.pidfd_open(child.process.pid)
                self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _read(self, child: Child) -> bool:
        """Pass on whole lines; False when there is nothing more to read just now."""
        assert child.process.stdout is not None
        try:
            data = os.read(child.process.stdout.fileno(), _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(child.process.stdout)  # closed by the child, which may go on
            child.process.stdout.close()
            child.process.stdout = None
            return False
        *lines, child.rest = (child.rest + data).split(b"\n")
        if len(child.rest) > _LONGEST_LINE:
            lines.append(child.rest)
            child.rest = b""
        if lines:
            child.on_lines([line.decode(errors="replace") for line in lines])
        return True

    def _finish(self, child: Child) -> None:
        pid = child.process.pid
        _kill_group(pid)  # before its first process is reaped: till then the number is not given away
        child.ended = True
        child.process.wait()
        del self._alive[pid]
        self._end_descendants(child)
        if child.process.stdout is not None:
            while self._read(child):
                pass
        if child.rest:
            child.on_lines([child.rest.decode(errors="replace")])
        if child.process.stdout is not None:
            self._selector.unregister(child.process.stdout)
            child.process.stdout.close()
        if child.pidfd >= 0:
            self._selector.unregister(child.pidfd)
            os.close(child.pidfd)
        self._tell_warden(f"- {pid}\n")
        child.on_exit(child.process.returncode)

    def _end_descendants(self, child: Child) -> None:
        """Kill and reap what the dead child left to us, however deep: killing one may bring its children."""
        for _ in range(100):
            found = [pid for pid in _orphans() if pid not in self._alive and self._belongs(pid, child)]
            for pid in found:
                _kill_group(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in found:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            if not found:
                return

    def _belongs(self, pid: int, child: Child) -> bool:
        try:
            if os.getsid(pid) == child.process.pid:
                return True
            return bool(child.mark) and child.mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _orphans() -> Iterable[int]:
    """All children of this process, where the kernel tells."""
    lists = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            lists.append(map(int, path.read_text().split()))
    return itertools.chain.from_iterable(lists)
