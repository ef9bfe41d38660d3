"""``python -m starburst.worker URL``: what providers start."""

import sys

from starburst.worker.main import main

sys.exit(main())
