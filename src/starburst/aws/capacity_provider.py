"""ECS capacity providers: how a cluster scales an Auto Scaling group for the tasks that wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from starburst.aws.clients import Aws
from starburst.aws.names import MANAGED_TAG
from starburst.aws.ours import check_ours
from starburst.aws.waiting import BUSY, call_when_idle, wait_until
from starburst.clock import Clock
from starburst.errors import CloudError, NotSetUp

__all__ = [
    "attach_provider",
    "attached_providers",
    "detach_provider",
    "ensure_provider",
    "remove_provider",
]

_WAIT_S = 180.0
_SETTLED_S = 2.0


async def ensure_provider(aws: Aws, name: str, *, group_arn: str, cluster: str, clock: Clock) -> str:
    """Make it for the group; returns its full name. One that is bound to a former group is made anew.

    Raises:
        NotSetUp: There is one of that name that is not ours.
        CloudError: AWS did not do it.
    """
    found = await _describe(aws, name)
    if found is not None and found.get("updateStatus") == "DELETE_IN_PROGRESS":
        await _gone(aws, name, clock=clock)
        found = None
    if found is not None and found["autoScalingGroupProvider"]["autoScalingGroupArn"] != group_arn:
        await remove_provider(aws, name, cluster=cluster, clock=clock)
        found = None
    if found is not None:
        if _differs(found["autoScalingGroupProvider"]):
            await call_when_idle(
                aws,
                "ecs",
                "update_capacity_provider",
                clock=clock,
                name=name,
                autoScalingGroupProvider=_settings(),
            )
        return str(found["capacityProviderArn"])
    try:
        answer = await call_when_idle(
            aws,
            "ecs",
            "create_capacity_provider",
            clock=clock,
            name=name,
            autoScalingGroupProvider={"autoScalingGroupArn": group_arn, **_settings()},
            tags=[{"key": MANAGED_TAG, "value": "true"}],
        )
    except CloudError:
        found = await _describe(aws, name)
        if found is None or found["autoScalingGroupProvider"]["autoScalingGroupArn"] != group_arn:
            raise
        return str(found["capacityProviderArn"])  # somebody was quicker; perhaps another session
    return str(answer["capacityProvider"]["capacityProviderArn"])


async def attached_providers(aws: Aws, cluster: str) -> tuple[str, ...]:
    """The names of the cluster's providers.

    Raises:
        NotSetUp: There is no such cluster.
        CloudError: AWS did not answer.
    """
    return tuple((await _cluster(aws, cluster)).get("capacityProviders", ()))


async def attach_provider(aws: Aws, cluster: str, *names: str, clock: Clock) -> bool:
    """Let the cluster use it (or several), besides those that it uses already; returns whether it did not before.

    Raises:
        NotSetUp: There is no such cluster.
        CloudError: AWS did not do it, or not in time.
    """
    return await _change(
        aws, cluster, lambda have: [*have, *(name for name in names if name not in have)], clock=clock
    )


async def detach_provider(aws: Aws, cluster: str, name: str, *, clock: Clock) -> bool:
    """Take it from the cluster; returns whether it was there.

    Raises:
        NotSetUp: There is no such cluster.
        CloudError: AWS did not do it, or not in time; tasks that use it must end first.
    """
    return await _change(aws, cluster, lambda names: [one for one in names if one != name], clock=clock)


async def remove_provider(aws: Aws, name: str, *, cluster: str, clock: Clock) -> bool:
    """Take it from the cluster and remove it; returns whether it was there.

    Raises:
        NotSetUp: It is not ours.
        CloudError: AWS did not do it, or not in time.
    """
    if await _describe(aws, name) is None:
        return False
    with contextlib.suppress(NotSetUp):  # no cluster: nothing to take it from
        await detach_provider(aws, cluster, name, clock=clock)
    await call_when_idle(aws, "ecs", "delete_capacity_provider", clock=clock, capacityProvider=name)
    await _gone(aws, name, clock=clock)
    return True


async def _change(aws: Aws, cluster: str, change: Callable[[list[str]], list[str]], *, clock: Clock) -> bool:
    """Change the cluster's list until it is so: AWS takes whole lists only, and others may write theirs in between.

    One that had read the list before our change was there drops it by its own, just after we saw it. So what we have
    changed has to be there twice, longer apart than others take from reading to writing.
    """
    changed = settled = False

    async def so() -> bool:
        nonlocal changed, settled
        while True:
            found = await _cluster(aws, cluster)
            status = found.get("attachmentsStatus", "")
            names = list(found.get("capacityProviders", ()))
            wanted = change(names)
            if status == "UPDATE_IN_PROGRESS":
                return False
            if wanted == names:
                if status == "UPDATE_FAILED" and changed:
                    raise _failed(cluster, found)
                if changed and not settled:
                    settled = True
                    await clock.sleep(_SETTLED_S)
                    continue
                return True
            strategy = found.get("defaultCapacityProviderStrategy", ())
            try:
                await aws.call(
                    "ecs",
                    "put_cluster_capacity_providers",
                    cluster=cluster,
                    capacityProviders=wanted,
                    defaultCapacityProviderStrategy=[
                        one for one in strategy if one["capacityProvider"] in wanted
                    ],
                )
            except CloudError as error:
                if error.code not in BUSY:
                    raise
                return False
            changed, settled = True, False

    await wait_until(
        so,
        clock=clock,
        timeout_s=_WAIT_S,
        what=f"the capacity providers of the cluster {cluster} to be changed",
        hint="another change of the cluster, or a task that uses the provider, is in the way; try again later",
    )
    return changed


def _failed(cluster: str, found: dict[str, Any]) -> CloudError:
    details = [
        f"{detail['name']}: {detail['value']}"
        for attachment in found.get("attachments", ())
        if attachment.get("status") == "FAILED"
        for detail in attachment.get("details", ())
    ]
    why = "; ".join(details) or "no reason given"
    return CloudError(
        f"ECS could not attach the capacity providers of the cluster {cluster}: {why}",
        hint="`starburst setup --check` shows what is missing",
        operation="ecs:PutClusterCapacityProviders",
    )


async def _gone(aws: Aws, name: str, *, clock: Clock) -> None:
    async def gone() -> bool:
        return await _describe(aws, name) is None

    await wait_until(gone, clock=clock, timeout_s=_WAIT_S, what=f"the capacity provider {name} to end")


async def _describe(aws: Aws, name: str) -> dict[str, Any] | None:
    answer = await aws.call("ecs", "describe_capacity_providers", capacityProviders=[name], include=["TAGS"])
    for found in answer["capacityProviders"]:
        if found["status"] == "INACTIVE":
            continue  # removed; AWS still lists it for a while
        check_ours("a capacity provider", name, found.get("tags", ()), aws.region)
        return dict(found)
    return None


async def _cluster(aws: Aws, name: str) -> dict[str, Any]:
    answer = await aws.call("ecs", "describe_clusters", clusters=[name], include=["ATTACHMENTS"])
    for found in answer["clusters"]:
        if found["status"] != "INACTIVE":
            return dict(found)
    raise NotSetUp(f"there is no ECS cluster {name} in {aws.region}", hint="starburst setup")


def _settings() -> dict[str, Any]:
    return {
        "managedScaling": {"status": "ENABLED", "targetCapacity": 100},
        "managedTerminationProtection": "ENABLED",
        "managedDraining": "ENABLED",
    }


def _differs(found: dict[str, Any]) -> bool:
    scaling = found.get("managedScaling", {})
    is_now = (
        scaling.get("status"),
        scaling.get("targetCapacity"),
        found.get("managedTerminationProtection"),
        found.get("managedDraining", "ENABLED"),
    )
    return is_now != ("ENABLED", 100, "ENABLED", "ENABLED")
