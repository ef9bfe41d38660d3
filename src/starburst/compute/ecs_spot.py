"""When Spot is passed over for on-demand capacity though ``RunTask`` takes the tasks: AWS takes them away again.

It is read from the session's tasks as ECS describes them, so a supervisor that follows another one knows it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from starburst.compute.ecs_outcome import NO_SPOT, status_of

__all__ = ["SPOT_PAUSE_S", "why_not_spot"]

SPOT_PAUSE_S = 900.0
"""For so long Spot is not tried again. A lack of capacity lasts for minutes to hours, and each try costs some time."""
_ROUNDS = 3
"""One round may fall into a moment of reclaiming. With the supervisor's pauses three take most of a minute on Fargate:
that is no moment any more, and about what a user waits for a container that comes."""
_ROUND_GAP_S = 3.0
"""Tasks of one launch are made within less, and a supervisor that lost workers waits for longer."""
_HARDLY_RAN_S = 30.0
"""A worker that was taken within so long of its start had no time to do anything."""
_SPOT_CODES = ("SpotInterruption", "TerminationNotice")
_SPOT_TEXTS = ("Your Spot Task was interrupted", "Capacity is unavailable", "Host EC2")
"""Of all that is no fault of the worker's, that which on-demand capacity would be spared."""
_INSTEAD = f"on-demand capacity is used for {SPOT_PAUSE_S / 60:g} minutes"


def why_not_spot(tasks: Iterable[Mapping[str, Any]], spot_provider: str, now: float) -> str:
    """Why Spot is passed over at ``now`` (seconds since 1970), in words; empty if it is to be tried.

    That is for a while after the last rounds of tasks on it were all taken before they worked, or one was stopped
    because no Spot host came for it.
    """
    mine = [task for task in tasks if task.get("capacityProviderName") == spot_provider]
    since = now - SPOT_PAUSE_S
    if any(NO_SPOT in str(task.get("stoppedReason")) and _ended(task) > since for task in mine):
        return f"no Spot host comes; {_INSTEAD}"
    lost, last = 0, 0.0
    for one in reversed(_rounds(mine)):
        taken = [_taken_at(task) for task in one]
        if None in taken:
            break
        ends = [end for end in taken if end]
        lost += bool(ends)
        last = max([last, *ends])
    if lost < _ROUNDS or last <= since:
        return ""
    return f"Spot workers are taken away before they work, {lost} times in a row; {_INSTEAD}"


def _rounds(tasks: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The tasks by launch, in the order of time."""
    rounds: list[list[Mapping[str, Any]]] = []
    before = float("-inf")
    for created, task in sorted(((_time(task, "createdAt"), task) for task in tasks), key=lambda one: one[0]):
        if created - before >= _ROUND_GAP_S:
            rounds.append([])
        rounds[-1].append(task)
        before = created
    return rounds


def _taken_at(task: Mapping[str, Any]) -> float | None:
    """When it was taken before it worked; 0 if that is not known yet, or not Spot's doing; None if Spot let it work."""
    started, ended = _time(task, "startedAt"), _ended(task)
    by_spot = task.get("stopCode") in _SPOT_CODES or any(
        text in str(task.get("stoppedReason")) for text in _SPOT_TEXTS
    )
    if status_of(task).state == "exited" and by_spot:
        return None if started and ended - started > _HARDLY_RAN_S else ended
    return None if started else 0.0


def _ended(task: Mapping[str, Any]) -> float:
    return _time(task, "stoppingAt", "executionStoppedAt", "stoppedAt")


def _time(task: Mapping[str, Any], *names: str) -> float:
    """The first of these times that is known, in seconds since 1970; 0 if none is."""
    found = (task.get(name) for name in names)
    return next((value.timestamp() for value in found if isinstance(value, datetime)), 0.0)
