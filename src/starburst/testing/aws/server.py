"""The simulator's process: puts the parts together, runs until its standard input is closed, ends everything."""

from __future__ import annotations

import contextlib
import json
import logging
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from werkzeug.serving import ThreadedWSGIServer

from starburst.testing.aws import (
    codebuild,
    default_network,
    ec2,
    ecr,
    ecs,
    gate,
    lifecycle,
    limits,
    prices,
    quotas,
    verbs,
)
from starburst.testing.aws.control import Control
from starburst.testing.aws.front import Front
from starburst.testing.aws.scripts import Scripts
from starburst.testing.aws.seaweed import Seaweed
from starburst.testing.aws.timers import Timers
from starburst.testing.aws.world import SimOptions, World

__all__ = ["run"]

# Each part adds itself to the world: filters of the front, routes of the control server, hooks into moto.
# Filters run in this order. Parts need nothing of each other while they are installed.
_PARTS: tuple[Callable[[World], None], ...] = (
    gate.install,
    limits.install,
    default_network.install,
    lifecycle.install,
    ecs.install,
    ec2.install,
    quotas.install,
    prices.install,
    codebuild.install,
    ecr.install,
    verbs.install,
)

_log = logging.getLogger(__name__)


def run(options: SimOptions, seaweed: Seaweed) -> None:
    """Run one simulator; prints one line of JSON when it is ready.

    Args:
        options: How the account behaves.
        seaweed: Was started already, as it takes longest.
    """
    # Children must end with us, whatever happens from here on.
    with contextlib.ExitStack() as last:
        last.callback(seaweed.stop)
        world = World(options, Path(options.folder))
        world.timers, world.scripts = Timers(), Scripts()
        world.front, world.control = Front(world), Control()
        last.callback(_end, world)
        server = _serve(world)
        last.callback(server.shutdown)
        for install in _PARTS:
            install(world)
        world.timers.start()
        world.control.start()
        seaweed.wait()
        world.seaweed_endpoint = seaweed.endpoint
        ready = {
            "endpoint": world.endpoint,
            "s3_endpoint": world.s3_endpoint,
            "control": world.control.endpoint,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()


def _end(world: World) -> None:
    world.timers.stop()
    for action in reversed(world.at_exit):
        try:
            action()
        except Exception:  # noqa: BLE001 - the other parts must end, too
            _log.exception("the end of one part failed")
    world.control.stop()


class _Requests(ThreadedWSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def _serve(world: World) -> socketserver.BaseServer:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # clients keep their connections: hundreds of them ask at once
        disable_nagle_algorithm = True

        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - name of the base class
            """Requests are not logged."""

    server = _Requests("127.0.0.1", 0, world.front, handler=Handler)
    world.endpoint = f"http://127.0.0.1:{server.port}"
    threading.Thread(target=server.serve_forever, name="front", daemon=True).start()
    return server
