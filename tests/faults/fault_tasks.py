"""What the workers run in these tests; nothing but the standard library, so that it loads at once."""

import contextlib
import ctypes
import os
import pathlib
import signal
import sys
import threading
import time


def square(i):
    return i * i


def slow_square(i, seconds=0.01):
    time.sleep(seconds)
    return i * i


def square_behind_gate(i, gate):
    """Waits until the file ``gate`` is there."""
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    return i * i


def gated(i, folder):
    """Passes at once, or waits for the gate of its own worker: file ``<name>-<i>``, where it leaves its sign too."""
    name = os.environ.get("CREW_MEMBER", "hired")
    pathlib.Path(folder, f"{name}-at-{i}").touch()
    while not (pathlib.Path(folder, f"{name}-{i}").exists() or pathlib.Path(folder, f"{name}-all").exists()):
        time.sleep(0.01)
    return i * i


def sleep_for_ever(i):
    while True:
        time.sleep(3600)


def block_of(i, size):
    return bytes([i % 256]) * size


def length(data, i):
    return len(data) + i


# ---- tasks that misbehave: number 3 does, the others are innocent ----


def leave(i):
    if i == 3:
        os._exit(7)
    return i * i


def segfault(i):
    if i == 3:
        ctypes.string_at(0)
    return i * i


def kill_itself(i):
    if i == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return i * i


def abort(i):
    if i == 3:
        os.abort()
    return i * i


def eat_memory(i):
    if i == 3:
        eaten = []
        while True:  # some 400 MB/s: the watch has time to see it
            eaten.append(os.urandom(4 * 2**20))
            time.sleep(0.01)
    return i * i


def recurse(i):
    def deeper(n):
        return deeper(n + 1) + 1

    return deeper(0) if i == 3 else i * i


def recurse_in_c(i):
    """Recursion that no limit of Python catches: the stack itself overflows."""
    if i == 3:
        sys.setrecursionlimit(10**9)
        threading.stack_size(512 * 1024)
        nested = None
        for _ in range(10**6):
            nested = (nested,)
        thread = threading.Thread(target=hash, args=(nested,))
        thread.start()
        thread.join()
        hash(nested)
    return i * i


def exit_politely(i):
    if i == 3:
        sys.exit("enough")
    return i * i


def interrupt(i):
    if i == 3:
        raise KeyboardInterrupt
    return i * i


def kill_agent(i):
    if i == 3:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return i * i


def ignore_sigterm_for_ever(i):
    if i == 3:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(3600)
    return i * i


def leave_a_thread(i):
    threading.Thread(target=sleep_for_ever, args=(i,), daemon=True).start()
    return i * i


def leave_a_lasting_thread(i):
    threading.Thread(target=sleep_for_ever, args=(i,)).start()
    return i * i


def fork_and_return(i):
    """The child returns from the task, too."""
    if i % 5 == 3 and os.fork() == 0:
        return -1
    return i * i


def fork_a_daemon_and_leave(i, pid_file):
    """The child holds all that it has inherited, and does not belong to the process group any more."""
    if i == 3:
        libc = ctypes.PyDLL(None)  # no hook of Python's sees it
        if (pid := libc.fork()) == 0:
            libc.setsid()
            libc.sleep(60)
            libc._exit(0)
        with pathlib.Path(pid_file).open("a") as file:
            file.write(f"{pid}\n")
        os._exit(7)
    return i * i


def use_a_process_pool(i):
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(square, range(i)))


def fork_and_terminate(i):
    """How the children ended that were told to right after they were forked."""
    import multiprocessing

    codes = set()
    for _ in range(50):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(5,))
        child.start()
        child.terminate()
        child.join()
        codes.add(child.exitcode)
    return codes


def flood(i):
    for line in range(20_000):
        print(f"task {i} line {line} " + "x" * 80)  # noqa: T201
    sys.stderr.write("y" * 2_000_000)
    os.write(1, b"z" * 2_000_000)
    os.write(2, b"z" * 2_000_000)
    if i == 3:
        raise ValueError("drowned")
    return i * i


def close_all_files(i):
    """Closes descriptors that are not its own."""
    if i == 3:
        os.closerange(3, 256)
    return i * i


def leave_every_fourth(i):
    if i % 4 == 3:
        os._exit(7)
    return i * i


def start_and_terminate(i):
    import subprocess

    with subprocess.Popen(["sleep", "60"]) as process:
        process.terminate()
        return process.wait(10)


def slow_block_of(i, size):
    time.sleep(0.05)
    return bytes([i % 256]) * size


def tagged(name, i):
    return f"{name}{i}"


def sign_and_sleep(i, folder, seconds):
    """Leaves a file at the start and another at the end."""
    pathlib.Path(folder, f"begun-{i}").touch()
    time.sleep(seconds)
    pathlib.Path(folder, f"ended-{i}").touch()
    return i * i
