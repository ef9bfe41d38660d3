"""The agent's side of a runner: start it, give it jobs, learn how it died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starburst.protocol.results import Run
from starburst.worker import ipc
from starburst.worker.page import Page

__all__ = ["Crash", "RunnerLauncher", "RunnerPort", "RunnerProcess", "describe_exit"]

Buffer = bytes | bytearray | memoryview
OnRun = Callable[[Run], None]
Locate = Callable[[str], Awaitable[str]]
_RAW_TAIL_BYTES = 8_000
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Crash:
    """How a runner died.

    Attributes:
        task: The task that it was running, or -1.
        reason: Exit code or signal, in words.
        output: What was printed last outside Python's streams, such as a fatal error's stack.
    """

    task: int
    reason: str
    output: str


class RunnerPort(Protocol):
    """What the agent needs of a runner; the simulation has one of its own."""

    async def run(self, job: ipc.Job, frame: Buffer, on_run: OnRun) -> Crash | None:
        """Run a job; ``on_run`` gets finished tasks in order. None when it ended in order."""
        ...

    async def use_code(self, folders: Sequence[str]) -> None:
        """Import the user's modules from these folders, before those of installed packages."""
        ...

    async def give_function(self, sha256: str, data: Buffer) -> None:
        """Make a function known before its first job."""
        ...

    async def trim(self, job: int, end: int) -> int:
        """Ask the job to stop before task ``end``; the task it will stop before, or -1 if it is over."""
        ...

    def current(self) -> tuple[int, float]:
        """The running task, or -1, and when it started (monotonic seconds)."""
        ...

    def kill(self, why: str) -> None:
        """End it at once; :meth:`run` then returns a crash with ``why`` as its reason."""
        ...

    def memory_bytes(self) -> int:
        """Memory that it holds."""
        ...

    async def close(self) -> None:
        """End it and wait for it."""
        ...


RunnerLauncher = Callable[[Locate], Awaitable[RunnerPort]]


