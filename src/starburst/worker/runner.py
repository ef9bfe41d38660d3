"""The runner: a process that runs tasks and may crash, leak or be killed; its agent survives it.

Started by the agent as ``python -m starburst.worker.runner SOCKET_FD SPOOL_FD PAGE_FD LOG_FD``. The main thread runs
tasks. A second thread receives messages, so that a trim or the end of the agent is noticed while a task runs; a third
reports finished tasks while a long one runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import queue
import signal
import socket
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from starburst.container import in_ecs
from starburst.errors import StarburstError
from starburst.protocol.payload import CallBlock, is_large, load_function
from starburst.protocol.records import Failure
from starburst.protocol.results import Run
from starburst.worker import ipc
from starburst.worker.objects import ObjectFiles
from starburst.worker.output import TaskOutput, TaskStream
from starburst.worker.page import Page

__all__ = ["Runner", "main"]

_REPORT_S = 0.05
_PR_SET_PDEATHSIG = 1


class Runner:
    """Runs jobs, one after the other.

    Args:
        sock: To the agent.
        spool: For large frames to the agent.
        page: Shared with the agent.
        output: Where prints go.
    """

    def __init__(self, sock: socket.socket, spool: ipc.Spool, page: Page, output: TaskOutput) -> None:
        self._sock = sock
        self._spool = spool
        self._page = page
        self._output = output
        self._streams = (TaskStream(output, 1), TaskStream(output, 2))
        self._inbox: queue.SimpleQueue[tuple[ipc.Message, list[ipc.Buffer]]] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._functions: dict[str, Callable[..., Any] | BaseException] = {}
        self._objects = ObjectFiles(self._locate)
        self._answers: queue.SimpleQueue[ipc.ObjectReady] = queue.SimpleQueue()
        self._job = -1
        self._current = -1
        self._end = 0
        self._finished = threading.Lock()
        self._run = Run()
        self._values: list[Any] = []
        self._reported_at = 0.0
        self._busy = threading.Event()
        self._is_copy = False

    def run(self) -> None:
        """Serve until the agent closes the socket."""
        sys.stdout, sys.stderr = self._streams
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._report_during_long_tasks, daemon=True).start()
        self._send(ipc.Ready(pid=os.getpid()))
        while True:
            match self._inbox.get():
                case ipc.Setup(sys_path=paths), _:
                    sys.path.extend(path for path in paths if path not in sys.path)
                case ipc.UseCode(folders=folders), _:
                    _import_from(folders)
                case ipc.FunctionReady(sha256=sha256), frames:
                    self._functions[sha256] = self._load(frames[0])
                case ipc.Job() as job, frames:
                    self._run_job(job, frames[0])

    def _listen(self) -> None:
        """The second thread. Under the interpreter's lock, its writes and reads of the limits are in order."""
        try:
            while True:
                message, frames = ipc.receive(self._sock)
                if isinstance(message, ipc.Trim):
                    self._trim(message)
                elif isinstance(message, ipc.ObjectReady):
                    self._answers.put(message)
                else:
                    self._inbox.put((message, frames))
        except (EOFError, OSError):
            os._exit(0)

    def _trim(self, message: ipc.Trim) -> None:
        """First the limit, then the look at the task that runs; the main thread does it the other way round."""
        if message.job == self._job:
            end = min(message.end, self._end)
            self._end = end
            if self._current >= end:
                end = self._end = self._current + 1
        else:
            end = -1
        self._send(ipc.Trimmed(job=message.job, end=end))

    def _load(self, data: ipc.Buffer) -> Callable[..., Any] | BaseException:
        used: list[str] = []

        def resolve(sha256: str) -> Any:
            used.append(sha256)
            return self._objects.load(sha256)

        try:
            function = load_function(data, resolve)
        except BaseException as error:  # noqa: BLE001 - importing user code may raise anything
            return error
        if not used:
            return function

        # Each task gets its own view of the large objects that the function refers to, as of those among its arguments.
        def fresh(*args: Any, **kwargs: Any) -> Any:
            return load_function(data, self._objects.load)(*args, **kwargs)

        return fresh

    def _run_job(self, job: ipc.Job, frame: ipc.Buffer) -> None:
        function = self._functions[job.function]
        self._end = job.end
        self._current = job.start - 1
        self._job = job.job  # from here on it can be trimmed
        if isinstance(function, BaseException):
            for _ in range(job.start, job.end):
                failure = self._failure("load", function, "the function cannot be loaded here")
                self._run.add_failure(failure, function)
            self._report(final=True)
            return
        calls = CallBlock(job.layout, frame, job.count, self._objects.load)  # type: ignore[arg-type]
        self._reported_at = time.monotonic()
        self._busy.set()
        task = job.start
        while True:
            self._current = task
            if task >= self._end:
                break
            started = time.monotonic()
            self._page.begin(task, started)
            self._end_lines()
            self._output.begin(f"{job.batch:06d}-{task:08d}")
            outcome = self._run_task(job, function, calls, task - job.first)
            now = time.monotonic()
            task += 1
            with self._finished:
                self._run.task_s += now - started
                if type(outcome) is _Failed:
                    self._pickle_values()
                    self._run.add_failure(outcome.failure, outcome.error)
                else:
                    self._values.append(outcome)
            if now - self._reported_at > _REPORT_S or is_large(outcome):
                self._report(final=False)
        self._busy.clear()
        self._page.begin(-1, 0.0)
        self._end_lines()
        self._report(final=True)

    def _report_during_long_tasks(self) -> None:
        """The third thread: what is finished must not wait for a task that takes hours."""
        while True:
            self._busy.wait()
            time.sleep(2 * _REPORT_S)
            if time.monotonic() - self._reported_at > 2 * _REPORT_S and (self._values or self._run.count):
                self._report(final=False)

    def _run_task(self, job: ipc.Job, function: Callable[..., Any], calls: CallBlock, i: int) -> Any:
        for tries in range(job.retries + 1):
            try:
                args, kwargs = calls.call(i)
            except BaseException as error:  # noqa: BLE001 - loading user classes may raise anything
                return _Failed(self._failure("load", error, "its arguments cannot be loaded here"), error)
            try:
                value = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - SystemExit, too, fails the task only
                self._end_lines()
                if self._is_copy:
                    self._leave_copy(error)
                if tries < job.retries:
                    self._run.retried += 1
                    traceback.print_exc()
                    continue
                return _Failed(self._failure("raised", error, "", attempt=job.attempt + tries), error)
            if self._is_copy:
                self._leave_copy(None)
            return value
        raise AssertionError("unreachable: the last try returns")

    def become_copy(self) -> None:
        """A task has forked, and this is the child: it must neither answer for us nor keep our socket open."""
        self._is_copy = True
        self._sock.close()
        self._spool.close()

    def _leave_copy(self, error: BaseException | None) -> NoReturn:
        """A forked child has come back from the task; what it returns is of no use to anybody."""
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            code = int(error is not None)
            if error is not None:
                traceback.print_exception(error)
        self._end_lines()
        os._exit(code & 0xFF)

    def _pickle_values(self) -> None:
        """Pickle the values together, or one by one if one of them cannot be pickled."""
        if not self._values:
            return
        values, self._values = self._values, []
        try:
            self._run.add_values(values)
        except Exception:  # noqa: BLE001 - pickling runs user code
            for value in values:
                try:
                    self._run.add_values([value])
                except Exception as error:  # noqa: BLE001
                    kind = f"{type(value).__module__}.{type(value).__qualname__}"
                    why = f"it returned a {kind.removeprefix('builtins.')}, which cannot be pickled"
                    self._run.add_failure(self._failure("unpicklable", error, why))

    def _failure(self, kind: Any, error: BaseException, why: str, *, attempt: int = 1) -> Failure:
        said = f"{type(error).__name__}: {_text_of(error)}"
        try:
            text = "".join(traceback.format_exception(_without_our_frames(error)))
        except Exception:  # noqa: BLE001 - an exception's own code runs to show it
            text = said
        return Failure(
            kind=kind,
            message=_encodable(f"{why} ({said})" if why else said),
            type_name=type(error).__qualname__,
            traceback=_encodable(text),
            output=_encodable(self._output.tail()),
            host=socket.gethostname(),
            attempt=attempt,
            hint=_hint_for(error),
        )

    def _report(self, *, final: bool) -> None:
        with self._finished:
            self._pickle_values()
            run, self._run = self._run, Run()
            self._reported_at = time.monotonic()
            message = ipc.Progress(
                job=self._job,
                segments=tuple(run.segments),
                ok=run.ok,
                failed=run.failed,
                task_s=run.task_s,
                retried=run.retried,
                final=final,
                spooled=self._spool.put(run.frames),
            )
            self._send(message, run.frames)

    def _end_lines(self) -> None:
        for stream in self._streams:
            stream.end_task()

    def _locate(self, sha256: str) -> str:
        self._send(ipc.Need(sha256=sha256))
        answer = self._answers.get()
        if answer.error:
            raise StarburstError(f"the large argument {sha256[:12]}… cannot be had: {answer.error}")
        return answer.path

    def _send(self, message: ipc.Message, frames: Any = ()) -> None:
        with self._sending:
            ipc.send(self._sock, message, frames)


