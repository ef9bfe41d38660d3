"""The steps of a build: what is done, how long it takes, what was said meanwhile."""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from starburst.config import data_path
from starburst.errors import StarburstError

__all__ = ["Step", "Steps", "StepsDisplay", "builds_shown", "logged", "set_steps_display"]

_LOGS_KEPT = 20


@dataclass(slots=True)
class Step:
    """One step.

    Attributes:
        name: ``resolve``, ``install``, ``pack``, ``push`` and the like.
        seconds: How long it took, or has taken so far.
        state: ``running``, ``done``, ``cached`` or ``failed``.
        detail: A few words for the box, such as ``"12 packages"``.
        began: When, by the clock of its `Steps`.
    """

    name: str
    seconds: float = 0.0
    state: str = "running"
    detail: str = ""
    began: float = 0.0

    def say(self, detail: str) -> None:
        """Put a few words beside the step."""
        self.detail = detail

    def cached(self, detail: str = "") -> None:
        """Nothing had to be done."""
        self.state, self.detail = "cached", detail or self.detail


@dataclass(slots=True)
class Steps:
    """All steps of a build, in order, and its log.

    Attributes:
        show: Is told of each change; a step box draws itself with it.
        monotonic: Time in seconds.
        steps: Those that have begun.
        log: What programs printed; shown when the build fails.
    """

    show: Callable[[Steps], None] = lambda _: None
    monotonic: Callable[[], float] = time.monotonic
    steps: list[Step] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Step]:
        """Do a step: ``with steps("resolve") as step: ...``."""
        step = Step(name, began=self.monotonic())
        self.steps.append(step)
        self.show(self)
        try:
            yield step
        except BaseException:
            step.state = "failed"
            raise
        finally:
            step.seconds = self.monotonic() - step.began
            if step.state == "running":
                step.state = "done"
            self.show(self)

    def note(self, text: str) -> None:
        """Add to the log."""
        self.log += text.splitlines()

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(step.seconds for step in self.steps)

    def text(self) -> str:
        """The build log: what was said, and all steps with their seconds."""
        lines = [f"{step.name:8} {step.seconds:6.1f} s  {step.state:6}  {step.detail}" for step in self.steps]
        return "\n".join([*self.log, *(line.rstrip() for line in lines), ""])


class StepsDisplay(Protocol):
    """Shows steps to a person."""

    def update(self, steps: Steps) -> None:
        """A step has begun or ended."""
        ...

    def close(self, steps: Steps) -> None:
        """There are no more."""
        ...


_display: Callable[[], StepsDisplay] | None = None
_shown = contextvars.ContextVar("shown", default=True)


@contextmanager
def builds_shown(*, wanted: bool) -> Iterator[None]:
    """Whether what is built inside is displayed: not for calls with ``progress=False``."""
    token = _shown.set(wanted)
    try:
        yield
    finally:
        _shown.reset(token)


def set_steps_display(factory: Callable[[], StepsDisplay]) -> None:
    """From now on builds show themselves through what ``factory`` makes."""
    global _display  # noqa: PLW0603 - one display per process
    _display = factory


@contextmanager
def logged(log: logging.Logger) -> Iterator[Steps]:
    """Steps that are shown, and told as lines of a log when they have ended; all that was said is kept in a file.

    Args:
        log: Gets the lines; and all that was said, if a step fails.
    """
    display = _display() if _display is not None and _shown.get() else None

    def show(steps: Steps) -> None:
        step = steps.steps[-1]
        if step.state != "running":
            log.info("environment: %-8s %5.1f s  %-6s  %s", step.name, step.seconds, step.state, step.detail)
        if display is not None:
            display.update(steps)

    steps = Steps(show=show)
    try:
        yield steps
    except BaseException as error:
        if display is not None:
            display.close(steps)
        if steps.log:
            log.warning("what was said until then:\n%s", "\n".join(steps.log))
        file = _keep(steps) if steps.log else None
        if file is not None and isinstance(error, StarburstError):
            error.hint = "; ".join(filter(None, [error.hint, f"the build log: {file}"]))
        raise
    if display is not None:
        display.close(steps)
    if steps.log:
        _keep(steps)


def _keep(steps: Steps) -> Path | None:
    """Write the build log beside those of earlier builds; None if that cannot be done."""
    folder = data_path() / "builds"
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{now}-{os.getpid()}.log"
        file.write_text(steps.text(), encoding="utf-8")
        for old in sorted(folder.glob("*.log"))[:-_LOGS_KEPT]:
            old.unlink(missing_ok=True)
        return file
    return None
