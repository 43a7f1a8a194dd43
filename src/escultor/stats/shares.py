"""Shares, win rates and quantiles, each with bounds."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from escultor.errors import DataError
from escultor.stats.means import bootstrap_ratio, bounded_ratio
from escultor.stats.sampling import Clusters, cluster_sums, grouped

COMMON = 10  # clusters with a win, and with a loss, from which a bootstrap may be trusted


class Quantile(NamedTuple):
    """A sample quantile; a bound is None where `n` is too small for one to exist."""

    value: float
    low: float | None
    high: float | None
    n: int


class WinRate(NamedTuple):
    """Wins over decided votes with bounds, the number of votes, and how many of them were ties."""

    value: float
    low: float
    high: float
    n: int
    ties: int


def wilson(successes: float, n: int, level: float = 0.025) -> tuple[float, float]:
    """Score bounds of a binomial share (Wilson 1927); (0, 1) when nothing was counted."""
    if not 0 <= successes <= n:
        raise DataError("a count is no part of its total", f"{successes} of {n}", "0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf(1 - level), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == n else min(1.0, centre + half)


def win_rate(outcomes: ArrayLike, clusters: Clusters, level: float = 0.025, seed: int = 0) -> WinRate:
    """Wins / (wins + losses): ties stand apart. `outcomes` are +1 (win), 0 (tie) and -1 (loss).

    Bounds by a studentised cluster bootstrap of the ratio; where fewer than ten clusters hold a win, or a
    loss, by those of `bounded_mean`. With nothing decided the rate is one half between 0 and 1.
    """
    x, groups = np.asarray(outcomes, dtype=np.float64), grouped(clusters)
    if not np.isin(x, (-1.0, 0.0, 1.0)).all():
        raise DataError("an outcome is no win, tie or loss", sorted(set(x.tolist()))[:5], "+1, 0 or -1")
    wins, _ = cluster_sums(x == 1, groups)
    decided, _ = cluster_sums(x != 0, groups)
    ties, known = int(np.count_nonzero(x == 0)), decided > 0
    if not known.any():
        return WinRate(0.5, 0.0, 1.0, len(x), ties)
    wins, decided = wins[known], decided[known]
    rarer = min(np.count_nonzero(wins), np.count_nonzero(wins < decided))
    bounds = bootstrap_ratio if rarer >= COMMON else bounded_ratio
    found = bounds(wins, decided, level, seed, 0.0, 1.0, len(x))
    return WinRate(found.value, found.low, found.high, len(x), ties)


def quantile(values: ArrayLike, q: float, level: float = 0.025) -> Quantile:
    """The q-quantile (an observed value) with distribution-free bounds by order statistics.

    A bound lies between two observed values where its level falls between theirs (fractional order
    statistics: Hutson 1999). It is None when the sample cannot give one: the upper bound of the 99th
    percentile needs log(level) / log(0.99) values, 368 at level 0.025 (Conover 1999, §3.2).
    """
    from scipy.optimize import brentq
    from scipy.stats import beta

    x = np.sort(np.asarray(values, dtype=np.float64))
    if len(x) == 0 or not np.isfinite(x).all() or not 0 < q < 1:
        raise DataError("no quantile can be taken", f"{len(x)} values, q={q}", "finite values, 0 < q < 1")
    n = len(x)

    def bound(share: float) -> float | None:
        """The order statistic, in fractions, that lies below the quantile with this probability."""

        def excess(rank: float) -> float:
            return float(beta.cdf(q, rank, n + 1 - rank)) - share

        if excess(1) < 0 or excess(n) > 0:
            return None
        rank = 1.0 if n == 1 else cast(float, brentq(excess, 1, n, xtol=1e-9))
        whole = min(int(rank), n - 1)
        return float(x[whole - 1] + (rank - whole) * (x[min(whole, n - 1)] - x[whole - 1]))

    value = float(x[max(math.ceil(n * q - 1e-9), 1) - 1])
    return Quantile(value, bound(1 - level), bound(level), n)