@dataclass(frozen=True, slots=True)
class _Failed:
    failure: Failure
    error: BaseException


def _hint_for(error: BaseException) -> str:
    """For a library of the system that is not there: which package has it."""
    if not isinstance(error, (ImportError, OSError)):
        return ""
    from starburst.environment.system_libraries import hint_for

    return hint_for(_text_of(error), image=in_ecs()) or ""


def _text_of(error: BaseException) -> str:
    """Its text, or that it has none: ``__str__`` is the user's code."""
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001
        return f"<its text cannot be made: {type(other).__name__}>"


def _encodable(text: str) -> str:
    """The text with what UTF-8 cannot carry, such as halves of surrogates, shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _without_our_frames(error: BaseException) -> BaseException:
    """The traceback begins in the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__ and trace.tb_next is not None:
        trace = trace.tb_next
    return error.with_traceback(trace)


def _import_from(folders: Sequence[str]) -> None:
    """Behind the standard library, whose names local modules must not take from us; before all that is installed."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    standard |= {f"{folder}/lib-dynload" for folder in standard}
    own = [path for path in sys.path if path in standard or path.endswith(".zip")]
    sys.path[:] = [*own, *folders, *(path for path in sys.path if path not in own)]
    importlib.invalidate_caches()


def _die_with_parent() -> None:
    """On Linux, be killed when the agent dies; elsewhere the end of the socket must do."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Let the kernel choose this process, not the agent, when memory ends.
        with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as file:
            file.write("800")


def main(arguments: list[str]) -> None:
    """Entry point: socket, page and log as inherited descriptors."""
    _die_with_parent()
    # The agent drains; it ends its runners itself. Not SIG_IGN: programs that a task starts would inherit it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _pass_over)
    faulthandler.enable()
    fds = sock_fd, spool_fd, page_fd, log_fd = tuple(map(int, arguments))
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the system's own function
    sock = socket.socket(fileno=sock_fd)
    spool = ipc.Spool(socket.socket(fileno=spool_fd))
    runner = Runner(sock, spool, Page(page_fd), TaskOutput(log_fd))
    _hand_down_signals()
    os.register_at_fork(after_in_child=runner.become_copy)
    runner.run()


def _pass_over(number: int, frame: Any) -> None:
    """Do nothing about a signal."""


def _hand_down_signals() -> None:
    """Children that a task forks, such as those of a process pool, end when they are told to, however soon it is."""
    ours = {signal.SIGINT, signal.SIGTERM}
    mask = threading.local()  # each thread has its own, and more than one may fork

    def hold() -> None:
        # A signal that came before the child has its handlers would be dropped by the interpreter.
        mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    def as_usual() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=as_usual)


if __name__ == "__main__":
    main(sys.argv[1:])
