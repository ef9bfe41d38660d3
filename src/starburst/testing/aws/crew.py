"""A process that is many light-weight workers at once: real agents, whose tasks run in the agents' own process.

It serves measurements of the protocol with hundreds of workers on a small machine. A task that crashes takes the
whole crew with it, and one that runs long holds all of it up: this is no place for tests of such things.

Standard input brings orders, a line of JSON each, and its end is the end; standard output tells of exits:

    {"start": "<id>", "url": …, "worker": …, "ordinal": 3, "slots": 1}    {"stop": "<id>"}    {"kill": "<id>"}
    {"exit": "<id>", "code": 0}
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starburst.clock import SystemClock
from starburst.protocol.keys import Keys, split_session_url
from starburst.protocol.sessions import read_manifest
from starburst.store import open_store
from starburst.store.base import Store
from starburst.testing.simulation import Act, simulated_runners
from starburst.worker.agent import Agent, AgentOptions
from starburst.worker.objects_cache import ObjectCache

__all__ = ["main"]

_KILLED, _FAILED = 137, 1
_THREADS = 128


class _Crew:
    def __init__(self) -> None:
        self._clock = SystemClock()
        self._stores: dict[str, Store] = {}
        self._agents: dict[str, Agent] = {}
        self._tasks: dict[str, asyncio.Task[int]] = {}

    def obey(self, order: dict[str, Any]) -> None:
        match order:
            case {"start": str(name)}:
                task = self._tasks[name] = asyncio.ensure_future(self._work(name, order))
                task.add_done_callback(lambda done: self._tell(name, done))
            case {"stop": str(name)} if name in self._agents:
                self._agents[name].stop("asked to stop (SIGTERM)")
            case {"stop": str(name)} | {"kill": str(name)} if name in self._tasks:
                self._tasks[name].cancel()

    async def _work(self, name: str, order: dict[str, Any]) -> int:
        root_url, session_id = split_session_url(order["url"])
        store = self._stores.get(root_url)
        if store is None:
            store = self._stores[root_url] = open_store(root_url, clock=self._clock)
        manifest = await read_manifest(store, session_id)
        sys.path += [path for path in manifest.environment.sys_path if path not in sys.path]
        agent = self._agents[name] = Agent(
            store,
            manifest,
            AgentOptions(worker=order["worker"], ordinal=order["ordinal"], slots=order["slots"]),
            clock=self._clock,
            launch_runner=simulated_runners(lambda job, task, args: Act(), self._clock),  # noqa: ARG005
            cache=ObjectCache(store, Keys(session_id)),
            usage=lambda: (0.0, 0),
        )
        await agent.run()
        return 0

    def _tell(self, name: str, done: asyncio.Task[int]) -> None:
        self._agents.pop(name, None)
        self._tasks.pop(name, None)
        code = _KILLED if done.cancelled() else _FAILED if done.exception() is not None else done.result()
        print(json.dumps({"exit": name, "code": code}), flush=True)  # noqa: T201 - this is its answer


async def _serve() -> None:
    crew = _Crew()
    loop = asyncio.get_running_loop()
    # The store's requests wait in threads: half a dozen, as many as one worker needs, would be a queue for hundreds.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "store"))
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        crew.obey(json.loads(line))


def main() -> int:
    """``python -m starburst.testing.aws.crew``."""
    asyncio.run(_serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
