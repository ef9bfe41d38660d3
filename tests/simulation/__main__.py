# ruff: noqa: T201
"""Many seeds, one after the other: ``python tests/simulation --seeds 5000``; ``--seed 17 --trace`` repeats one."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import traceback

from sim_checks import violations
from sim_world import run_seed

PATIENCE_S = 300
"""Real seconds that a seed may take: a loop that never waits would otherwise be there for ever."""


def examine(job: tuple[int, int]) -> tuple[int, list[str]]:
    """What is wrong with a seed."""
    seed, scale = job
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_S)
    try:
        return seed, violations(run_seed(seed, scale=scale))
    except (Exception, Endless):
        return seed, [traceback.format_exc()]
    finally:
        signal.alarm(0)


class Endless(BaseException):
    """No except clause of the code in question must catch it."""


def give_up(*_: object) -> None:
    raise Endless(f"still running after {PATIENCE_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--scale", type=int, default=1, help="so many times the workers and tasks")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="seeds at a time")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    given = parser.parse_args()
    if given.seed is not None:
        world = run_seed(given.seed, scale=given.scale, trace=given.trace)
        found = violations(world)
        print(
            *(world.network.trace or ()), world.plan, *found, f"digest {world.network.digest:08x}", sep="\n"
        )
        return 1 if found else 0
    seeds = [(seed, given.scale) for seed in range(given.first, given.first + given.seeds)]
    bad = 0
    with multiprocessing.Pool(given.jobs) as pool:
        for n, (seed, found) in enumerate(pool.imap_unordered(examine, seeds, chunksize=5), 1):
            if found:
                bad += 1
                repeat = f"python tests/simulation --seed {seed} --scale {given.scale} --trace"
                print(f"seed {seed}: {repeat}", *(f"  {line}" for line in found[:10]), sep="\n", flush=True)
            if n % 500 == 0:
                print(f"{n} seeds, {bad} of them bad", flush=True)
    print(f"{len(seeds)} seeds, {bad} of them bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
