"""``python -m starburst.testing.aws OPTIONS``: the simulator's process. OPTIONS is JSON; the handle writes it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import msgspec

from starburst.testing.aws import environment
from starburst.testing.aws.seaweed import Seaweed
from starburst.testing.aws.world import SimOptions


def main() -> None:
    """Run until standard input is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    options = msgspec.json.decode(sys.argv[1].encode(), type=SimOptions)

    environment.prepare(options)
    seaweed = Seaweed(Path(options.folder) / "s3")
    seaweed.start()

    from starburst.testing.aws import server  # imports moto, which reads its environment and takes a second

    server.run(options, seaweed)


if __name__ == "__main__":
    main()
