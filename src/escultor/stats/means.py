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

GRID = 512  # steps between floor and ceiling on which many clusters are laid


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


# --- studentised cluster bootstrap ------------------------------------------------------------


def bootstrap_mean(
    values: ArrayLike,
    clusters: Clusters,
    level: float,
    seed: int,
    floor: float = -math.inf,
    ceiling: float = math.inf,
) -> Interval:
    """Mean over items with a studentised cluster bootstrap interval (Efron & Tibshirani 1993, §12.5).

    From 1,000 clusters on the bootstrap's quantiles are taken from their Edgeworth expansion (Hall 1992,
    §3.5), which agrees with them to order 1/clusters and costs nothing. Where studentising has no meaning
    (one cluster, no variance, too few clusters that vary) the bounds are those of `bounded_mean` between
    `floor` and `ceiling`; an interval of no width would claim to have seen every cluster there is.
    """
    sums, sizes = cluster_sums(values, clusters)
    return bootstrap_ratio(sums, sizes, level, seed, floor, ceiling, len(clusters))


def bootstrap_ratio(
    sums: Array, sizes: Array, level: float, seed: int, floor: float, ceiling: float, n: int
) -> Interval:
    """The interval of `bootstrap_mean` for cluster sums (G,) over cluster sizes (G,)."""
    mean, error = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    scale = float(np.abs(sums).max() / sizes.sum())
    if 1e-12 * scale < error < math.inf:
        low_t, high_t = _quantiles_of_t(sums - mean * sizes, sizes, level, seed)
        if math.isfinite(low_t) and math.isfinite(high_t):
            low, high = mean - high_t * error, mean - low_t * error
            return Interval(mean, max(low, floor), min(high, ceiling), n)
    return bounded_ratio(sums, sizes, level, seed, floor, ceiling, n)


def bounded_ratio(
    sums: Array, sizes: Array, level: float, seed: int, floor: float, ceiling: float, n: int
) -> Interval:
    """The bounds of `bounded_mean` for cluster sums (G,) over cluster sizes (G,)."""
    bound = _gaffke(sums, sizes, level, seed, floor, ceiling, 0.0)
    return Interval(bound.value, bound.low, bound.high, n)


def _quantiles_of_t(residuals: Array, sizes: Array, level: float, seed: int) -> tuple[float, float]:
    g = len(sizes)
    if g >= MANY_CLUSTERS:
        z = NormalDist().inv_cdf(1 - level)
        skew = float(np.mean(residuals**3) / np.mean(residuals**2) ** 1.5)
        shift = skew * (2 * z * z + 1) / (6 * math.sqrt(g))
        return -z - shift, z - shift
    t = _studentised(residuals, sizes, draws_for(level), generator(seed, "bootstrap"))
    beyond = tail(len(t), level)
    return (float(t[beyond]), float(t[-1 - beyond])) if beyond >= 0 else (-math.inf, math.inf)


def _studentised(residuals: Array, sizes: Array, draws: int, rng: np.random.Generator) -> Array:
    """Sorted t* of resampled clusters; a resample without variance is infinitely far out."""
    g, parts = len(sizes), []
    columns = np.stack([residuals, sizes, residuals**2, residuals * sizes, sizes**2], axis=1)  # (G, 5)
    for rows in blocks(draws, g):
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


# --- bounds for any distribution --------------------------------------------------------------


def bounded_mean(
    values: ArrayLike,
    clusters: Clusters,
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
    mean, unseen = float(sums.sum() / sizes.sum()), float(sizes.mean())
    laid = _laid(sums, sizes, floor, ceiling)
    low, high = (_weighted_means(*laid, unseen, worst, level, seed) for worst in (floor, ceiling))
    beyond = tail(len(low), level)
    p_value = (1 + int(np.searchsorted(low, null, side="right"))) / (len(low) + 1)
    if beyond < 0:
        return Bound(mean, floor, ceiling, p_value)
    return Bound(mean, float(low[beyond]), float(high[-1 - beyond]), p_value)


def _laid(sums: Array, sizes: Array, floor: float, ceiling: float) -> tuple[Array, Array, Array]:
    """Sums, sizes and how often each occurs. Many clusters are laid on a grid, each on its two neighbours
    in the shares that keep its value: that spreads them a little, so the bound stays a bound. Equal ones
    then share one weight."""
    if len(sums) < MANY_CLUSTERS or not math.isfinite(ceiling - floor):
        return sums, sizes, np.ones(len(sums))
    unit = (ceiling - floor) / GRID
    at = np.clip((sums / sizes - floor) / unit, 0, GRID)
    below = np.minimum(np.floor(at), GRID - 1).astype(np.intp)
    own, kind = np.unique(sizes, return_inverse=True)
    cells = kind * (GRID + 1) + below
    counts = np.bincount(cells, 1 - (at - below), minlength=len(own) * (GRID + 1))
    counts += np.bincount(cells + 1, at - below, minlength=len(counts))
    full = np.flatnonzero(counts > 1e-9)
    size = own[full // (GRID + 1)]
    return (floor + full % (GRID + 1) * unit) * size, size, counts[full].astype(np.float64)


def _weighted_means(
    sums: Array, sizes: Array, counts: Array, unseen: float, worst: float, level: float, seed: int
) -> Array:
    """Sorted means under random weights: the sum of k unit exponentials is one Gamma(k)."""
    parts, rng, plain = [], generator(seed, "gaffke"), bool(np.all(counts == 1))
    for rows in blocks(draws_for(level), len(sums) + 1):
        drawn = rng.standard_exponential((rows, len(sums) + 1 if plain else 1))
        weights = drawn[:, :-1] if plain else rng.standard_gamma(counts, (rows, len(sums)))
        extra = drawn[:, -1] * unseen
        parts.append((weights @ sums + extra * worst) / (weights @ sizes + extra))
    return np.sort(np.concatenate(parts))
