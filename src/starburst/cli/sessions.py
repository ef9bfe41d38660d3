"""Sessions: list, look, lengthen, resize, stop, remove."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from starburst.cli import exit_codes
from starburst.cli.common import SessionId, StoreURL, command, reach
from starburst.cli.output import CommandError, Output
from starburst.errors import StarburstError

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    command(app, "sessions", short_help="List sessions.", examples=_SESSIONS_EXAMPLES)(sessions)
    command(app, "status", short_help="Show a session and its workers.", examples=_STATUS_EXAMPLES)(status)
    command(app, "extend", short_help="Give a session more time.", examples="starburst extend session-… 2h")(
        extend
    )
    command(app, "scale", short_help="Change the number of workers.", examples=_SCALE_EXAMPLES)(scale)
    command(app, "cancel", short_help="Stop it; results stay.", examples="starburst cancel session-…")(cancel)
    command(app, "cleanup", short_help="Stop workers; with --force remove all.", examples=_CLEANUP_EXAMPLES)(
        cleanup
    )


_SESSIONS_EXAMPLES = """\
starburst sessions
starburst sessions --state open --json
starburst sessions --store s3://my-bucket"""


def sessions(
    out: Output,
    *,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only those in this state, such as open or abandoned.")
    ] = None,
    store: StoreURL = None,
) -> None:
    """List the sessions of a store, the newest first."""
    import starburst

    found = [
        each
        for each in starburst.list_sessions(store=store)
        if state in (None, each.state) or (state == "abandoned" and each.abandoned)
    ]
    found.sort(key=lambda each: each.created_at, reverse=True)
    if out.json:
        out.data({"sessions": found})
        return
    from starburst.ui.tables import ABANDONED, sessions_table

    out.result(None, sessions_table(found, now=time.time()))
    if any(each.abandoned for each in found):
        out.note(f"abandoned: {ABANDONED}")


_STATUS_EXAMPLES = """\
starburst status session-…
starburst status session-… --json | jq .completed"""


def status(out: Output, *, session_id: SessionId, store: StoreURL = None) -> None:
    """Show a session: its tasks, its workers, what happened to it last."""
    _show(out, reach(session_id, store))


def extend(
    out: Output,
    *,
    session_id: SessionId,
    duration: Annotated[
        str, typer.Argument(metavar="DURATION", help='How much longer: "7200", "90m", "2h".')
    ],
    store: StoreURL = None,
) -> None:
    """Move the moment at which a session ends."""
    session = reach(session_id, store)
    session.extend(duration)
    _show(out, session)


_SCALE_EXAMPLES = """\
starburst scale session-… 20
starburst scale session-… 20 --json"""


def scale(
    out: Output,
    *,
    session_id: SessionId,
    workers: Annotated[int, typer.Argument(metavar="N", help="How many workers at the most from now on.")],
    store: StoreURL = None,
) -> None:
    """Change how many workers a session may have."""
    session = reach(session_id, store)
    session.scale(workers)
    _show(out, session)


def cancel(out: Output, *, session_id: SessionId, store: StoreURL = None) -> None:
    """Stop a session: nothing more is run; results that are there can still be collected."""
    session = reach(session_id, store)
    session.cancel()
    _show(out, session)


_CLEANUP_EXAMPLES = """\
starburst cleanup session-…                  # stop its workers, keep its results
starburst cleanup session-… --force          # remove its results too
starburst cleanup --all-finished --force"""


def cleanup(
    out: Output,
    *,
    session_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The session's id.")] = None,
    all_finished: Annotated[
        bool, typer.Option("--all-finished", help="All sessions that take no more work.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Remove results and everything else for good.")
    ] = False,
    store: StoreURL = None,
) -> int:
    """Stop the workers of a session; with --force, remove all of it from the store.

    Without --force nothing is removed: results stay and can be collected.
    """
    if (session_id is None) == (not all_finished):
        raise CommandError(
            "give either the id of a session or --all-finished",
            hint="starburst cleanup ID, or starburst cleanup --all-finished",
            exit_code=exit_codes.USAGE,
        )
    cleaned: list[str] = []
    failed: list[dict[str, Any]] = []
    code = exit_codes.OK
    for each in [session_id] if session_id else _finished(store):
        try:
            reach(each, store).cleanup(stop_workers=True, force=force)
            cleaned.append(each)
        except StarburstError as error:
            if session_id:
                raise
            # One that cannot be cleaned must not keep the others.
            code = exit_codes.code_of(error)
            failed.append({"session_id": each, "message": error.message, "hint": error.hint})
    if out.json:
        out.data({"cleaned": cleaned, "removed": force, "failed": failed})
        return code
    from rich.text import Text

    what = "removed" if force else "workers stopped, results kept"
    views = [Text(f"{each}: {what}") for each in cleaned]
    out.result(None, *(views or [Text("Nothing to clean up.")] if not failed else views))
    for entry in failed:
        out.note(f"{entry['session_id']}: {entry['message']}")
    return code


def _finished(store: str | None) -> Iterator[str]:
    import starburst

    for each in starburst.list_sessions(store=store):
        if each.state != "open":
            yield each.session_id


def _show(out: Output, session: Any) -> None:
    found = session.status()
    if out.json:
        out.data(found)
        return
    from starburst.ui.tables import status_view

    out.result(None, status_view(found, now=time.time()))
