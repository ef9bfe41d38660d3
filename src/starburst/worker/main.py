"""A worker's entry point: open the session, check that we fit, work, leave."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from starburst.clock import SystemClock, leave_after
from starburst.config import patience_s
from starburst.container import in_ecs, on_ec2, task_arn
from starburst.errors import StarburstError
from starburst.options import CLOUD
from starburst.protocol.keys import Keys, new_worker_id, split_session_url, worker_of_task
from starburst.protocol.records import Manifest
from starburst.protocol.sessions import read_manifest
from starburst.store import open_store
from starburst.store.base import Store
from starburst.store.retry import RetryingStore
from starburst.worker.agent import Agent, AgentOptions
from starburst.worker.code_layer import CodeLayers
from starburst.worker.fit import misfit
from starburst.worker.heartbeat import Pulse
from starburst.worker.interruption import watch_for_interruption
from starburst.worker.objects_cache import ObjectCache
from starburst.worker.runner_process import RunnerPort, RunnerProcess

__all__ = ["main", "run_worker"]

log = logging.getLogger("starburst.worker")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 3
_LAST_RESORT_S = 30.0
_MAX_TRIES = 10_000
_ECS_DRAIN_S = 90.0
"""ECS leaves two minutes between SIGTERM and SIGKILL, and so does a Spot notice; the rest is for flushing."""


def run_worker(
    url: str, *, worker: str | None = None, ordinal: int = 0, of: int = 1, slots: int | None = None
) -> int:
    """Work for the session at ``url`` until it has nothing to do or ends.

    Args:
        url: The session's URL, ``<store>/sessions/<id>``.
        worker: Our name; None takes that of our ECS task, or makes one.
        ordinal: Our number among the workers; it only spreads where workers begin.
        of: So many were started with this number; each finds its own place behind it.
        slots: Tasks at a time; None takes the session's option.

    Returns:
        0 if it left in order, 1 if it failed, 3 if it does not fit the session.

    Raises:
        StarburstError: The URL, the store or the session is not there.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("STARBURST_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(message)s",
    )
    root_url, session_id = split_session_url(url)
    name = worker or _own_name()
    if of > 1:
        ordinal += zlib.crc32(name.encode()) % of
    return asyncio.run(_work(root_url, session_id, name, ordinal, slots))


def _own_name() -> str:
    arn = task_arn()
    return new_worker_id() if arn is None else worker_of_task(arn)


async def _work(root_url: str, session_id: str, worker: str, ordinal: int, slots: int | None) -> int:
    clock = SystemClock()
    store: Store = open_store(root_url, clock=clock)
    # A store that is down or full for less long costs a worker nothing but time.
    store = RetryingStore(store, clock=clock, max_tries=_MAX_TRIES, max_total_s=patience_s(), full_too=True)
    manifest = await read_manifest(store, session_id)
    options = AgentOptions(
        worker=worker,
        ordinal=ordinal,
        slots=slots or manifest.slots,
        memory_bytes=manifest.memory_bytes,
        **({"drain_s": _ECS_DRAIN_S} if in_ecs() else {}),
    )
    if (why := misfit(manifest)) is not None:
        await _refuse(store, manifest, options, why)
        return EXIT_REFUSED

    sys_path = manifest.environment.sys_path if _shares_folders(manifest) else ()

    async def launch_runner(locate: object) -> RunnerPort:
        return await RunnerProcess.start(locate, sys_path=sys_path)  # type: ignore[arg-type]

    cache = ObjectCache(store, Keys(session_id))
    layers = None if _is_here(manifest) else CodeLayers(store, Keys(session_id))
    agent = Agent(
        store, manifest, options, clock=clock, launch_runner=launch_runner, cache=cache, layers=layers
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: agent.stop("asked to stop (SIGTERM)"))
    loop.add_signal_handler(signal.SIGINT, lambda: agent.stop("interrupted", at_once=True))
    leave_after(lambda: agent.state.deadline_at, grace_s=_LAST_RESORT_S, exit_code=EXIT_FAILED)
    watch = asyncio.ensure_future(watch_for_interruption(clock, agent.stop)) if on_ec2() else None
    log.info("worker %s works for %s in %s", worker, session_id, root_url)
    try:
        reason = await agent.run()
    finally:
        if watch is not None:
            watch.cancel()
        cache.close()
        if layers is not None:
            layers.close()
    log.info("worker %s leaves: %s", worker, reason)
    return EXIT_OK


def _shares_folders(manifest: Manifest) -> bool:
    """Whether workers import from the folders of the program that made the session, as far as they have them."""
    return manifest.launch_type not in CLOUD and not manifest.environment.lock


def _is_here(manifest: Manifest) -> bool:
    """Whether this is the machine of the program that made the session, and its folders are used as they are."""
    return (
        _shares_folders(manifest)
        and manifest.host == socket.gethostname()
        and Path(manifest.environment.cwd).is_dir()
    )


async def _refuse(store: Store, manifest: Manifest, options: AgentOptions, why: str) -> None:
    log.error("%s", why)
    pulse = Pulse(
        store,
        Keys(manifest.session_id),
        worker=options.worker,
        slots=options.slots,
        clock=SystemClock(),
        running=tuple,
    )
    state: Literal["refused"] = "refused"
    pulse.say(state, why)
    await pulse.beat()


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m starburst.worker URL``."""
    parser = argparse.ArgumentParser(prog="python -m starburst.worker", description=run_worker.__doc__)
    parser.add_argument("url")
    parser.add_argument("--worker")
    parser.add_argument("--ordinal", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--slots", type=int)
    given = parser.parse_args(arguments)
    try:
        return run_worker(
            given.url, worker=given.worker, ordinal=given.ordinal, of=given.of, slots=given.slots
        )
    except (StarburstError, OSError) as error:
        print(f"starburst worker: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return EXIT_FAILED
