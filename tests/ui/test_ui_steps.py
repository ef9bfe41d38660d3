"""The steps of a build: a box on a terminal, lines elsewhere, nothing where nothing is built; the log is kept."""

import io
import logging

import pytest
from rich.console import Console

from starburst.environment.steps import Steps, builds_shown, logged, set_steps_display
from starburst.errors import EnvironmentBuildError
from starburst.ui.steps import BoxOfSteps, LinesOfSteps

log = logging.getLogger("tests")


class Ticks:
    """A clock that moves by a second and a half each time it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.5
        return self.now


@pytest.fixture
def stream(monkeypatch):
    """What lines are written to while a build is shown."""
    written = io.StringIO()
    monkeypatch.setattr("starburst.environment.steps._display", None)
    set_steps_display(lambda: LinesOfSteps(written))
    return written


def build(steps):
    with steps("lock") as step:
        step.cached("3 packages")
    with steps("install") as step:
        step.say("3 packages")
        steps.note("installed a, b, c")


def test_lines(stream):
    with logged(log) as steps:
        steps.monotonic = Ticks()
        build(steps)
    assert [line.split() for line in stream.getvalue().splitlines()] == [
        ["starburst:", "=", "lock", "1.50", "s", "cached", "·", "3", "packages"],
        ["starburst:", "✓", "install", "1.50", "s", "3", "packages"],
    ]


def test_nothing_is_said_of_a_call_that_builds_nothing(stream, data_dir):
    with logged(log) as steps:
        for name in ("lock", "look up"):
            with steps(name) as step:
                step.cached()
    assert stream.getvalue() == ""
    assert not (data_dir / "builds").exists()


def test_nothing_is_shown_unless_it_is_wanted(stream):
    with builds_shown(wanted=False), logged(log) as steps:
        build(steps)
    assert stream.getvalue() == ""
    with logged(log) as steps:  # and not for all time
        build(steps)
    assert stream.getvalue()


def test_the_log_of_a_failed_build_is_kept_and_named(stream, data_dir):
    def fail():
        with logged(log) as steps:
            build(steps)
            with steps("push"):
                raise EnvironmentBuildError("the registry is gone", hint="try again")

    with pytest.raises(EnvironmentBuildError) as caught:
        fail()
    [file] = (data_dir / "builds").glob("*.log")
    assert caught.value.hint == f"try again; the build log: {file}"
    text = file.read_text()
    assert "installed a, b, c" in text
    assert "failed" in text
    assert "✗ push" in stream.getvalue()


def test_box():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    steps = Steps(monotonic=lambda: 7.0)
    display = BoxOfSteps(console)
    steps.show = display.update
    build(steps)
    display.close(steps)
    last = console.file.getvalue().rpartition("╭")[2]
    assert "workers' environment · 0.00 s" in last
    assert "=  lock     0.00 s  cached · 3 packages" in last
    assert "✓  install  0.00 s  3 packages" in last
