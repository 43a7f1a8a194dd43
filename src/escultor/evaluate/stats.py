"""Statistics of paired comparisons: pure functions, seeded by name, checked against scipy.

Throughout, `level` is one-sided: `low` and `high` each miss the truth with probability `level` at most,
so level 0.025 is the usual 95 % interval. The unit that is drawn is the *cluster* (a conversation, a
document, a prompt family); items inside one may depend on each other (Miller 2024, arXiv:2411.00640).
Results do not depend on the order of the items. Unusable input raises DataError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from escultor.errors import DataError
from escultor.rng import derive_seed

Array = NDArray[np.float64]

DRAWS = 4999  # Monte-Carlo draws; with the +1 correction p-values are multiples of 1/5000
MOST_DRAWS = 199_999  # levels below 1e-4 are not resolved further
EXACT_CLUSTERS = 12  # up to here all sign flips are enumerated
CELLS = 4_000_000  # size of one block of draws
MOST_ITEMS = 10**9  # a larger sample is nobody's to collect: no number is told


class Interval(NamedTuple):
    """An estimate, its bounds and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


class Bound(NamedTuple):
    """A mean with distribution-free bounds, and the p-value of `mean <= null`."""

    value: float
    low: float
    high: float
    p_value: float


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


# --- clusters and draws -----------------------------------------------------------------------


def cluster_sums(values: ArrayLike, clusters: Sequence[str]) -> tuple[Array, Array]:
    """Sum and number of items per cluster, in the order of the clusters' names."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) != len(clusters) or len(x) == 0:
        raise DataError(
            "values and clusters do not fit together",
            f"shape {x.shape}, {len(clusters)} clusters",
            "one cluster name per value, at least one value",
        )
    if not np.isfinite(x).all():
        raise DataError(
            "a value is not finite", x[~np.isfinite(x)][0], remedy="leave the item out or repair it"
        )
    _, where = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums, sizes = np.bincount(where, weights=x), np.bincount(where)
    return sums.astype(np.float64), sizes.astype(np.float64)


def standard_error(sums: Array, sizes: Array) -> float:
    """Linearised standard error of the ratio `sums.sum() / sizes.sum()` under cluster sampling."""
    g = len(sums)
    if g < 2:
        return math.inf
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return float(np.sqrt(g / (g - 1) * (residuals @ residuals)) / sizes.sum())


def _draws(level: float) -> int:
    return min(max(DRAWS, math.ceil(20 / level) - 1), MOST_DRAWS)


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Cut the draws into blocks that fit into memory."""
    size = max(1, CELLS // width)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _tail(draws: int, level: float) -> int:
    """How many draws may lie beyond a bound such that (1 + count) / (1 + draws) <= level; -1: none do."""
    return math.floor(level * (draws + 1) + 1e-9) - 1


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "stats", purpose))


# --- means ------------------------------------------------------------------------------------


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[str],
    level: float,
    seed: int,
    floor: float = -math.inf,
    ceiling: float = math.inf,
) -> Interval:
    """Mean over items with a studentised cluster bootstrap interval (Efron & Tibshirani 1993, §12.5).

    Where studentising has no meaning (one cluster, no variance, too few clusters that vary) the bounds
    are those of `bounded_mean` between `floor` and `ceiling`; an interval of no width would claim to
    have seen every cluster there is.
    """
    sums, sizes = cluster_sums(values, clusters)
    mean, error = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    scale = float(np.abs(sums).max() / sizes.sum())
    if 1e-12 * scale < error < math.inf:
        t = _studentised(sums - mean * sizes, sizes, _draws(level), _generator(seed, "bootstrap"))
        tail = _tail(len(t), level)
        if tail >= 0 and np.isfinite(t[tail]) and np.isfinite(t[-1 - tail]):
            low, high = mean - float(t[-1 - tail]) * error, mean - float(t[tail]) * error
            return Interval(mean, max(low, floor), min(high, ceiling), len(clusters))
    bound = bounded_mean(values, clusters, level, seed, floor, ceiling)
    return Interval(mean, bound.low, bound.high, len(clusters))


