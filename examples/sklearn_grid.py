"""A hyper-parameter search on scikit-learn's handwritten digits, with the standard library's interface.

python examples/sklearn_grid.py [CANDIDATES]
"""

import itertools
import sys
from concurrent.futures import as_completed

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

import starburst

GRID = [
    {"C": cost, "gamma": gamma}
    for cost, gamma in itertools.product([0.1, 1.0, 10.0], [0.0001, 0.0003, 0.001, 0.003])
]


def accuracy(candidate: dict[str, float]) -> float:
    images, digits = load_digits(return_X_y=True)
    return float(cross_val_score(SVC(**candidate), images, digits, cv=3).mean())


def main(candidates: int = len(GRID)) -> None:
    with starburst.Executor() as pool:
        asked = {pool.submit(accuracy, candidate): candidate for candidate in GRID[:candidates]}
        scores = {}
        for future in as_completed(asked):
            scores[future.result()] = asked[future]
            print(f"{future.result():.4f}  {asked[future]}")
    print(f"best: {scores[max(scores)]} with {max(scores):.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
