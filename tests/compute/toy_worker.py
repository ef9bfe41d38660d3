"""A small real process in place of a worker: MODE NAME ORDINAL SLOTS. Only the standard library."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LIMIT_S = 120  # never outlives a broken test for long


def main() -> None:
    mode, name, *rest = sys.argv[1:]
    if mode == "exit3":
        sys.exit(3)
    if mode == "gated":
        limit = time.monotonic() + LIMIT_S
        while not Path(os.environ["TOY_GATE"]).exists() and time.monotonic() < limit:
            time.sleep(0.01)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, leave)
    if mode == "parent":
        child = subprocess.Popen([sys.executable, "-IS", __file__, "deaf", "child", "0", "0"])
        say(f"child {child.pid}")
    say(f"args {' '.join(rest)} cwd {Path.cwd()} extra {os.environ.get('TOY_EXTRA')} sid {os.getsid(0)}")
    say(f"ready {name}")
    time.sleep(LIMIT_S)


def say(line: str) -> None:
    # One write for a line, so that a process and its child do not mix theirs.
    os.write(1, f"{line}\n".encode())


def leave(signum: int, frame: object) -> None:
    say("bye")
    os._exit(0)


main()
