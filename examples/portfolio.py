"""Monte Carlo: a year of a portfolio, thousands of times.

python examples/portfolio.py [SIMULATIONS]
"""

import sys

import numpy as np

import starburst

EXPECTED = np.array([0.03, 0.05, 0.07, 0.09])  # a year's return of each asset
VOLATILITY = np.array([0.05, 0.12, 0.18, 0.30])
WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])
DAYS = 252


def one_year(seed: int) -> float:
    """The return of one simulated year. Its own seed makes each task repeatable, wherever it runs."""
    random = np.random.default_rng(seed)
    daily = random.normal(EXPECTED / DAYS, VOLATILITY / np.sqrt(DAYS), size=(DAYS, len(WEIGHTS)))
    return float(np.prod(1 + daily @ WEIGHTS) - 1)


def main(simulations: int = 10_000) -> None:
    returns = np.array(starburst.map(one_year, range(simulations)))
    print(f"{simulations:,} years: mean {returns.mean():+.2%}, worst {returns.min():+.2%}")
    print(f"value at risk, 95%: {-np.quantile(returns, 0.05):.2%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
