"""What a snapshot and a summary say, as text; every kind of display prints these words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starburst.ui import text

if TYPE_CHECKING:
    from starburst.client.progress import Snapshot, Summary

__all__ = ["crew", "finished", "progress_line", "summary_lines"]


def finished(snapshot: Snapshot) -> int:
    """Tasks that are over, well or badly; never more than there are."""
    over = snapshot.done + snapshot.failed
    return min(over, snapshot.total) if snapshot.total else over


def crew(snapshot: Snapshot) -> str:
    """The workers: those that work, those that start, and those that wait for a machine."""
    parts = [text.plural(snapshot.workers, "worker")]
    if snapshot.starting:
        parts.append(f"{text.count(snapshot.starting)} starting")
    if snapshot.waiting:
        parts.append(f"{text.count(snapshot.waiting)} waiting for a host")
    return ", ".join(parts)


def progress_line(snapshot: Snapshot) -> str:
    """One plain line: how far, how fast, how long still."""
    total = f"/{text.count(snapshot.total)}" if snapshot.total else ""
    percent = f" ({100 * finished(snapshot) // snapshot.total}%)" if snapshot.total else ""
    parts = [f"{text.count(finished(snapshot))}{total} tasks{percent}"]
    if snapshot.failed:
        parts.append(f"{text.count(snapshot.failed)} failed")
    parts += [
        f"{text.count(snapshot.running)} running",
        text.rate(snapshot.tasks_per_s),
        crew(snapshot),
        text.seconds(snapshot.elapsed_s),
    ]
    if snapshot.eta_s:
        parts.append(f"{text.seconds(snapshot.eta_s)} left")
    title = f"{snapshot.title}: " if snapshot.title else ""
    return title + " · ".join(parts)


def summary_lines(summary: Summary) -> list[str]:
    """The closing words, one or two lines: the result first, then what it took."""
    over = summary.ok + summary.failed
    mark = "✗" if summary.failed else "✓" if over == summary.total else "…"
    tasks = text.plural(summary.total, "task")
    if summary.ok != summary.total:
        tasks = f"{text.count(summary.ok)} of {tasks}"
    failed = f", {text.count(summary.failed)} failed," if summary.failed else ""
    first = [f"{mark} {tasks}{failed} in {text.seconds(summary.wall_s)}"]
    if summary.wall_s > 0 and over:
        first.append(text.rate(over / summary.wall_s))
    first.append(f"{text.seconds(summary.task_s)} of task time")
    if summary.speedup >= 0.05:  # below, tasks are too short for the figure to mean anything
        first.append(f"speed-up {summary.speedup:.1f}x")
    first.append(text.plural(summary.workers, "worker"))
    second = []
    if summary.retries:
        second.append(f"{text.count(summary.retries)} retried")
    if summary.requests:
        each = f" ({summary.requests / over:.2g} per task)" if over else ""
        second.append(f"{text.plural(summary.requests, 'request')}{each}")
    if summary.bytes_out or summary.bytes_in:
        second.append(f"{text.size(summary.bytes_out)} sent, {text.size(summary.bytes_in)} received")
    second.append(summary.session_id)
    return [" · ".join(first), "  " + " · ".join(second)]
