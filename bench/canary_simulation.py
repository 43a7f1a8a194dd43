"""The canary's error rates, by simulation: an analysis every 100 of 5,000 ratings per arm.

    python bench/canary_simulation.py [--runs 2000] [--seed 0]

1  A/A, 10 % thumbs down on both sides: how often harm is ever called, by the tool's bounds and, beside them,
   by a z-test that is read at every analysis as if it were the only one (about 32 % two-sided).
2  10 % thumbs down against 8 %: at which number of ratings per arm the median trial is rolled back, over
   the number that a design of fixed size needs (two-sided 5 %, 80 % power: 3,213 per arm; one-sided: 2,530).
3  The beta-binomial bounds of one rate, analysed after every trial: how often they are ever wrong.

Every share is printed with its Monte-Carlo standard error. One JSON object last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from monte_carlo import share

from escultor.rng import derive_seed
from escultor.stats import sequential
from escultor.stats.sequential import SubjectTally, harm, rate_bounds

ANALYSES, PER_ANALYSIS, ALPHA, TUNED = 50, 100, 0.05, 3000
# The same counts come up thousands of times: their exact bounds are computed once.
sequential.rate_bounds = lru_cache(maxsize=None)(rate_bounds)


def first_alarm(old: np.ndarray, new: np.ndarray) -> int | None:
    """The analysis at which the tool shows harm; `old` and `new` are counts of events so far, (ANALYSES,)."""
    for at in range(ANALYSES):
        n = float(PER_ANALYSIS * (at + 1))
        events = (float(old[at]), float(new[at]))
        tallies = [SubjectTally(subjects=int(n), n=n, total=k, nn=n, nt=k, tt=k, first=k) for k in events]
        if harm(tallies[:1], tallies[1:], ALPHA, TUNED).low > 0:
            return at + 1
    return None


def naive_alarm(old: np.ndarray, new: np.ndarray) -> bool:
    n = PER_ANALYSIS * np.arange(1, ANALYSES + 1)
    pooled = (old + new) / (2 * n)
    z = (new - old) / n / np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * 2 / n)
    return bool((np.abs(z) > NormalDist().inv_cdf(0.975)).any())


def counts(rng: np.random.Generator, rate: float) -> np.ndarray:
    return np.cumsum(rng.binomial(PER_ANALYSIS, rate, ANALYSES))


def fixed_size(p: float, q: float, alpha: float) -> int:
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(0.8)
    return math.ceil(z * z * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)


def stops(runs: int, seed: int, p: float, q: float) -> dict[str, object]:
    found = []
    for run in range(runs):
        rng = np.random.default_rng(derive_seed(seed, "harm", p, q, run))
        at = first_alarm(counts(rng, p), counts(rng, q))
        found.append(math.inf if at is None else at * PER_ANALYSIS)
    median = float(np.median(found))
    sizes = {name: fixed_size(p, q, alpha) for name, alpha in (("two_sided", 0.025), ("one_sided", 0.05))}
    return {
        "median_stop_per_arm": median if math.isfinite(median) else None,
        "stopped_by_5000": share(sum(map(math.isfinite, found)), runs),
        "fixed_n": sizes,
        "ratio": {name: round(median / size, 3) for name, size in sizes.items()},
    }


def one_rate(runs: int, seed: int) -> dict[str, object]:
    """Trials in which the bounds of one rate were ever wrong, over 1,000 analyses."""
    found = {}
    for p in (0.01, 0.1, 0.5):
        rng = np.random.default_rng(derive_seed(seed, "rate", p))
        n = np.arange(1, 1001)
        wrong = 0
        for _ in range(runs // 10):
            low, high = rate_bounds(np.cumsum(rng.random(1000) < p), n, ALPHA)
            wrong += bool(((low > p) | (high < p)).any())
        found[str(p)] = share(wrong, runs // 10)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.perf_counter()
    alarms = naive = 0
    for run in range(asked.runs):
        rng = np.random.default_rng(derive_seed(asked.seed, "A/A", run))
        old, new = counts(rng, 0.1), counts(rng, 0.1)
        alarms += first_alarm(old, new) is not None
        naive += naive_alarm(old, new)
    found = {
        "equal": share(alarms, asked.runs),
        "equal_naive_z": share(naive, asked.runs),
        "harm_8_to_10": stops(asked.runs, asked.seed, 0.08, 0.10),
        "harm_5_to_10": stops(asked.runs, asked.seed, 0.05, 0.10),
        "one_rate_ever_wrong": one_rate(asked.runs, asked.seed),
    }
    for name, value in found.items():
        print(f"{name}: {value}")
    print(json.dumps({**found, "seed": asked.seed, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