def _studentised(residuals: Array, sizes: Array, draws: int, rng: np.random.Generator) -> Array:
    """Sorted t* of resampled clusters; a resample without variance is infinitely far out."""
    g, parts = len(sizes), []
    columns = np.stack([residuals, sizes, residuals**2, residuals * sizes, sizes**2], axis=1)  # (G, 5)
    for rows in _blocks(draws, g):
        picks = rng.integers(g, size=(rows, g)) + g * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * g).reshape(rows, g).astype(np.float64)
        r, n, rr, rn, nn = (counts @ columns).T
        mean = r / n
        squares = rr - 2 * mean * rn + mean**2 * nn
        flat = squares <= 1e-10 * rr.max()  # nothing but rounding is left of the variance
        error = np.sqrt(g / (g - 1) * np.where(flat, 1.0, squares)) / n
        far = np.where(np.abs(mean) * n <= 1e-10 * np.abs(r).max(), 0.0, np.copysign(np.inf, mean))
        parts.append(np.where(flat, far, mean / error))
    return np.sort(np.concatenate(parts))


def bounded_mean(
    values: ArrayLike,
    clusters: Sequence[str],
    level: float,
    seed: int,
    floor: float,
    ceiling: float,
    null: float = 0.0,
) -> Bound:
    """Mean over items with bounds that hold for any distribution between `floor` and `ceiling`.

    Gaffke's bound (Learned-Miller & Thomas 2020, arXiv:1905.06208): random Dirichlet(1, …, 1) weights on
    the clusters and on one more, never seen, at the worst value. Without a single bad item it is the
    rule of three, with zeros and ones Clopper-Pearson; lowering an item never raises the lower bound.
    `p_value` is one-sided for `mean <= null`: at most `level` exactly when `low > null`.
    """
    sums, sizes = cluster_sums(values, clusters)
    return _gaffke(sums, sizes, level, seed, floor, ceiling, null)


def _gaffke(
    sums: Array, sizes: Array, level: float, seed: int, floor: float, ceiling: float, null: float
) -> Bound:
    mean = float(sums.sum() / sizes.sum())
    draws, unseen, rng = _draws(level), float(sizes.mean()), _generator(seed, "gaffke")
    lows, highs = [], []
    for rows in _blocks(draws, len(sums) + 1):
        weights = rng.standard_exponential((rows, len(sums) + 1))
        extra = weights[:, -1] * unseen
        total, size = weights[:, :-1] @ sums, weights[:, :-1] @ sizes + extra
        lows.append((total + extra * floor) / size)
        highs.append((total + extra * ceiling) / size)
    low, high = np.sort(np.concatenate(lows)), np.sort(np.concatenate(highs))
    tail = _tail(draws, level)
    p_value = (1 + int(np.searchsorted(low, null, side="right"))) / (draws + 1)
    if tail < 0:
        return Bound(mean, floor, ceiling, p_value)
    return Bound(mean, float(low[tail]), float(high[-1 - tail]), p_value)


# --- tests ------------------------------------------------------------------------------------


def sign_flip(differences: ArrayLike, clusters: Sequence[str], level: float, seed: int) -> float:
    """One-sided p-value of `the mean difference is not above 0`: paired permutation by whole clusters.

    Every cluster's sign is flipped with probability one half (Fisher 1935, §21); all flips are enumerated
    up to 12 clusters, else drawn, with the +1 correction (Phipson & Smyth 2010). `level` sets how finely.
    Lowering a difference never lowers the p-value.
    """
    sums, _ = cluster_sums(differences, clusters)
    g, tolerance = len(sums), 1e-12 * float(np.abs(sums).sum())
    # The flipped total reaches the observed one exactly when the flipped clusters sum to at most 0.
    if g <= EXACT_CLUSTERS:
        flipped = (np.arange(2**g)[:, None] >> np.arange(g)) & 1
        return float(np.mean(flipped @ sums <= tolerance))
    draws, rng, count = _draws(level), _generator(seed, "sign-flip"), 0
    for rows in _blocks(draws, g):
        flipped = rng.integers(2, size=(rows, g), dtype=np.int8).astype(np.float64)
        count += int(np.count_nonzero(flipped @ sums <= tolerance))
    return (1 + count) / (1 + draws)


