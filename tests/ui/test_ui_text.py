"""Figures and the lines that displays are made of."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from ui_states import snapshot, summary

from starburst.ui import text
from starburst.ui.live import bar
from starburst.ui.render import finished, progress_line, summary_lines


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0.00 s"),
        (0.254, "0.25 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (2 * 86400 - 1, "47 h 59 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (-5, "0.00 s"),
    ],
)
def test_seconds(value, words):
    assert text.seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_600, "1.0 MB"),
        (1.5e6, "1.5 MB"),
        (3.2e15, "3,200.0 TB"),
    ],
)
def test_size(value, words):
    assert text.size(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(4329.4, "4,329/s"), (12.34, "12.3/s"), (0.5, "30.0/min"), (0, "0.0/s")]
)
def test_rate(value, words):
    assert text.rate(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(5, "5 s"), (119, "119 s"), (600, "10 min"), (86400 * 9, "9 d")]
)
def test_ago(value, words):
    assert text.ago(value) == words
    assert text.ago(-value) == words


@given(st.floats(0, 1e9))
def test_seconds_never_shows_sixty_of_a_unit(value):
    assert "60" not in text.seconds(value).split()[0::2] or text.seconds(value).endswith(("d", "h"))


def test_progress_line():
    line = progress_line(snapshot())
    assert line == (
        "simulate: 4,003/10,000 tasks (40%) · 3 failed · 4 running · 4,003/s · 2 workers · 1.00 s · 1.50 s left"
    )
    assert "failed" not in progress_line(snapshot(failed=0))
    assert "left" not in progress_line(snapshot(eta_s=None))


def test_a_total_that_is_not_known_or_nothing_at_all():
    assert progress_line(snapshot(total=0, done=5, failed=0, eta_s=None)).startswith("simulate: 5 tasks · ")
    assert finished(snapshot(total=10, done=10, failed=3)) == 10


def test_summary_of_success():
    first, second = summary_lines(summary())
    assert first == "✓ 10,000 tasks in 2.50 s · 4,000/s · 4.00 s of task time · speed-up 1.6x · 2 workers"
    assert second == "  800 requests (0.08 per task) · 4.6 MB sent, 123 kB received · session-1"


def test_summary_of_failures_and_of_what_is_not_over():
    first, second = summary_lines(summary(ok=9_990, failed=10, retries=4))
    assert first.startswith("✗ 9,990 of 10,000 tasks, 10 failed, in 2.50 s")
    assert "4 retried" in second
    assert summary_lines(summary(ok=5))[0].startswith("… 5 of 10,000 tasks in")
    assert summary_lines(summary(total=0, ok=0, wall_s=0, requests=0, speedup=0))[0].startswith(
        "✓ 0 tasks in 0.00 s"
    )


@pytest.mark.parametrize("width", [50, 60, 80, 100, 140, 200])
@pytest.mark.parametrize("total", [0, 10_000, 1_000_000])
def test_the_bar_is_one_line_of_whole_figures(width, total):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    state = snapshot(
        total=total, eta_s=1.5 if total else None, title="a rather long title of a function of the user"
    )
    console.print(bar(state, width=width))
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert "…" not in shown
    assert "4,003" in shown
    assert "3 failed" in shown
    if width >= 100:
        assert all(word in shown for word in ("4 running", "2 workers", "1.00 s"))
