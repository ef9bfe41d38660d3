"""What the handle asks of the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from starburst.testing.aws import resources
from starburst.testing.aws.control import Reply, Request

if TYPE_CHECKING:
    from starburst.testing.aws.tasks import Task
    from starburst.testing.aws.world import World

__all__ = ["install"]


def install(world: World) -> None:
    """Add the verbs to the control server; each takes an object in JSON and runs under the world's lock."""

    def verb(name: str, action: Callable[[dict[str, Any]], Any]) -> None:
        def answer(request: Request) -> Reply:
            with world.lock:
                result = action(request.json())
                return Reply({} if result is None else result)

        world.control.route(f"/verbs/{name}", answer)

    def task(given: dict[str, Any]) -> Task:
        return world.tasks[str(given["task"]).rpartition("/")[2]]

    def fail(given: dict[str, Any]) -> dict[str, int]:
        script = world.scripts.add(
            given["operation"], given["kind"], times=given.get("times"), where=given.get("where") or {}
        )
        return {"script": script}

    def kill(given: dict[str, Any]) -> None:
        world.lifecycle.kill(task(given), "", "", out_of_memory=bool(given.get("out_of_memory")))

    def tasks(_given: dict[str, Any]) -> list[Any]:
        return [msgspec.to_builtins(each.info()) for each in world.tasks.values()]

    verb("tasks", tasks)
    verb("interrupt", lambda given: world.lifecycle.interrupt(task(given)))
    verb("kill", kill)
    verb(
        "quota", lambda given: world.quotas.update({(given["service"], given["code"]): float(given["value"])})
    )
    verb("fail", fail)
    verb("clear", lambda given: world.scripts.clear(given.get("script")))
    verb("calls", lambda _given: dict(world.calls))
    verb("throttled", lambda _given: dict(world.throttled))
    verb("resources", lambda _given: resources.inventory(world))
