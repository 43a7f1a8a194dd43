"""What every statistic here stands on: clusters, their sums, and reproducible draws of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from escultor.errors import DataError
from escultor.rng import derive_seed

Array = NDArray[np.float64]

DRAWS = 4999  # Monte-Carlo draws; with the +1 correction p-values are multiples of 1/5000
MOST_DRAWS = 199_999  # levels below 1e-4 are not resolved further
CELLS = 4_000_000  # size of one block of draws
MANY_CLUSTERS = 1000  # from here on closed forms and grids replace draws of every cluster


@dataclass(frozen=True)
class Grouping:
    """Which cluster each item belongs to, worked out once for many metrics."""

    codes: NDArray[np.intp]  # (N,)
    sizes: Array  # (G,) items per cluster, in the order of the clusters' names

    def __len__(self) -> int:
        return len(self.codes)


Clusters = Sequence[str] | Grouping


def grouped(clusters: Clusters) -> Grouping:
    """The clusters of items by number; a grouping is handed back as it is."""
    if isinstance(clusters, Grouping):
        return clusters
    if len(clusters) == 0:
        return Grouping(np.empty(0, np.intp), np.empty(0))
    _, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return Grouping(codes, np.bincount(codes).astype(np.float64))


def cluster_sums(values: ArrayLike, clusters: Clusters) -> tuple[Array, Array]:
    """Sum and number of items per cluster, in the order of the clusters' names."""
    x, groups = np.asarray(values, dtype=np.float64), grouped(clusters)
    if x.ndim != 1 or len(x) != len(groups) or len(x) == 0:
        raise DataError(
            "values and clusters do not fit",
            f"{x.shape} values, {len(groups)} clusters",
            "one cluster for each value, and at least one value",
        )
    if not np.isfinite(x).all():
        raise DataError(
            "a value is not finite", x[~np.isfinite(x)][0], remedy="leave the item out or repair it"
        )
    return np.bincount(groups.codes, weights=x).astype(np.float64), groups.sizes


def standard_error(sums: Array, sizes: Array) -> float:
    """Linearised standard error of the ratio `sums.sum() / sizes.sum()` under cluster sampling."""
    g = len(sums)
    if g < 2:
        return math.inf
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return float(np.sqrt(g / (g - 1) * (residuals @ residuals)) / sizes.sum())


def draws_for(level: float) -> int:
    """How many draws resolve a one-sided level."""
    return min(max(DRAWS, math.ceil(20 / level) - 1), MOST_DRAWS)


def blocks(draws: int, width: int) -> Iterator[int]:
    """Cut the draws into blocks that fit into memory."""
    size = max(1, CELLS // width)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def tail(draws: int, level: float) -> int:
    """How many draws may lie beyond a bound such that (1 + count) / (1 + draws) <= level; -1: none do."""
    return math.floor(level * (draws + 1) + 1e-9) - 1


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Draws that depend on the seed and on what they are for alone."""
    return np.random.default_rng(derive_seed(seed, "stats", purpose))
