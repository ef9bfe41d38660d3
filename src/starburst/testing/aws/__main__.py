"""``python -m starburst.testing.aws OPTIONS``: the simulator's process. OPTIONS is JSON; the handle writes it."""

from __future__ import annotations

import logging
import sys

import msgspec

from starburst.testing.aws.world import SimOptions


def main() -> None:
    """Run until standard input is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    options = msgspec.json.decode(sys.argv[1].encode(), type=SimOptions)

    from starburst.testing.aws import environment

    environment.prepare(options)
    from starburst.testing.aws import server

    server.run(options)


if __name__ == "__main__":
    main()
