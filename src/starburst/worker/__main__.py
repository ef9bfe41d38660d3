"""``python -m starburst.worker URL``: what providers start."""

import sys

from starburst.worker.main import main

if __name__ == "__main__":
    sys.exit(main())
