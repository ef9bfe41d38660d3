"""Hundreds of workers on a small machine: those of starburst run light-weight in a few processes, see ``crew``."""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from starburst.protocol.keys import worker_of_task
from starburst.testing.aws.runtimes import CannotStart, Launch, ProcessRuntime, kept_environment
from starburst.testing.aws.tasks import Container

__all__ = ["LightRuntime"]

_WORKER = ["python", "-m", "starburst.worker"]
_CREWS = 2


class LightRuntime(ProcessRuntime):
    """Workers run in crews; everything else, such as a supervisor, is a process of its own.

    Args:
        folder: See :class:`ProcessRuntime`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._crew_folder = folder
        self._crews: list[_Crew] = []
        self._turns = itertools.count()
        self._of: dict[str, _Crew] = {}
        self._lock = threading.Lock()

    def start(self, launch: Launch) -> None:
        """Give a worker to the crew whose turn it is."""
        if launch.command[:3] != _WORKER:
            super().start(launch)
            return
        with self._lock:
            turn = next(self._turns) % _CREWS
            if turn >= len(self._crews):
                self._crews.append(_Crew(launch.environment, self._crew_folder / f"crew-{turn}.log"))
            crew = self._of[launch.container.arn] = self._crews[turn]
        crew.start(launch, done=lambda: self._of.pop(launch.container.arn, None))

    def signal(self, container: Container, number: int) -> None:
        """Stop a worker of a crew, or signal a process."""
        crew = self._of.get(container.arn)
        if crew is None:
            super().signal(container, number)
        else:
            crew.tell({"kill" if number == signal.SIGKILL else "stop": container.arn})

    def stop(self) -> None:
        """End all."""
        for crew in self._crews:
            crew.stop()
        super().stop()


class _Crew:
    def __init__(self, environment: dict[str, str], log: Path) -> None:
        # All workers of a crew have the credentials of its first one: the same role, in one account.
        self._launches: dict[str, tuple[Launch, object]] = {}
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "starburst.testing.aws.crew"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**kept_environment(), **environment},
                text=True,
            )
        threading.Thread(target=self._listen, name="crew", daemon=True).start()

    def start(self, launch: Launch, *, done: object) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("url")
        parser.add_argument("--ordinal", type=int, default=0)
        parser.add_argument("--of", type=int, default=1)
        parser.add_argument("--slots", type=int, default=1)
        try:
            given = parser.parse_args(launch.command[3:])
        except argparse.ArgumentError as error:
            raise CannotStart(f"CannotStartContainerError: {error}") from error
        arn = launch.container.arn
        self._launches[arn] = (launch, done)
        launch.container.pid = self._process.pid
        worker = worker_of_task(launch.task.id)
        order = {"start": arn, "url": given.url, "worker": worker, "slots": given.slots}
        self.tell({**order, "ordinal": given.ordinal + int(launch.task.id, 16) % given.of})

    def tell(self, order: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._ended(told["exit"], told["code"])
        for arn in list(self._launches):  # the crew is gone
            self._ended(arn, 137)

    def _ended(self, arn: str, code: int) -> None:
        launch, done = self._launches.pop(arn, (None, None))
        if launch is not None:
            assert callable(done)
            done()
            launch.on_exit(code)
