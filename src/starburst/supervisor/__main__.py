"""``python -m starburst.supervisor URL``."""

import sys

from starburst.supervisor.main import main

if __name__ == "__main__":
    sys.exit(main())
