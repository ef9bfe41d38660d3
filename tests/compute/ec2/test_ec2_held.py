"""Holds of sessions on a group in an account: several sessions, clients that are killed, times that pass."""

import asyncio
import itertools

import pytest
from ec2_world import (
    Aws,
    CountingAws,
    StoppedError,
    StoppingAws,
    ensure,
    run,
)

from starburst.aws.autoscaling import MAX_HOSTS
from starburst.compute.ec2_holds import clear, close_at, keep_warm
from starburst.errors import NotSetUp
from starburst.testing.clock import ManualClock


class TestHolds:
    NOW = 2_000_000_000

    @pytest.fixture
    def clock(self):
        return ManualClock(wall_s=self.NOW)

    @pytest.fixture
    def group(self, aws, account):
        return ensure(aws, account).name

    def test_the_deadline_closes_the_group(self, aws, account, group, clock):
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 100, clock=clock))
        nothing = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
        assert list(account.actions(group).values()) == [(self.NOW + 221, nothing)]

    def test_extending_moves_it_and_the_end_of_the_session_removes_it(self, aws, account, group, clock):
        for seconds in (100, 5000):
            run(close_at(aws, group, "session-a", deadline_at=self.NOW + seconds, grace_s=0, clock=clock))
            assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + seconds + 1]
        run(clear(aws, group, "session-a", clock=clock))
        assert account.actions(group) == {}
        assert account.holds(group) == {}

    def test_a_session_never_shortens_another(self, aws, account, group, clock):
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 5000, grace_s=0, clock=clock))
        run(close_at(aws, group, "session-b", deadline_at=self.NOW + 100, grace_s=0, clock=clock))
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 5001]
        run(clear(aws, group, "session-a", clock=clock))
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 101]

    @pytest.fixture
    def hosts(self, account, group):
        account.autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=3)

    def test_no_host_is_started_to_be_kept(self, aws, account, group, clock):
        run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
        assert account.group(group)["MinSize"] == account.group(group)["DesiredCapacity"] == 0
        assert account.holds(group) == {}

    def test_warm_hosts_stay_and_go_by_themselves(self, aws, account, group, hosts, clock):
        run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
        assert account.group(group)["MinSize"] == 2
        assert list(account.actions(group).values()) == [
            (self.NOW + 600, {"MinSize": 0, "DesiredCapacity": 0})
        ]
        run(clear(aws, group, "session-a", clock=clock))
        assert account.group(group)["MinSize"] == 2, "they stay for the next session"
        run(clear(aws, group, "session-a", warm=True, clock=clock))
        assert account.group(group)["MinSize"] == 0
        assert account.actions(group) == {}

    def test_a_wish_for_no_hosts_takes_the_former_back(self, aws, account, group, hosts, clock):
        run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
        run(keep_warm(aws, group, "session-a", hosts=0, until=self.NOW + 600, clock=clock))
        assert (account.group(group)["MinSize"], account.actions(group)) == (0, {})

    def test_the_same_again_changes_nothing(self, account, group, hosts, clock):
        aws = CountingAws()
        for _ in range(2):
            aws.calls.clear()
            run(keep_warm(aws, group, "session-a", hosts=2, until=self.NOW + 600, clock=clock))
            run(close_at(aws, group, "session-a", deadline_at=self.NOW + 900, clock=clock))
        assert {one for one in aws.calls if not one.startswith("describe")} == set()

    def test_a_closed_group_is_opened_by_the_next_session(self, aws, account, group, clock):
        account.autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=0)
        run(close_at(aws, group, "session-b", deadline_at=self.NOW + 900, clock=clock))
        assert account.group(group)["MaxSize"] == MAX_HOSTS

    def test_what_died_sessions_left_is_removed_by_others(self, aws, account, group, clock):
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 10, grace_s=0, clock=clock))
        clock.advance(4000)
        run(close_at(aws, group, "session-b", deadline_at=self.NOW + 9000, grace_s=0, clock=clock))
        assert set(account.holds(group)) == {"starburst:open:session-b"}
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 9001]

    def test_actions_of_the_user_stay(self, aws, account, group, clock):
        account.autoscaling.put_scheduled_update_group_action(
            AutoScalingGroupName=group, ScheduledActionName="nightly", Recurrence="0 3 * * *", MaxSize=50
        )
        run(close_at(aws, group, "session-a", deadline_at=self.NOW + 100, clock=clock))
        run(clear(aws, group, "session-a", clock=clock))
        assert set(account.actions(group)) == {"nightly"}

    def test_many_sessions_at_once_agree_on_the_latest(self, account, group, clock):
        async def all_at_once():
            await asyncio.gather(
                *(
                    close_at(
                        Aws(), group, f"session-{n}", deadline_at=self.NOW + 100 * n, grace_s=0, clock=clock
                    )
                    for n in range(1, 9)
                )
            )

        run(all_at_once())
        assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 801]

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_client_that_is_killed_never_leaves_a_close_that_is_too_early(
        self, account, group, clock, after
    ):
        for at in itertools.count():
            run(close_at(Aws(), group, "session-a", deadline_at=self.NOW + 100, grace_s=0, clock=clock))
            try:
                run(
                    close_at(
                        StoppingAws(at, after=after),
                        group,
                        "session-b",
                        deadline_at=self.NOW + 9000,
                        grace_s=0,
                        clock=clock,
                    )
                )
            except StoppedError:
                if "starburst:open:session-b" in account.holds(group):
                    run(
                        close_at(
                            Aws(), group, "session-a", deadline_at=self.NOW + 100, grace_s=0, clock=clock
                        )
                    )
                    assert [moment for moment, _ in account.actions(group).values()] == [self.NOW + 9001]
                run(clear(Aws(), group, "session-b", clock=clock))
            else:
                assert at == 3
                return

    def test_without_a_group(self, aws, account, clock):
        with pytest.raises(NotSetUp, match="no EC2 capacity"):
            run(close_at(aws, "starburst-nothing", "session-a", deadline_at=self.NOW + 1, clock=clock))
        run(clear(aws, "starburst-nothing", "session-a", clock=clock))