class RunnerProcess:
    """A runner in a process of its own.

    Args:
        process: The process.
        sock: This side of the socket pair.
        spool: Where large frames come in.
        page: The shared page.
        raw: The file into which descriptors 1 and 2 of the process go.
        locate: Gives the file of a large object.
    """

    def __init__(
        self,
        *,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        spool: ipc.Spool,
        page: Page,
        raw: tempfile._TemporaryFileWrapper[bytes],
        locate: Locate,
    ) -> None:
        self._process = process
        self._sock = sock
        self._spool = spool
        self._page = page
        self._raw = raw
        self._locate = locate
        self._killed = ""
        self._sending = asyncio.Lock()
        self._on_run: OnRun = lambda _: None
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Crash | None] = loop.create_future()
        self._trimmed: asyncio.Future[int] = loop.create_future()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._background: set[asyncio.Task[None]] = set()
        self._reader = loop.create_task(self._read())
        self._watcher = loop.create_task(self._watch())

    @classmethod
    async def start(cls, locate: Locate, *, sys_path: Sequence[str] = (), log_fd: int = 2) -> RunnerProcess:
        """Start a process and wait until it is ready.

        Raises:
            OSError: It could not be started or died at once.
        """
        ours, theirs = socket.socketpair()
        spool, their_spool = socket.socketpair(type=socket.SOCK_DGRAM)
        page = Page()
        raw = tempfile.NamedTemporaryFile(prefix="starburst-runner-")  # noqa: SIM115 - closed with the runner
        # What our own folder holds is as little a runner's to import as it is ours.
        command = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "starburst.worker.runner"]
        log = os.dup(log_fd)  # descriptor 2 itself becomes the raw file over there
        fds = (theirs.fileno(), their_spool.fileno(), page.fd, log)
        process = await asyncio.create_subprocess_exec(
            *command,
            *map(str, fds),
            pass_fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=raw.fileno(),
            stderr=raw.fileno(),
            process_group=0,
        )
        theirs.close()
        their_spool.close()
        os.close(log)
        ours.settimeout(0.0)
        runner = cls(process=process, sock=ours, spool=ipc.Spool(spool), page=page, raw=raw, locate=locate)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await runner._ready
        except (EOFError, TimeoutError) as error:
            said = runner.raw_tail()
            await runner.close()
            raise OSError(f"the runner process did not start: {said}") from error
        await runner._send(ipc.Setup(sys_path=tuple(sys_path)))
        return runner

    async def use_code(self, folders: Sequence[str]) -> None:
        """Import the user's modules from these folders; see :class:`RunnerPort`."""
        with contextlib.suppress(OSError):
            await self._send(ipc.UseCode(folders=tuple(folders)))

    async def give_function(self, sha256: str, data: Buffer) -> None:
        """Make a function known before its first job."""
        with contextlib.suppress(OSError):
            await self._send(ipc.FunctionReady(sha256=sha256), [data])

    async def run(self, job: ipc.Job, frame: Buffer, on_run: OnRun) -> Crash | None:
        """Run a job; see :class:`RunnerPort`."""
        self._on_run = on_run
        self._over = asyncio.get_running_loop().create_future()
        with contextlib.suppress(OSError):
            await self._send(job, [frame])
        if self._reader.done() and not self._over.done():
            self._over.set_result(await self._crash())
        return await self._over

    async def trim(self, job: int, end: int) -> int:
        """Ask the job to stop before task ``end``; see :class:`RunnerPort`."""
        self._trimmed = asyncio.get_running_loop().create_future()
        with contextlib.suppress(OSError):
            await self._send(ipc.Trim(job=job, end=end))
            if not self._reader.done():
                return await self._trimmed
        return -1

    def current(self) -> tuple[int, float]:
        """The running task, or -1, and when it started."""
        return self._page.read()

    def kill(self, why: str) -> None:
        """End the process and those that its tasks started."""
        self._killed = self._killed or why
        self._signal(signal.SIGKILL)

    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def raw_tail(self) -> str:
        """The last bytes that went to the descriptors 1 and 2 themselves."""
        self._raw.seek(0, os.SEEK_END)
        self._raw.seek(max(0, self._raw.tell() - _RAW_TAIL_BYTES))
        return self._raw.read().decode(errors="replace")

    async def close(self) -> None:
        """End the process and release what belongs to it."""
        self._signal(signal.SIGKILL)
        await self._process.wait()
        tasks = (self._reader, self._watcher, *self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()
        self._spool.close()
        with contextlib.suppress(OSError):
            self._page.close()
        self._raw.close()

    async def _watch(self) -> None:
        """When the process is gone, end the reading behind what it sent.

        The end of the socket alone may not come: a process that a task has forked may hold it open.
        """
        await self._process.wait()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _read(self) -> None:
        """Take messages until the process is gone."""
        try:
            while True:
                self._take(*await ipc.areceive(self._sock))
        except (EOFError, OSError):
            if not self._ready.done():
                self._ready.set_exception(EOFError())
            if not self._trimmed.done():
                self._trimmed.set_result(-1)
            if not self._over.done():
                self._over.set_result(await self._crash())

    def _take(self, message: ipc.Message, frames: list[Buffer]) -> None:
        match message:
            case ipc.Ready():
                self._ready.set_result(None)
            case ipc.Progress():
                self._spool.take(frames, message.spooled)
                if message.ok or message.failed:
                    self._on_run(_run_of(message, frames))
                if message.final:
                    self._over.set_result(None)
            case ipc.Need(sha256=sha256):
                self._spawn(self._answer(sha256))
            case ipc.Trimmed(end=end) if not self._trimmed.done():
                self._trimmed.set_result(end)

    async def _crash(self) -> Crash:
        task, _ = self._page.read()
        code = await self._process.wait()
        self._signal(signal.SIGKILL)  # whatever its tasks had started
        return Crash(task, self._killed or describe_exit(code), self.raw_tail())

    async def _answer(self, sha256: str) -> None:
        try:
            answer = ipc.ObjectReady(sha256=sha256, path=await self._locate(sha256))
        except Exception as error:  # noqa: BLE001 - the task fails with it
            answer = ipc.ObjectReady(sha256=sha256, error=str(error) or type(error).__name__)
        with contextlib.suppress(OSError):
            await self._send(answer)

    async def _send(self, message: ipc.Message, frames: Sequence[Buffer] = ()) -> None:
        loop = asyncio.get_running_loop()
        async with self._sending:
            for buffer in ipc.encode(message, frames):
                await loop.sock_sendall(self._sock, buffer)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def describe_exit(code: int) -> str:
    """An exit code as subprocess gives it, in words."""
    if code >= 0:
        return f"the process left with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = {
        "SIGKILL": "killed from outside, most often because memory ran out",
        "SIGSEGV": "segmentation fault",
        "SIGABRT": "aborted itself",
        "SIGBUS": "bus error",
        "SIGFPE": "arithmetic fault",
        "SIGILL": "illegal instruction",
    }.get(name, "killed")
    return f"{why} ({name})"


def _run_of(message: ipc.Progress, frames: list[Buffer]) -> Run:
    return Run(
        segments=list(message.segments),
        frames=frames,
        ok=message.ok,
        failed=message.failed,
        task_s=message.task_s,
        retried=message.retried,
    )
