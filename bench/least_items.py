"""Items that no test at 5 % needs fewer of for 80 % power, with one decoding and no guard. Exact.

    python bench/least_items.py

The designs are those of `gate_power.py`. By how much a rule could be undercut at most, whatever a test does
with the whole of alpha. Two limits, of which the larger counts. The likelihood ratio of the true distribution
to one without an effect is the most powerful test (Neyman and Pearson): of wins and losses, exactly; of
normal differences, ((z_alpha + z_power) · spread / gain)². And mixing a loss of the whole scale into the true
distribution, in the share gain / (1 + gain), makes its mean 0: a sample of n shows none of it with
probability (1 + gain)^-n and is then an ordinary one, so that (1 + gain)^-n · power <= alpha. One JSON object
last.
"""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
from scipy.stats import binom

ALPHA, POWER = 0.05, 0.8


def least() -> dict[str, int]:
    """Items by design and gain."""
    needed = (NormalDist().inv_cdf(1 - ALPHA) + NormalDist().inv_cdf(POWER)) ** 2
    moved = {
        **{f"binary +{g:.2f}": (g, _moved(g)) for g in (0.10, 0.06)},
        "ties +0.04": (0.04, (0.08 * 0.75, 0.08 * 0.25)),
        "marks +0.05": (0.05, (0.5 * 0.7, 0.5 * 0.3)),
    }
    normal = {"continuous +0.05": (0.05, 0.14, 1), "continuous +0.02": (0.02, 0.14, 1)}
    normal["families +0.05"] = (0.05, math.hypot(0.113, 0.113 / math.sqrt(5)), 5)
    found = {name: max(_fewest(*shares), _unseen(g)) for name, (g, shares) in moved.items()}
    for name, (gain, spread, size) in normal.items():
        found[name] = size * max(math.ceil(needed * (spread / gain) ** 2), _unseen(gain))
    for name, n in found.items():
        print(f"least {name}: {n}", flush=True)
    return found


def _unseen(gain: float) -> int:
    return math.ceil(math.log(POWER / ALPHA) / math.log1p(gain))


def _moved(gain: float) -> tuple[float, float]:
    """Shares of wins and losses of the design `binary`, integrated over its difficulties."""
    easy = (np.arange(100_000) + 0.5) / 100_000
    weight, new = 2 * easy / 100_000, np.clip(easy + gain, 0, 1)
    return float(weight @ (new * (1 - easy))), float(weight @ (easy * (1 - new)))


def _fewest(win: float, loss: float) -> int:
    """The fewest items at which the most powerful test of these shares to equal ones has 80 % power."""
    low, high = 10, 4000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _highest_power(middle, win, loss) >= POWER else (middle, high)
    return high


def _highest_power(n: int, win: float, loss: float) -> float:
    # Equal shares with as many decided items: the number of decided items tells nothing then, and among so
    # many the wins are binomial.
    decided = np.arange(n + 1)
    weight = binom.pmf(decided, n, win + loss)
    wins, many = np.meshgrid(decided, decided, indexing="ij")
    ratio = wins * math.log(2 * win / (win + loss)) + (many - wins) * math.log(2 * loss / (win + loss))
    is_there = wins <= many
    none = (binom.pmf(wins, many, 0.5) * weight)[is_there]
    true = (binom.pmf(wins, many, win / (win + loss)) * weight)[is_there]
    order = np.argsort(-ratio[is_there], kind="stable")
    size, power = np.cumsum(none[order]), np.cumsum(true[order])
    at = int(np.searchsorted(size, ALPHA))
    return float(np.interp(ALPHA, size[max(at - 1, 0) : at + 1], power[max(at - 1, 0) : at + 1]))


if __name__ == "__main__":
    print(json.dumps(least()))
