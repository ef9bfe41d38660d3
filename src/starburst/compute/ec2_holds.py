"""Who needs the hosts of an Auto Scaling group until when, and what AWS does when nobody does any more.

Several sessions share a group. Each writes what it needs as tags of the group, its *holds*, and touches no other's.
All else follows from the holds: the group's minimum, and the scheduled actions that AWS runs whoever is alive
(docs/decisions/0006-shared-hosts.md):

    starburst:open:<session>   closes_at       the session may start workers until then
    starburst:warm:<session>   hosts until     so many hosts stay until then, though nothing runs on them
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starburst.aws.autoscaling import MAX_HOSTS, Group, describe_group, set_tags, update_group
from starburst.aws.clients import Aws
from starburst.aws.scheduled import list_actions, put_action, remove_action
from starburst.clock import Clock, SystemClock
from starburst.errors import CloudError, CloudUnavailable, NotSetUp

__all__ = [
    "CLOSE_GRACE_S",
    "Action",
    "Hold",
    "Wanted",
    "clear",
    "close_at",
    "holds_of",
    "keep_warm",
    "wanted",
]

CLOSE_GRACE_S = 120.0
"""How long after the deadline the group is closed: workers end themselves first, then the supervisor ends them."""

_OPEN = "starburst:open:"
_WARM = "starburst:warm:"
_ACTION = re.compile(r"starburst-(close|floor)-(\d+)(?:-(\d+))?(-idle)?")
_FORGET_S = 3600  # after which the hold of a session that died is removed by others, whose clocks may differ
_FORGET_AT_ONCE = 30  # AWS takes 50 tags a group: of so many holds, those that are over go at once
_MARGIN_S = 1  # AWS takes no action for a moment that is past
_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What one session needs of the group.

    Attributes:
        session_id: The session.
        until: Seconds since 1970.
        hosts: How many hosts stay; None if it may start workers.
    """

    session_id: str
    until: int
    hosts: int | None = None

    @property
    def tag(self) -> str:
        """The key of its tag."""
        return (_OPEN if self.hosts is None else _WARM) + self.session_id

    @property
    def value(self) -> str:
        """The value of its tag."""
        return f"{self.until}" if self.hosts is None else f"{self.hosts} {self.until}"


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """What AWS does to the group at a moment; its name tells all of it, so it is never changed, only replaced.

    Attributes:
        at: Seconds since 1970.
        floor: The minimum from then on; None closes the group: no hosts, and no new ones.
        idle: Nobody needs hosts from then on: idle ones end at once.
    """

    at: int
    floor: int | None = None
    idle: bool = False

    @property
    def name(self) -> str:
        """Its name in the group."""
        if self.floor is None:
            return f"starburst-close-{self.at}"
        return f"starburst-floor-{self.at}-{self.floor}{'-idle' if self.idle else ''}"

    @property
    def sizes(self) -> dict[str, int]:
        """What it sets. Hosts that run tasks are protected and stay, whatever is set."""
        if self.floor is None:
            return {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
        return {"MinSize": self.floor, **({"DesiredCapacity": 0} if self.idle else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the group should be, by its holds.

    Attributes:
        floor: The minimum now.
        in_use: A session may start workers, or hosts are kept: the group must not be closed.
        actions: What AWS is to do later.
        forgotten: Tags of holds that ended long ago.
    """

    floor: int
    in_use: bool
    actions: frozenset[Action]
    forgotten: tuple[str, ...] = ()


def holds_of(tags: Mapping[str, str]) -> list[Hold]:
    """The holds among a group's tags; what is not one is passed over."""
    found = []
    for key, value in tags.items():
        numbers = [int(part) for part in value.split()] if re.fullmatch(r"[\d ]+", value) else []
        if key.startswith(_OPEN) and len(numbers) == 1:
            found.append(Hold(session_id=key.removeprefix(_OPEN), until=numbers[0]))
        if key.startswith(_WARM) and len(numbers) == 2:
            found.append(Hold(session_id=key.removeprefix(_WARM), until=numbers[1], hosts=numbers[0]))
    return found


def wanted(holds: Iterable[Hold], now: float) -> Wanted:
    """What follows from the holds. No action takes from a session what it holds at that moment."""
    holds = list(holds)
    live = [hold for hold in holds if hold.until > now + _MARGIN_S]
    warm = [hold for hold in live if hold.hosts is not None]
    last = max((hold.until for hold in live), default=0)
    floor = before = _floor(warm, 0)
    actions = set()
    for moment in sorted({hold.until for hold in warm}):
        after = _floor(warm, moment)
        if after != before:
            actions.add(Action(moment, after, idle=moment == last))
        before = after
    if any(hold.hosts is None for hold in live):
        # A second later than all else: AWS takes no two actions of one moment.
        actions.add(Action(last + 1))
    forget_s = _FORGET_S if len(holds) < _FORGET_AT_ONCE else 0
    forgotten = tuple(hold.tag for hold in holds if hold.until < now - forget_s)
    return Wanted(floor=floor, in_use=bool(live), actions=frozenset(actions), forgotten=forgotten)


async def close_at(
    aws: Aws,
    name: str,
    session_id: str,
    *,
    deadline_at: float,
    grace_s: float = CLOSE_GRACE_S,
    clock: Clock | None = None,
) -> None:
    """Have AWS close the group after the session's deadline, unless another session needs it then.

    The third layer of the deadline: no host is started any more, and idle ones end. It is called before the session's
    first worker is launched, and again to extend it.

    Raises:
        NotSetUp: There is no such group, or it is not ours.
        CloudError: AWS did not do it.
    """
    hold = Hold(session_id=session_id, until=math.ceil(deadline_at + grace_s))
    await _hold(aws, name, {hold.tag: hold.value}, clock or SystemClock())


async def keep_warm(
    aws: Aws, name: str, session_id: str, *, hosts: int, until: float, clock: Clock | None = None
) -> None:
    """Keep so many hosts though nothing runs on them; AWS lets them go at ``until``, or when the last one needs them.

    Args:
        aws: The client.
        name: The capacity provider's name, which is the group's, too.
        session_id: Whose wish it is; a new one replaces its former.
        hosts: How many; 0 takes the wish back. It starts none: not more are kept than there are.
        until: Seconds since 1970.
        clock: What tells the time.

    Raises:
        NotSetUp: There is no such group, or it is not ours.
        CloudError: AWS did not do it.
    """
    there_are = (await _group(aws, name)).staying
    hold = Hold(session_id=session_id, until=math.ceil(until), hosts=min(hosts, there_are))
    await _hold(aws, name, {hold.tag: hold.value if hold.hosts else None}, clock or SystemClock())


async def clear(
    aws: Aws, name: str, session_id: str, *, warm: bool = False, clock: Clock | None = None
) -> None:
    """Take back what :func:`close_at` did, for a session that has ended; fine if there is nothing.

    Args:
        aws: The client.
        name: The capacity provider's name.
        session_id: The session that has ended.
        warm: Also let the hosts go that it keeps warm; else they stay for the next session.
        clock: What tells the time.

    Raises:
        CloudError: AWS did not do it.
    """
    group = await describe_group(aws, name)
    if group is None or group.deleting:
        return
    mine = {_OPEN + session_id, *([_WARM + session_id] if warm else [])}
    removed: dict[str, str | None] = {key: None for key in group.tags if key in mine}
    await _hold(aws, name, removed, clock or SystemClock())


async def _hold(aws: Aws, name: str, tags: Mapping[str, str | None], clock: Clock) -> None:
    group = await _group(aws, name)
    changes = {key: value for key, value in tags.items() if group.tags.get(key) != value}
    if changes:
        await set_tags(aws, name, changes)
    await _settle(aws, name, clock)


async def _settle(aws: Aws, name: str, clock: Clock) -> None:
    """Bring the group to what its holds ask for.

    Others may do the same at the same time with fewer holds in sight. So whoever writes looks again afterwards, and is
    done when a look finds all as it should be: the last one to write has seen the holds of all.
    """
    for _ in range(_ROUNDS):
        group = await _group(aws, name)
        existing = {one for one in await list_actions(aws, name) if _ACTION.fullmatch(one)}
        goal = wanted(holds_of(group.tags), clock.time())
        names = {action.name: action for action in goal.actions}
        floor = min(goal.floor, group.max_size or MAX_HOSTS)
        changes = {} if group.min_size == floor else {"MinSize": floor}
        if goal.in_use and group.max_size == 0:
            changes["MaxSize"] = MAX_HOSTS
        if not changes and not goal.forgotten and existing == set(names):
            return
        # What may come too early goes first.
        for one in sorted(existing - set(names)):
            await remove_action(aws, name, one, clock=clock)
        if changes:
            await update_group(aws, name, clock=clock, **changes)
        for one in sorted(set(names) - existing):
            action = names[one]
            try:
                await put_action(aws, name, one, at=action.at, sizes=action.sizes, clock=clock)
            except CloudError as error:
                # Its moment has just come, or another client's action has it: the next look knows.
                if "in the past" not in error.message and error.code != "AlreadyExists":
                    raise
        await set_tags(aws, name, dict.fromkeys(goal.forgotten))
    raise CloudUnavailable(
        f"the scheduled actions of {name} are changed by others all the time", hint="try again in a minute"
    )


async def _group(aws: Aws, name: str) -> Group:
    group = await describe_group(aws, name)
    if group is None or group.deleting:
        raise NotSetUp(
            f"there is no EC2 capacity {name} in {aws.region}",
            hint='launch_type="EC2" makes it on first use; `starburst setup` checks the rest',
        )
    return group


def _floor(warm: Iterable[Hold], after: int) -> int:
    return max((hold.hosts or 0 for hold in warm if hold.until > after), default=0)
