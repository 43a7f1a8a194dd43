"""Binomial shares, win rates and quantiles, each with bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from escultor.errors import DataError
from escultor.stats.means import bootstrap_ratio, bounded_ratio
from escultor.stats.sampling import Array, Clusters, cluster_sums, grouped

BOOTSTRAP_CLUSTERS = 10  # with a win, and with a loss, from which on a bootstrap is used


class Quantile(NamedTuple):
    """A sample quantile; a bound is None where the sample is too small for one to exist."""

    value: float
    low: float | None
    high: float | None
    n: int


class WinRate(NamedTuple):
    """Wins over decided votes with bounds, the number of all votes, and the number of ties among them."""

    value: float
    low: float
    high: float
    n: int
    ties: int


def wilson(successes: float, n: int, alpha: float = 0.025) -> tuple[float, float]:
    """Score bounds of a binomial share (Wilson 1927); (0, 1) where n is 0."""
    if not 0 <= successes <= n:
        raise DataError("a count is not within its total", f"{successes} of {n}", "0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf(1 - alpha), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == n else min(1.0, centre + half)


def clopper_pearson(events: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a binomial share (Clopper & Pearson 1934); (0, 1) where n is 0."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, events, n - events + 1)) if events else 0.0
    high = float(beta.ppf(1 - tail, events + 1, n - events)) if events < n else 1.0
    return low, high


def binomial_p_value(events: int, n: int, share: float) -> float:
    """Exact one-sided p-value of `the rate is at most share`: P(X >= events), X ~ Binomial(n, share)."""
    from scipy.stats import binom

    return float(binom.sf(events - 1, n, share))


def win_rate(outcomes: ArrayLike, clusters: Clusters, alpha: float = 0.025, seed: int = 0) -> WinRate:
    """Wins / (wins + losses); ties do not count. `outcomes` are +1 (win), 0 (tie) and -1 (loss).

    Bounds are those of a studentised cluster bootstrap of the ratio; where fewer than ten clusters hold a
    win, or a loss, those of `bounded_mean`. Without a decided vote the rate is 0.5 between 0 and 1.
    """
    x, groups = np.asarray(outcomes, dtype=np.float64), grouped(clusters)
    if not np.isin(x, (-1.0, 0.0, 1.0)).all():
        raise DataError("an outcome is not a win, tie or loss", sorted(set(x.tolist()))[:5], "+1, 0 or -1")
    wins, _ = cluster_sums(x == 1, groups)
    decided, _ = cluster_sums(x != 0, groups)
    ties, has_decided = int(np.count_nonzero(x == 0)), decided > 0
    if not has_decided.any():
        return WinRate(0.5, 0.0, 1.0, len(x), ties)
    wins, decided = wins[has_decided], decided[has_decided]
    rarer = min(np.count_nonzero(wins), np.count_nonzero(wins < decided))
    bounds = bootstrap_ratio if rarer >= BOOTSTRAP_CLUSTERS else bounded_ratio
    interval = bounds(wins, decided, alpha, seed, floor=0.0, ceiling=1.0, n=len(x))
    return WinRate(interval.value, interval.low, interval.high, len(x), ties)


def quantile(values: ArrayLike, q: float, alpha: float = 0.025) -> Quantile:
    """The q-quantile (an observed value) with distribution-free bounds by order statistics.

    A bound may lie between two observed values (fractional order statistics: Hutson 1999). It is None where
    the sample is too small: the upper bound of the 99th percentile needs log(alpha) / log(0.99) values, 368
    at alpha 0.025 (Conover 1999, §3.2).
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0 or not np.isfinite(x).all() or not 0 < q < 1:
        raise DataError("there is no such quantile", f"{len(x)} values, q={q}", "finite values, 0 < q < 1")
    distinct, counts = np.unique(x, return_counts=True)
    return _quantile(distinct, counts, q, alpha)


def quantile_of_counts(counts: Mapping[float, int], q: float, alpha: float = 0.025) -> Quantile:
    """`quantile` of values of which each is given with how often it was observed."""
    pairs = sorted((value, n) for value, n in counts.items() if n > 0)
    if not pairs or not all(math.isfinite(value) for value, _ in pairs) or not 0 < q < 1:
        got = f"{len(pairs)} values, q={q}"
        raise DataError("there is no such quantile", got, "finite values, 0 < q < 1")
    return _quantile(np.array([v for v, _ in pairs]), np.array([n for _, n in pairs]), q, alpha)


def _quantile(distinct: Array, counts: NDArray[np.int_], q: float, alpha: float) -> Quantile:
    from scipy.optimize import brentq
    from scipy.special import betainc

    ends = np.cumsum(counts)
    n = int(ends[-1])

    def at(rank: int) -> float:
        """The value of this rank, from 1."""
        return float(distinct[np.searchsorted(ends, rank)])

    def bound(probability: float) -> float | None:
        """The fractional order statistic that lies below the quantile with this probability."""

        def excess(rank: float) -> float:
            return float(betainc(rank, n + 1 - rank, q)) - probability

        if excess(1) < 0 or excess(n) > 0:
            return None
        rank = 1.0 if n == 1 else cast(float, brentq(excess, 1, n, xtol=1e-9))
        whole = max(min(int(rank), n - 1), 1)
        return at(whole) + (rank - whole) * (at(min(whole + 1, n)) - at(whole))

    value = at(max(math.ceil(n * q - 1e-9), 1))
    return Quantile(value, bound(1 - alpha), bound(alpha), n)
