"""Processes of this machine: start them detached, know them again in spite of reused pids, signal them."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = [
    "Seen",
    "boot_id",
    "exit_reason",
    "host_name",
    "kill",
    "kill_child",
    "kill_group",
    "look",
    "reap",
    "spawn",
    "terminate",
]

# Fields of /proc/<pid>/stat counted after the command name: proc(5) numbers them 3 and 22.
_STAT_STATE, _STAT_START = 0, 19


class Seen(NamedTuple):
    """A process as the system shows it now."""

    create_time: float
    state: Literal["running", "frozen", "zombie"]


def look(pid: int) -> Seen | None:
    """The process that has this pid now, or None.

    On Linux the time of creation counts from boot: unlike the time of day it does not jump when the clock is
    set, for instance after a laptop slept. It is meaningful together with :func:`boot_id`.
    """
    return _look_in_proc(pid) if sys.platform == "linux" else _look_with_psutil(pid)


def _look_in_proc(pid: int) -> Seen | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(b")") + 1 :].split()
    state = fields[_STAT_STATE]
    return Seen(
        int(fields[_STAT_START]) / os.sysconf("SC_CLK_TCK"),
        "zombie" if state in b"ZXx" else "frozen" if state in b"Tt" else "running",
    )


def _look_with_psutil(pid: int) -> Seen | None:
    import psutil

    try:
        process = psutil.Process(pid)
        status = process.status()
        create_time = float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return Seen(create_time, "zombie")
    return Seen(create_time, "frozen" if status == psutil.STATUS_STOPPED else "running")


@functools.cache
def boot_id() -> str:
    """What tells this run of this machine from all others; empty where the system has no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def host_name() -> str:
    """The machine's name."""
    return os.uname().nodename


class _Detached(subprocess.Popen[bytes]):
    """A child that may outlive us; by default dropping the handle of a running child warns."""

    def __del__(self) -> None:
        pass


def spawn(command: Sequence[str], *, log_fd: int, cwd: str | None, env: Mapping[str, str]) -> int:
    """Start a command in a session and process group of its own, so that Ctrl-C and hang-ups pass it by.

    Args:
        command: Program and arguments.
        log_fd: Open file that takes its output and errors.
        cwd: Folder to start in; None for ours.
        env: Variables on top of ours.

    Returns:
        Its pid, which is also the id of its group.

    Raises:
        OSError: It could not be started.
    """
    return _Detached(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env={**os.environ, **env},
        close_fds=True,
        start_new_session=True,
    ).pid


def reap(pid: int) -> int | None:
    """The exit code of an ended child of ours, negative for a signal; None if it is not ours to ask.

    Only for pids whose time of creation was just compared: a stranger's child cannot be reaped anyway, but
    another child of ours could.
    """
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if reaped == pid else None


def terminate(pid: int) -> None:
    """Ask a process to end; a frozen one is woken so that it can hear."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """End a process by force, frozen or not, with all that it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    kill_group(pid)


def kill_child(pid: int) -> bool:
    """End a child that was started just now, by force; call again until it says that the child is gone.

    No time of creation is needed: while a child is not reaped its pid cannot become another one's.
    """
    try:
        reaped, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    if reaped == pid:
        kill_group(pid)
        return True
    kill(pid)
    return False


def kill_group(pid: int) -> None:
    """End what is left of the group that :func:`spawn` gave to ``pid``.

    The system hands out no pid that a group still bears, so this is safe while the process is there, as a
    zombie at least, and just after it was seen.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of zombies
        os.killpg(pid, signal.SIGKILL)


def exit_reason(exit_code: int) -> str:
    """An exit code in words."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
