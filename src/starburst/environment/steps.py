"""The steps of a build: what is done, how long it takes, what was said meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Step", "Steps", "logged"]


@dataclass(slots=True)
class Step:
    """One step.

    Attributes:
        name: ``resolve``, ``install``, ``pack``, ``push`` and the like.
        seconds: How long it took, or has taken so far.
        state: ``running``, ``done``, ``cached`` or ``failed``.
        detail: A few words for the box, such as ``"12 packages"``.
    """

    name: str
    seconds: float = 0.0
    state: str = "running"
    detail: str = ""

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
        step = Step(name)
        self.steps.append(step)
        began = self.monotonic()
        self.show(self)
        try:
            yield step
        except BaseException:
            step.state = "failed"
            raise
        finally:
            step.seconds = self.monotonic() - began
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


@contextmanager
def logged(log: logging.Logger) -> Iterator[Steps]:
    """Steps that are told as lines of a log when they have ended; all that was said, if one fails."""

    def show(steps: Steps) -> None:
        step = steps.steps[-1]
        if step.state != "running":
            log.info("environment: %-8s %5.1f s  %-6s  %s", step.name, step.seconds, step.state, step.detail)

    steps = Steps(show=show)
    try:
        yield steps
    except BaseException:
        if steps.log:
            log.warning("what was said until then:\n%s", "\n".join(steps.log))
        raise
