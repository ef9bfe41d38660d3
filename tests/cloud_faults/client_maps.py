"""Maps over two workers until it is killed: N_TASKS SECONDS."""

import sys

import cloud_tasks

import starburst

n_tasks, seconds = int(sys.argv[1]), float(sys.argv[2])

if __name__ == "__main__":
    starburst.map(cloud_tasks.slow_square, range(n_tasks), [seconds] * n_tasks, workers=2, progress=False)
