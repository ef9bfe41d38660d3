"""The simulated account in the hands of a test: start, stop, and everything that can be asked of it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from starburst.errors import OptionError, ProviderError
from starburst.testing.aws import environment
from starburst.testing.aws.world import HostInfo, SimOptions, TaskInfo

__all__ = ["SimulatedAws"]

_Info = TypeVar("_Info", TaskInfo, HostInfo)

_START_S = 60.0
_STOP_S = 30.0


class SimulatedAws:
    """One simulated AWS account: a process on this machine with children for objects and tasks.

    It ends with :meth:`stop`, at the end of a ``with`` block, or with this process, however that ends.

    Args:
        **options: See :class:`SimOptions`.

    Attributes:
        options: As given, with ``folder`` filled in.
        environment: Variables that make AWS clients use this account.
    """

    def __init__(self, **options: Any) -> None:
        try:
            self.options = SimOptions(**options)
        except TypeError as error:
            raise OptionError(
                f"Simulated AWS: {error}.", hint="see starburst.testing.aws.SimOptions"
            ) from None
        self.environment: dict[str, str] = {}
        self._control = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._own_folder = not self.options.folder

    def start(self) -> Self:
        """Start it; returns when it answers.

        Raises:
            ProviderError: It does not, or the extra ``sim`` is not installed.
        """
        if self._process is not None:
            return self
        if self._own_folder:
            folder = tempfile.mkdtemp(prefix="starburst-aws-")
            self.options = dataclasses.replace(self.options, folder=folder)
        folder_path = Path(self.options.folder)
        folder_path.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-Wignore",  # moto warns of error codes that are in no model, such as ThrottlingException
            "-m",
            "starburst.testing.aws",
            msgspec.json.encode(self.options).decode(),
        ]
        with (folder_path / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; it ends when its input does
            )
        try:
            ready = json.loads(self._first_line(_START_S))
        except (ValueError, queue.Empty):
            text = (folder_path / "server.log").read_text(errors="replace")[-3000:]
            self.stop()
            hint = "pip install 'starburst-cloud[sim]'" if "ModuleNotFoundError" in text else None
            raise ProviderError(f"The simulated AWS did not start:\n{text}", hint=hint) from None
        self._control = ready["control"]
        self.environment = environment.for_clients(
            self.options, endpoint=ready["endpoint"], s3_endpoint=ready["s3_endpoint"]
        )
        return self

    def stop(self) -> None:
        """End it with everything that runs in it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        if self._own_folder:
            shutil.rmtree(self.options.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def tasks(self, **filters: Any) -> list[TaskInfo]:
        """All ECS tasks, the oldest first, also those that ended.

        Args:
            **filters: Only those whose attributes have these values, such as ``last_status="RUNNING"``.
        """
        found = self._ask("tasks", TaskInfo)
        return [task for task in found if all(getattr(task, name) == want for name, want in filters.items())]

    def hosts(self, **filters: Any) -> list[HostInfo]:
        """All EC2 hosts of ECS clusters, the oldest first; filters as for :meth:`tasks`."""
        found = self._ask("hosts", HostInfo)
        return [host for host in found if all(getattr(host, name) == want for name, want in filters.items())]

    def interrupt(self, task_id: str) -> None:
        """Spot takes a Fargate task back: SIGTERM, and SIGKILL when ``stopTimeout`` is over."""
        self._tell("interrupt", task=task_id)

    def kill(self, task_id: str, *, out_of_memory: bool = False) -> None:
        """A task's container dies at once, of SIGKILL, if so asked for as if it had used too much memory."""
        self._tell("kill", task=task_id, out_of_memory=out_of_memory)

    def interrupt_host(self, instance_id: str) -> None:
        """Spot takes an EC2 host back: its instance-action notice appears, later it and its tasks are gone."""
        self._tell("interrupt-host", instance=instance_id)

    def kill_host(self, instance_id: str) -> None:
        """An EC2 host is gone at once, with its tasks."""
        self._tell("kill-host", instance=instance_id)

    def set_quota(self, service: str, code: str, value: float) -> None:
        """Change a quota of the account, such as ``("fargate", "L-3032A538", 6)``."""
        self._tell("quota", service=service, code=code, value=value)

    def fail(self, operation: str, kind: str, *, times: int | None = None, **where: Any) -> int:
        """Make something fail from now on.

        Args:
            operation: ``"ecs:RunTask"``; ``*`` stands for anything, as in ``"s3:*"``.
            kind: What happens; docs/simulated-aws.md lists the kinds.
            times: How often; None until :meth:`clear`.
            **where: Only then: ``zone="us-east-1a"``, ``provider="FARGATE_SPOT"`` … A list means one of them.

        Returns:
            Its id, for :meth:`clear`.
        """
        return int(self._tell("fail", operation=operation, kind=kind, times=times, where=where)["script"])

    def clear(self, script_id: int | None = None) -> None:
        """Let what :meth:`fail` made fail go well again; without an id, everything."""
        self._tell("clear", script=script_id)

    def calls(self) -> dict[str, int]:
        """How many requests the control plane got, by ``service.Operation``."""
        return dict(self._tell("calls"))

    def throttled(self) -> dict[str, int]:
        """How many of them were answered ThrottlingException, by ``service.Operation``."""
        return dict(self._tell("throttled"))

    def s3_calls(self) -> dict[str, int]:
        """How many requests about objects S3 got, by ``s3.Operation``."""
        return dict(self._tell("s3-calls"))

    def denials(self) -> list[tuple[str, str, str]]:
        """Who was refused what by policies: (role or user, action, resource)."""
        return [(caller, action, resource) for caller, action, resource in self._tell("denials")]

    def foreign_bucket(self, name: str) -> None:
        """Another account has a bucket of this name."""
        self._tell("foreign-bucket", name=name)

    def resources(self) -> dict[str, list[str]]:
        """Everything that is in the account, by kind: to compare before and after."""
        return dict(self._tell("resources"))

    def _ask(self, verb: str, kind: type[_Info]) -> list[_Info]:
        return msgspec.json.decode(self._request(verb, {}), type=list[kind])  # type: ignore[valid-type]

    def _tell(self, verb: str, **parameters: Any) -> Any:
        return json.loads(self._request(verb, parameters))

    def _request(self, verb: str, parameters: dict[str, Any]) -> bytes:
        if self._process is None:
            raise ProviderError("The simulated AWS is not running.", hint="SimulatedAws().start()")
        address = urllib.parse.urlsplit(self._control)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_STOP_S)
        try:
            connection.request("POST", f"/verbs/{verb}", json.dumps(parameters))
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise ProviderError(f"The simulated AWS does not answer to {verb}: {error}.") from error
        finally:
            connection.close()
        if response.status != 200:
            raise ProviderError(f"Simulated AWS, {verb} {parameters}: {json.loads(body)['error']}.")
        return body

    def _first_line(self, timeout_s: float) -> bytes:
        lines: queue.Queue[bytes] = queue.Queue()
        process = self._process
        assert process is not None
        assert process.stdout is not None
        stdout = process.stdout
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        return lines.get(timeout=timeout_s)
