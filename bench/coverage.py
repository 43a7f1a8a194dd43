"""How often 95 % intervals hold the truth, each in the regime that its documentation states.

    python bench/coverage.py [--runs 2000] [--seed 0] [--only NAME]

`near`: intervals that aim at 95 %; between 93.5 and 96.5 % is asked. `at_least`: bounds that hold for every
distribution and pay for it; at least 93.5 % is asked. Monte-Carlo standard errors beside; JSON last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np

from escultor import stats
from escultor.rng import derive_seed

Draw = Callable[[np.random.Generator, int], tuple[float | None, float, float | None]]  # low, truth, high


def names(n: int, per: int = 1) -> list[str]:
    return [f"c{k // per}" for k in range(n)]


def mean_of(n: int, per: int, draw: Callable[[np.random.Generator, int], np.ndarray], truth: float) -> Draw:
    def once(rng: np.random.Generator, seed: int) -> tuple[float, float, float]:
        shared = np.repeat(rng.normal(0, 0.1, -(-n // per)), per)[:n] if per > 1 else 0.0
        found = stats.bootstrap_mean(draw(rng, n) + shared, names(n, per), 0.025, seed)
        return found.low, truth, found.high

    return once


def bounded(n: int, rate: float) -> Draw:
    def once(rng: np.random.Generator, seed: int) -> tuple[float, float, float]:
        found = stats.bounded_mean(-(rng.random(n) < rate).astype(float), names(n), 0.025, seed, -1, 1)
        return found.low, -rate, found.high

    return once


def share(n: int, p: float) -> Draw:
    def once(rng: np.random.Generator, seed: int) -> tuple[float, float, float]:
        low, high = stats.wilson(int(rng.binomial(n, p)), n)
        return low, p, high

    return once


def wins(n: int, p: float, per: int) -> Draw:
    def once(rng: np.random.Generator, seed: int) -> tuple[float, float, float]:
        votes = np.where(rng.random(n) < 0.2, 0, np.where(rng.random(n) < p, 1, -1))
        found = stats.win_rate(votes, names(n, per), 0.025, seed)
        return found.low, p, found.high

    return once


def quantile(n: int, q: float) -> Draw:
    def once(rng: np.random.Generator, seed: int) -> tuple[float | None, float, float | None]:
        found = stats.quantile(rng.lognormal(4, 0.5, n), q)
        from scipy.stats import norm

        return found.low, math.exp(4 + 0.5 * float(norm.ppf(q))), found.high

    return once


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(0.1, 0.2, n)


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.exponential(0.2, n)


def sparse(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.75, 0.15])


INTERVALS: dict[str, tuple[str, Draw]] = {
    "mean, normal, 50 items": ("near", mean_of(50, 1, normal, 0.1)),
    "mean, skewed, 200 items": ("near", mean_of(200, 1, skewed, 0.2)),
    "mean, 0/1 differences, 200 items": ("near", mean_of(200, 1, sparse, 0.05)),
    "mean, clusters of 5, 300 items": ("near", mean_of(300, 5, normal, 0.1)),
    "mean, skewed, 2,000 items (expansion)": ("near", mean_of(2000, 1, skewed, 0.2)),
    "mean, clusters of 2, 4,000 items (expansion)": ("near", mean_of(4000, 2, normal, 0.1)),
    "share (Wilson), 200, 10 %": ("near", share(200, 0.1)),
    "share (Wilson), 1,000, 3 %": ("near", share(1000, 0.03)),
    "win rate, 300 votes, 60 %": ("near", wins(300, 0.6, 1)),
    "win rate, 300 votes by 3, 50 %": ("near", wins(300, 0.5, 3)),
    "median of 200": ("near", quantile(200, 0.5)),
    "p99 of 1,000": ("near", quantile(1000, 0.99)),
    "bound (Gaffke), 200 items, 2 % harm": ("at_least", bounded(200, 0.02)),
    "bound (Gaffke), 2,000 items, 2 % harm (grid)": ("at_least", bounded(2000, 0.02)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=INTERVALS)
    asked = parser.parse_args()
    began, found = time.perf_counter(), {}
    for name, (kind, draw) in INTERVALS.items():
        if asked.only not in (None, name):
            continue
        hits = 0
        for run in range(asked.runs):
            low, truth, high = draw(np.random.default_rng(derive_seed(asked.seed, name, run)), run)
            hits += (low is None or low <= truth) and (high is None or truth <= high)
        value = hits / asked.runs
        error = math.sqrt(value * (1 - value) / asked.runs)
        holds = value >= 0.935 and (kind == "at_least" or value <= 0.965)
        found[name] = {
            "coverage": round(value, 4),
            "mc_error": round(error, 4),
            "asked": kind,
            "holds": holds,
        }
        print(f"{name}: {found[name]}", flush=True)
    said = {"runs": asked.runs, "seed": asked.seed, "seconds": round(time.perf_counter() - began, 1)}
    print(json.dumps({"coverage": found, **said}))


if __name__ == "__main__":
    main()
