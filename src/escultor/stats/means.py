"""Intervals for a mean over items that come in clusters."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.sampling import (
    MANY_CLUSTERS,
    Array,
    Clusters,
    blocks,
    cluster_sums,
    draws_for,
    generator,
    standard_error,
    tail,
)

GRID = 512  # steps between floor and ceiling of the grid to which many clusters are rounded


class Interval(NamedTuple):
    """An estimate, its bounds and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


class Bound(NamedTuple):
    """A mean with distribution-free bounds, and the p-value of `mean <= null`.

    `largest` is the size of the largest cluster for which the mean is shown to be above `null`: a statement
    that is false with probability alpha at most, since a bound that holds for clusters of some size holds for
    smaller ones. It is at most 0 where no size is small enough, and infinite where no cluster can be worse
    than `null`.
    """

    value: float
    low: float
    high: float
    p_value: float
    largest: float


# --- studentised cluster bootstrap ------------------------------------------------------------


def bootstrap_mean(
    values: ArrayLike,
    clusters: Clusters,
    alpha: float,
    seed: int,
    floor: float = -math.inf,
    ceiling: float = math.inf,
) -> Interval:
    """Mean over items with a studentised cluster bootstrap interval (Efron & Tibshirani 1993, §12.5).

    From 1,000 clusters on, the quantiles of the bootstrap come from their Edgeworth expansion (Hall 1992,
    §3.5), which agrees with them to order 1/clusters and needs no draws. Where studentising is undefined
    (one cluster, no variance, too few clusters that vary) the bounds are those of `bounded_mean` between
    `floor` and `ceiling`; an interval of width 0 would claim that no other cluster exists.
    """
    sums, sizes = cluster_sums(values, clusters)
    return bootstrap_ratio(sums, sizes, alpha, seed, floor=floor, ceiling=ceiling, n=len(clusters))


def bootstrap_ratio(
    sums: Array, sizes: Array, alpha: float, seed: int, *, floor: float, ceiling: float, n: int
) -> Interval:
    """The interval of `bootstrap_mean` for the ratio of cluster sums (G,) to cluster sizes (G,)."""
    mean, error = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    scale = float(np.abs(sums).max() / sizes.sum())
    if 1e-12 * scale < error < math.inf:
        low_t, high_t = _quantiles_of_t(sums - mean * sizes, sizes, alpha, seed)
        if math.isfinite(low_t) and math.isfinite(high_t):
            low, high = mean - high_t * error, mean - low_t * error
            return Interval(mean, max(low, floor), min(high, ceiling), n)
    return bounded_ratio(sums, sizes, alpha, seed, floor=floor, ceiling=ceiling, n=n)


def bounded_ratio(
    sums: Array, sizes: Array, alpha: float, seed: int, *, floor: float, ceiling: float, n: int
) -> Interval:
    """The bounds of `bounded_mean` for the ratio of cluster sums (G,) to cluster sizes (G,)."""
    bound = _gaffke(sums, sizes, alpha, seed, floor=floor, ceiling=ceiling, null=0.0)
    return Interval(bound.value, bound.low, bound.high, n)


def _quantiles_of_t(residuals: Array, sizes: Array, alpha: float, seed: int) -> tuple[float, float]:
    g = len(sizes)
    if g >= MANY_CLUSTERS:
        z = NormalDist().inv_cdf(1 - alpha)
        skew = float(np.mean(residuals**3) / np.mean(residuals**2) ** 1.5)
        shift = skew * (2 * z * z + 1) / (6 * math.sqrt(g))
        return -z - shift, z - shift
    t = _studentised(residuals, sizes, draws_for(alpha), generator(seed, "bootstrap"))
    beyond = tail(len(t), alpha)
    return (float(t[beyond]), float(t[-1 - beyond])) if beyond >= 0 else (-math.inf, math.inf)


def _studentised(residuals: Array, sizes: Array, draws: int, rng: np.random.Generator) -> Array:
    """Sorted t statistics of resampled clusters: (draws,). A resample without variance is at ±infinity."""
    g, parts = len(sizes), []
    columns = np.stack([residuals, sizes, residuals**2, residuals * sizes, sizes**2], axis=1)  # (G, 5)
    for rows in blocks(draws, g):
        picks = rng.integers(g, size=(rows, g)) + g * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * g).reshape(rows, g).astype(np.float64)
        r, n, rr, rn, nn = (counts @ columns).T
        mean = r / n
        squares = rr - 2 * mean * rn + mean**2 * nn
        is_flat = squares <= 1e-10 * rr.max()  # only rounding is left of the variance
        error = np.sqrt(g / (g - 1) * np.where(is_flat, 1.0, squares)) / n
        far = np.where(np.abs(mean) * n <= 1e-10 * np.abs(r).max(), 0.0, np.copysign(np.inf, mean))
        parts.append(np.where(is_flat, far, mean / error))
    return np.sort(np.concatenate(parts))


# --- bounds for any distribution --------------------------------------------------------------


