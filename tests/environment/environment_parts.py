"""What tests of locks and builds share."""

import asyncio
import sys

from starburst.environment.finding import find_lock
from starburst.environment.platforms import Platform
from starburst.environment.steps import Steps

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CPYTHON = f"cp{PYTHON.replace('.', '')}"
PLATFORM = Platform(PYTHON, "X86_64")
ARM = Platform(PYTHON, "ARM64")


def run(coroutine):
    return asyncio.run(coroutine)


def lock_of(folder, platform=PLATFORM, *, worker=False, **options):
    steps = Steps()
    return run(find_lock(folder, platform, steps, worker=worker, **options)), steps
