"""Sessions and their state as tables, on a terminal and in a pipe."""

from __future__ import annotations

import io

from starburst.client.status import SessionStatus, SessionSummary, WorkerView
from starburst.protocol.records import Event
from starburst.ui.tables import print_to, sessions_table, status_view

NOW = 1_700_000_000.0


def row(number, **changes):
    values = {
        "session_id": f"session-{number}",
        "kind": "session",
        "state": "open",
        "created_at": NOW - number * 3600 - 5,
        "total": 10_000,
        "completed": 9_000,
        "failed": number,
        "pending": 12,
        "workers": 2,
        "url": f"file:///store/sessions/session-{number}",
    }
    return SessionSummary(**values | changes)


def status(**changes):
    values = {
        "session_id": "session-1",
        "kind": "session",
        "state": "open",
        "launch_type": "LOCAL",
        "created_at": NOW - 500,
        "deadline_at": NOW + 36_000,
        "total": 1_000,
        "pending": 400,
        "running": 4,
        "completed": 590,
        "failed": 6,
        "workers": 1,
        "worker_list": (
            WorkerView(
                worker="w-0001",
                state="running",
                task="000001-00000042",
                tasks_done=590,
                tasks_failed=6,
                cpu_percent=98.4,
                memory_bytes=123_456_789,
                age_s=1.2,
                host="a-host",
                pid=4242,
                reason="",
            ),
        ),
        "events": tuple(
            Event(what="scaled", at=NOW - n, by="client", data={"workers": n}) for n in range(20, 0, -1)
        ),
    }
    return SessionStatus(**values | changes)


def printed(view):
    stream = io.StringIO()
    print_to(stream, view)
    return stream.getvalue()


def test_sessions_newest_first_in_whole_lines():
    lines = printed(sessions_table([row(2), row(0), row(1, state="finished")], now=NOW)).splitlines()
    assert lines[0].split() == [
        "SESSION",
        "KIND",
        "STATE",
        "AGE",
        "TASKS",
        "DONE",
        "FAILED",
        "PENDING",
        "WORKERS",
    ]
    assert lines[1].split() == ["session-0", "session", "open", "5", "s", "10,000", "9,000", "0", "12", "2"]
    assert [line.split()[0] for line in lines[1:]] == ["session-0", "session-1", "session-2"]


def test_no_sessions():
    assert printed(sessions_table([], now=NOW)) == "No sessions in this store.\n"


def test_status_says_everything():
    shown = printed(status_view(status(), now=NOW))
    for words in ("session-1 (session, LOCAL)", "1,000 in all: 590 done, 6 failed, 4 running, 400 pending"):
        assert words in shown
    assert "10 h 00 min left" in shown
    worker = next(line for line in shown.splitlines() if line.startswith("w-0001"))
    assert worker.split()[:8] == ["w-0001", "running", "590", "6", "98%", "123", "MB", "1"]
    assert worker.endswith("000001-00000042")
    assert shown.count("scaled") == 8, "the last events, not all"
    assert "workers=1" in shown.splitlines()[-1]


def test_status_of_an_empty_session_that_is_over():
    shown = printed(status_view(status(worker_list=(), events=(), deadline_at=NOW - 7200), now=NOW))
    assert "2 h ago" in shown
    assert "WORKER " not in shown


def test_what_users_name_is_not_taken_for_markup():
    lost = status().worker_list[0]
    changed = type(lost)(
        **{name: getattr(lost, name) for name in lost.__struct_fields__} | {"host": "[red]x[/red]"}
    )
    assert "[red]x[/red]" in printed(status_view(status(worker_list=(changed,)), now=NOW))
