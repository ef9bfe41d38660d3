"""The log group of workers and supervisors; without a retention CloudWatch would keep its lines for ever."""

from __future__ import annotations

from dataclasses import dataclass

from starburst.aws.clients import Aws
from starburst.aws.names import LOG_GROUP, LOG_RETENTION_DAYS
from starburst.aws.policies import log_group_arn
from starburst.aws.resource import MISSING, Scope, State, is_ours, make_sure_ours
from starburst.errors import OptionError

__all__ = ["LogGroup", "check_retention"]

_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)


def check_retention(days: int) -> None:
    """Refuse what CloudWatch does not offer.

    Raises:
        OptionError: It does not.
    """
    if days not in _DAYS:
        raise OptionError(
            f"log_days={days} is not a time for which CloudWatch keeps lines",
            hint=f"one of {', '.join(map(str, _DAYS))}",
        )


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Our log group.

    Attributes:
        aws: Whose account.
        scope: Its region.
        days: How long lines are kept; None leaves it as it is, 7 days in a new one.
    """

    aws: Aws
    scope: Scope
    days: int | None = None
    kind = "log group"

    @property
    def name(self) -> str:
        """The group's name."""
        return LOG_GROUP

    @property
    def way_out(self) -> str:
        """Its name is fixed."""
        return (
            "delete it, or hand it over (`starburst teardown` then removes it): aws logs tag-resource "
            f"--resource-arn {log_group_arn(self.scope)} --tags starburst:managed=true"
        )

    async def state(self) -> State:
        """As :meth:`starburst.aws.resource.Resource.state`."""
        groups = await self.aws.pages(
            "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=LOG_GROUP
        )
        found = next((group for group in groups if group["logGroupName"] == LOG_GROUP), None)
        if found is None:
            return MISSING
        arn = log_group_arn(self.scope)
        tags = await self.aws.call("logs", "list_tags_for_resource", resourceArn=arn)
        if not is_ours(tags.get("tags")):
            return State("foreign")
        days = found.get("retentionInDays")
        if days is None:
            return State.of([f"keeps lines for ever, not {self.days or LOG_RETENTION_DAYS} days"])
        return State.of(
            [f"keeps lines for {days} days, not {self.days}"] if self.days not in (None, days) else []
        )

    async def ensure(self) -> None:
        """As :meth:`starburst.aws.resource.Resource.ensure`."""
        state = await self.state()
        make_sure_ours(self, state)
        if state.condition == "missing":
            await self.aws.call("logs", "create_log_group", logGroupName=LOG_GROUP, tags=self.scope.tags)
        if state.condition != "ours":
            await self.aws.call(
                "logs",
                "put_retention_policy",
                logGroupName=LOG_GROUP,
                retentionInDays=self.days or LOG_RETENTION_DAYS,
            )

    async def remove(self) -> bool:
        """As :meth:`starburst.aws.resource.Removable.remove`; with all lines."""
        if not (await self.state()).is_ours:
            return False
        await self.aws.call("logs", "delete_log_group", logGroupName=LOG_GROUP)
        return True