def bounded_mean(
    values: ArrayLike,
    clusters: Clusters,
    alpha: float,
    seed: int,
    floor: float,
    ceiling: float,
    null: float = 0.0,
    largest: int = 1,
) -> Bound:
    """Mean over items with bounds that hold for any distribution between `floor` and `ceiling`.

    Gaffke's bound (Learned-Miller & Thomas 2020, arXiv:1905.06208). With equal values it is the rule of
    three, with zeros and ones the Clopper-Pearson bound; lowering an item never raises the lower bound.
    `p_value` is one-sided for `mean <= null`: at most `alpha` exactly when `low > null`. For clusters of
    several items it supposes that none has more items than `largest` or the largest one seen.
    """
    sums, sizes = cluster_sums(values, clusters)
    return _gaffke(sums, sizes, alpha, seed, floor=floor, ceiling=ceiling, null=null, largest=largest)


def _gaffke(
    sums: Array,
    sizes: Array,
    alpha: float,
    seed: int,
    *,
    floor: float,
    ceiling: float,
    null: float,
    largest: float = 0.0,
) -> Bound:
    # Let x_1 <= … <= x_n be a sample of the distribution function F, and x_0 = floor. The values F(x_i) are
    # the order statistics of n uniform numbers, so the n + 1 probabilities that they cut [0, 1] into,
    # W_i = F(x_i+1) - F(x_i), are Dirichlet(1, …, 1). What lies between x_i and x_i+1 is at least x_i, hence
    #     mean of F  >=  Σ_i W_i x_i,  one weight being that of the floor.
    # The W_i are unknown, their distribution is not: the alpha-quantile of the sum over random weights is
    # the lower bound. The upper bound mirrors it with the ceiling. Dirichlet weights are unit exponentials
    # over their sum; for clusters that sum cancels in Σ w·sum / Σ w·size. This ratio is above a limit exactly
    # where the mean of sum - limit · size is above 0, a mean of bounded values whose worst one is that of the
    # largest cluster; so the unseen cluster has the size of the largest. One of the mean size would let
    # large clusters that are worse go unnoticed.
    mean, unseen = float(sums.sum() / sizes.sum()), max(float(sizes.max()), largest)
    sums, sizes, counts = _rounded_to_grid(sums, sizes, floor, ceiling)
    seen_sums, seen_sizes, weight = _weighted_sums(sums, sizes, counts, alpha, seed)
    low, high = (
        np.sort((seen_sums + weight * unseen * worst) / (seen_sizes + weight * unseen))
        for worst in (floor, ceiling)
    )
    beyond = tail(len(low), alpha)
    p_value = (1 + int(np.searchsorted(low, null, side="right"))) / (len(low) + 1)
    if beyond < 0:
        return Bound(mean, floor, ceiling, p_value, 0.0)
    # An unseen cluster of some size at `floor` brings a draw down to `null`.
    sizes_to_null = np.sort((seen_sums - null * seen_sizes) / weight)
    largest = float(sizes_to_null[beyond]) / (null - floor) if null > floor else math.inf
    return Bound(mean, float(low[beyond]), float(high[-1 - beyond]), p_value, largest)


def _rounded_to_grid(sums: Array, sizes: Array, floor: float, ceiling: float) -> tuple[Array, Array, Array]:
    """Cluster sums, sizes and how often each occurs: (K,) each.

    From 1,000 clusters on, each is split between its two neighbours on a grid, in the shares that keep its
    value. That spreads the values a little, so the bound stays valid, and equal ones then share one weight.
    """
    if len(sums) < MANY_CLUSTERS or not math.isfinite(ceiling - floor):
        return sums, sizes, np.ones(len(sums))
    unit = (ceiling - floor) / GRID
    position = np.clip((sums / sizes - floor) / unit, 0, GRID)
    below = np.minimum(np.floor(position), GRID - 1).astype(np.intp)
    distinct_sizes, kind = np.unique(sizes, return_inverse=True)
    cells = kind * (GRID + 1) + below
    counts = np.bincount(cells, 1 - (position - below), minlength=len(distinct_sizes) * (GRID + 1))
    counts += np.bincount(cells + 1, position - below, minlength=len(counts))
    occupied = np.flatnonzero(counts > 1e-9)
    size = distinct_sizes[occupied // (GRID + 1)]
    return (floor + occupied % (GRID + 1) * unit) * size, size, counts[occupied].astype(np.float64)


def _weighted_sums(
    sums: Array, sizes: Array, counts: Array, alpha: float, seed: int
) -> tuple[Array, Array, Array]:
    """Sums and sizes under random weights, and the weight of one more cluster: (draws,) each."""
    parts, rng, is_plain = [], generator(seed, "gaffke"), bool(np.all(counts == 1))
    for rows in blocks(draws_for(alpha), len(sums) + 1):
        drawn = rng.standard_exponential((rows, len(sums) + 1 if is_plain else 1))
        # The weights of k equal clusters add up: the sum of k unit exponentials is Gamma(k).
        weights = drawn[:, :-1] if is_plain else rng.standard_gamma(counts, (rows, len(sums)))
        parts.append((weights @ sums, weights @ sizes, drawn[:, -1]))
    of_sums, of_sizes, of_one = (np.concatenate(each) for each in zip(*parts, strict=True))
    return of_sums, of_sizes, of_one
