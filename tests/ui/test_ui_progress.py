"""Displays: which one is chosen, how often it draws, and that its troubles stay its own."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console
from ui_states import snapshot, summary

from starburst.ui.live import LiveSink, bar
from starburst.ui.progress import PlainSink, QuietSink, open_sink
from starburst.ui.render import progress_line


class Ticks:
    """A clock that moves when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_are_rare(capsys):
    stream, clock = io.StringIO(), Ticks()
    sink = PlainSink(stream, every_s=5, monotonic=clock)
    sink.start(snapshot(done=0, failed=0))
    for step in range(100):
        clock.now = 100 + step * 0.1
        sink.update(snapshot(done=step * 100, failed=0))
    sink.note("runs on this machine")
    sink.close(summary())
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("starburst: simulate: 5,000/10,000 tasks (50%)")
    assert lines[1:] == [
        "starburst: runs on this machine",
        "starburst: ✓ 10,000 tasks in 2.50 s · 4,000/s · 4.00 s of task time · speed-up 1.6x · 2 workers",
        "starburst: 800 requests (0.08 per task) · 4.6 MB sent, 123 kB received · session-1",
    ]
    assert capsys.readouterr() == ("", "")


def test_workers_that_do_not_work_yet_are_not_counted_as_if_they_did():
    state = snapshot(running=0, workers=0, starting=1, waiting=3)
    said = "0 running · 4,003/s · 0 workers, 1 starting, 3 waiting for a host · 1.00 s"
    assert said in progress_line(state)
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(bar(state, width=140))
    assert "0 workers, 1 starting, 3 waiting for a host" in console.file.getvalue()


def test_the_live_bar_draws_at_most_ten_times_a_second():
    stream, clock = Terminal(), Ticks()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None)
    sink = LiveSink(console=console, monotonic=clock)
    sink.start(snapshot(done=0, failed=0))
    for step in range(1_000):
        clock.now = 100 + step * 0.001
        sink.update(snapshot(done=step, failed=0))
    sink.note("a note")
    sink.close(summary())
    shown = stream.getvalue()
    assert shown.count("simulate") <= 15
    assert "a note" in shown
    assert shown.rstrip().endswith("session-1")


def test_without_closing_words_the_last_state_stays():
    stream = Terminal()
    sink = LiveSink(console=Console(file=stream, width=100, force_terminal=True, color_system=None))
    sink.start(snapshot(done=0, failed=0))
    sink.update(snapshot(done=7_000, failed=0))
    sink.close(None)
    assert "7,000/10,000" in stream.getvalue().splitlines()[-1]


def test_what_the_program_prints_meanwhile_is_kept(capsys):
    sink = open_sink(Terminal())
    sink.start(snapshot())
    sys.stdout.write("from the program\n")
    sink.close(None)
    assert capsys.readouterr().out == "from the program\n"


def test_choice(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_sink(Terminal())._inner, LiveSink)
    assert isinstance(open_sink(io.StringIO())._inner, PlainSink)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_sink(Terminal())._inner, PlainSink)


def test_a_closed_stream_disturbs_nobody():
    for stream in (io.StringIO(), Terminal()):
        sink = open_sink(stream)
        sink.start(snapshot())
        stream.close()
        sink.update(snapshot())
        sink.note("x")
        sink.close(summary())
        sink.update(snapshot())
    closed = io.StringIO()
    closed.close()
    open_sink(closed).close(summary())


def test_an_interrupt_still_reaches_the_caller():
    class Interrupted(io.StringIO):
        def write(self, text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QuietSink(PlainSink(Interrupted())).note("x")


PROGRAM = """
import sys
from starburst.client.progress import Snapshot, Summary
from starburst.ui.progress import open_sink
sink = open_sink()
sink.start(
    Snapshot(
        session_id="session-1", title="simulate", total=100, done=0, failed=0, running=0, workers=2,
        elapsed_s=0.0, tasks_per_s=0.0, eta_s=None,
    )
)
sink.note("a note")
sink.close(
    Summary(
        session_id="session-1", total=100, ok=100, failed=0, retries=0, wall_s=1.0, task_s=1.5, speedup=1.5,
        bytes_in=0, bytes_out=0, requests=9, workers=2,
    )
)
print("rich" in sys.modules)
"""


def test_on_a_pipe_there_are_plain_lines_and_rich_is_not_even_loaded():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert "\x1b" not in done.stderr
    assert done.stderr.splitlines()[:2] == [
        "starburst: a note",
        "starburst: ✓ 100 tasks in 1.00 s · 100/s · 1.50 s of task time · speed-up 1.5x · 2 workers",
    ]


def test_on_a_real_terminal():
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stderr=child,
        stdout=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    process.communicate(timeout=60)
    os.close(parent)
    assert process.returncode == 0
    assert b"simulate" in shown
    assert b"\x1b[?25l" in shown, "the cursor is hidden"
    assert b"\x1b[?25h" in shown, "and comes back"
    assert "✓ 100 tasks".encode() in shown
