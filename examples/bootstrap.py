"""Bootstrap: confidence intervals of a regression, from one data set that all tasks share.

python examples/bootstrap.py [SAMPLES]
"""

import itertools
import sys

import numpy as np

import starburst


def make_data(rows: int = 50_000) -> np.ndarray:
    random = np.random.default_rng(1)
    measured = random.standard_normal((rows, 3))
    outcome = measured @ [2.0, -1.0, 0.5] + random.standard_normal(rows)
    return np.column_stack([measured, outcome])


def slopes(data: np.ndarray, seed: int) -> np.ndarray:
    """Least squares on rows drawn with replacement."""
    sample = data[np.random.default_rng(seed).integers(0, len(data), len(data))]
    return np.linalg.lstsq(sample[:, :-1], sample[:, -1], rcond=None)[0]


def main(samples: int = 200) -> None:
    data = make_data()
    # The same array goes to every task; it is written once and mapped into memory by the workers.
    found = starburst.map(slopes, itertools.repeat(data, samples), range(samples))
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    for name, left, right in zip("abc", low, high, strict=True):
        print(f"slope {name}: {left:+.4f} … {right:+.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
