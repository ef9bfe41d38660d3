"""What tests of the client have run by workers; workers import this module by its name."""

import os
import sys
import time
from pathlib import Path


class TroubleError(Exception):
    """An exception with a state of its own."""

    def __init__(self, code, *, note=""):
        super().__init__(f"trouble {code}")
        self.code = code
        self.note = note


class NeedsTwoError(Exception):
    """Pickles, but cannot be unpickled: ``args`` does not fit ``__init__``."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def square(x):
    return x * x


def add(a, b, c=0):
    return a + b + c


def whoami(_=None):
    return os.getppid()


def nap(seconds, value=None):
    time.sleep(seconds)
    return value


def fail_at(i, bad=(3,)):
    if i in bad:
        sys.stdout.write(f"about to fail at {i}\n")
        sys.stderr.write("and to stderr\n")
        raise TroubleError(i, note="deep")
    return i


def fail_from(i):
    try:
        int("no number")
    except ValueError as error:
        raise TroubleError(i) from error


def fail_unportable(i):
    raise NeedsTwoError(1, 2)


def record(folder, name, value=None):
    """Leave a mark for each time that this was run."""
    descriptor = os.open(Path(folder) / str(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"x")
    os.close(descriptor)
    return name if value is None else value


def runs(folder, name):
    """How often a task of that name was run."""
    path = Path(folder) / str(name)
    return len(path.read_bytes()) if path.exists() else 0


def wait_for(path, timeout_s=30.0):
    """Hold a worker until a file is there."""
    deadline = time.monotonic() + timeout_s
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.01)
    return str(path)


def started_then_wait(mark, path):
    Path(mark).touch()
    return wait_for(path)


def flaky(folder, name, good_at):
    """Fails until it has been run ``good_at`` times."""
    record(folder, name)
    if runs(folder, name) < good_at:
        raise TroubleError(runs(folder, name))
    return runs(folder, name)
