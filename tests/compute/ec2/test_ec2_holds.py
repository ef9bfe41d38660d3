"""What AWS is told to do with shared hosts: never anything that takes from a session what it holds."""

import re

from hypothesis import given
from hypothesis import strategies as st

from starburst.compute.ec2_holds import Action, Hold, holds_of, wanted

NOW = 1_000_000


def opened(session, seconds):
    return Hold(session_id=session, until=NOW + seconds)


def warm(session, hosts, seconds):
    return Hold(session_id=session, until=NOW + seconds, hosts=hosts)


def test_nobody_needs_anything():
    nothing = wanted([], NOW)
    assert (nothing.floor, nothing.in_use, nothing.actions) == (0, False, frozenset())


def test_the_last_session_closes_the_group():
    goal = wanted([opened("a", 100), opened("b", 5000)], NOW)
    assert goal.actions == {Action(NOW + 5001)}
    assert goal.floor == 0


def test_warm_hosts_go_step_by_step():
    goal = wanted([warm("a", 10, 600), warm("b", 2, 3600)], NOW)
    assert goal.floor == 10
    assert goal.actions == {Action(NOW + 600, 2), Action(NOW + 3600, 0, idle=True)}


def test_warm_hosts_of_a_shorter_wish_are_part_of_a_longer_one():
    goal = wanted([warm("a", 2, 600), warm("b", 10, 3600)], NOW)
    assert goal.actions == {Action(NOW + 3600, 0, idle=True)}


def test_idle_hosts_are_left_while_another_session_may_still_want_them():
    goal = wanted([warm("a", 3, 600), opened("b", 3600)], NOW)
    assert goal.actions == {Action(NOW + 600, 0, idle=False), Action(NOW + 3601)}


def test_the_group_is_not_closed_before_the_last_warm_host_goes():
    goal = wanted([opened("a", 600), warm("b", 3, 3600)], NOW)
    assert goal.actions == {Action(NOW + 3600, 0, idle=True), Action(NOW + 3601)}


def test_what_has_ended_counts_no_more_and_is_forgotten_later():
    assert wanted([opened("a", -10), warm("b", 5, -10)], NOW) == wanted([], NOW)
    assert wanted([opened("a", -4000)], NOW).forgotten == ("starburst:open:a",)


def test_of_very_many_holds_those_that_are_over_are_forgotten_at_once():
    holds = [warm(f"s{i}", 1, 600 if i else -5) for i in range(30)]
    assert wanted(holds, NOW).forgotten == ("starburst:warm:s0",)
    assert wanted(holds[:20], NOW).forgotten == ()


def test_holds_survive_as_tags_and_other_tags_are_none():
    holds = [opened("session-1", 5), warm("session-2", 7, 9)]
    tags = {hold.tag: hold.value for hold in holds}
    foreign = {
        "starburst:managed": "true",
        "starburst:open:x": "soon",
        "starburst:warm:x": "3",
        "starburst:open:y": "",
        "starburst:open:z": "²",
    }
    assert holds_of(tags | foreign) == holds


sessions = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-5000, 5000), st.none() | st.integers(1, 9)), max_size=8
)


@given(sessions)
def test_no_action_takes_what_somebody_holds(drawn):
    holds = [Hold(session_id=f"s{who}", until=NOW + end, hosts=hosts) for who, end, hosts in drawn]
    goal = wanted(holds, NOW)
    moments = [action.at for action in goal.actions]
    assert len(set(moments)) == len(moments), "AWS takes no two actions of one moment"
    live = [hold for hold in holds if hold.until > NOW + 1]
    for hold in live:
        if hold.hosts is not None:
            assert goal.floor >= hold.hosts
    for action in goal.actions:
        assert action.at > NOW
        assert re.fullmatch(r"starburst-(close|floor)-[\d-]+(-idle)?", action.name)
        after = [hold for hold in live if hold.until > action.at]
        if action.floor is None or action.idle:
            assert not after, "hosts are taken from a session that lives"
        else:
            assert all(action.floor >= (hold.hosts or 0) for hold in after)
    assert goal.in_use == bool(live)


@given(sessions)
def test_in_the_end_nothing_stays(drawn):
    holds = [Hold(session_id=f"s{who}", until=NOW + end, hosts=hosts) for who, end, hosts in drawn]
    goal = wanted(holds, NOW)
    ordered = sorted(goal.actions)
    floor = goal.floor
    for action in ordered:
        floor = action.sizes["MinSize"]
    assert floor == 0
    if goal.in_use:
        assert ordered[-1].sizes["DesiredCapacity"] == 0