def mcnemar(wins: int, losses: int) -> float:
    """Exact one-sided McNemar p-value: chance of `wins` or more among the discordant items (1947)."""
    from scipy.stats import binomtest

    if wins + losses == 0:
        return 1.0
    return float(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, highest)
    return tuple(adjusted)


# --- sample sizes -----------------------------------------------------------------------------


def n_for_power(
    differences: ArrayLike, clusters: Sequence[str], effect: float, level: float, power: float = 0.8
) -> int | None:
    """Items needed to show `effect` one-sided at `level` with `power`, at the spread and clustering seen.

    `((z_level + z_power) · sd / effect)²` with the variance taken between clusters; None when the effect is
    not positive, there is one cluster only, or more than 10^9 items would be needed.
    """
    sums, sizes = cluster_sums(differences, clusters)
    error = standard_error(sums, sizes)
    if effect <= 0 or math.isinf(error):
        return None
    z = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(power)
    needed = len(clusters) * (z * min(error / effect, 1e9)) ** 2
    return max(1, math.ceil(needed - 1e-9)) if needed <= MOST_ITEMS else None


def n_without_event(share: float, level: float) -> int | None:
    """Clusters needed, all of them free of an event, to show that it befalls fewer than `share`.

    The exact form of the rule of three, `(1 - share)^n <= level`; None when no 10^9 would be enough.
    """
    if share <= 1 / MOST_ITEMS:
        return None
    return 1 if share >= 1 else max(1, math.ceil(math.log(level) / math.log1p(-share)))


# --- shares and quantiles ---------------------------------------------------------------------


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


def win_rate(outcomes: ArrayLike, clusters: Sequence[str], level: float = 0.025, seed: int = 0) -> WinRate:
    """Wins / (wins + losses): ties stand apart. `outcomes` are +1 (win), 0 (tie) and -1 (loss).

    Bounds by a weighted cluster bootstrap (Rubin 1981) with one unseen cluster added, see `bounded_mean`.
    With nothing decided the rate is one half between 0 and 1.
    """
    x = np.asarray(outcomes, dtype=np.float64)
    if not np.isin(x, (-1.0, 0.0, 1.0)).all():
        raise DataError("an outcome is no win, tie or loss", sorted(set(x.tolist()))[:5], "+1, 0 or -1")
    wins, _ = cluster_sums(x == 1, clusters)
    decided, _ = cluster_sums(x != 0, clusters)
    ties, known = int(np.count_nonzero(x == 0)), decided > 0
    if not known.any():
        return WinRate(0.5, 0.0, 1.0, len(x), ties)
    bound = _gaffke(wins[known], decided[known], level, seed, 0.0, 1.0, 0.5)
    return WinRate(bound.value, bound.low, bound.high, len(x), ties)


def quantile(values: ArrayLike, q: float, level: float = 0.025) -> Quantile:
    """The q-quantile (an observed value) with distribution-free bounds by order statistics.

    A bound is None when the sample cannot give one: the upper bound of the 99th percentile needs
    log(level) / log(0.99) values, 368 at level 0.025 (Conover 1999, §3.2).
    """
    from scipy.stats import binom

    x = np.sort(np.asarray(values, dtype=np.float64))
    if len(x) == 0 or not np.isfinite(x).all() or not 0 < q < 1:
        raise DataError("no quantile can be taken", f"{len(x)} values, q={q}", "finite values, 0 < q < 1")
    n = len(x)
    low, high = int(binom.ppf(level, n, q)), int(binom.ppf(1 - level, n, q)) + 1
    return Quantile(
        float(x[max(math.ceil(n * q - 1e-9), 1) - 1]),
        float(x[low - 1]) if low >= 1 else None,
        float(x[high - 1]) if high <= n else None,
        n,
    )
