"""Clusters of items, their sums, and reproducible random draws."""

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
MAX_DRAWS = 199_999  # an alpha below 1e-4 is not resolved further
BLOCK_CELLS = 4_000_000  # numbers held at a time: draws × clusters
MANY_CLUSTERS = 1000  # from here on closed forms and grids replace draws of every cluster


@dataclass(frozen=True)
class Grouping:
    """The cluster of each item, computed once for many metrics."""

    codes: NDArray[np.intp]  # (N,)
    sizes: Array  # (G,) items per cluster, in the order of the clusters' names

    def __len__(self) -> int:
        return len(self.codes)


Clusters = Sequence[str] | Grouping


def grouped(clusters: Clusters) -> Grouping:
    """The clusters of items as numbers; a `Grouping` is returned unchanged."""
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
            "values and clusters do not match",
            f"{x.shape} values, {len(groups)} clusters",
            "one cluster for each value, and at least one value",
        )
    if not np.isfinite(x).all():
        raise DataError(
            "a value is not finite", x[~np.isfinite(x)][0], remedy="remove the item or repair its score"
        )
    return np.bincount(groups.codes, weights=x).astype(np.float64), groups.sizes


def standard_error(sums: Array, sizes: Array) -> float:
    """Linearised standard error of the ratio `sums.sum() / sizes.sum()` under cluster sampling."""
    g = len(sums)
    if g < 2:
        return math.inf
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return float(np.sqrt(g / (g - 1) * (residuals @ residuals)) / sizes.sum())


def draws_for(alpha: float) -> int:
    """The number of Monte-Carlo draws that resolves a one-sided alpha."""
    return min(max(DRAWS, math.ceil(20 / alpha) - 1), MAX_DRAWS)


def blocks(draws: int, width: int) -> Iterator[int]:
    """Sizes of blocks of draws that fit into memory; a draw holds `width` numbers."""
    size = max(1, BLOCK_CELLS // width)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def tail(draws: int, alpha: float) -> int:
    """The largest count of draws with (1 + count) / (1 + draws) <= alpha; -1 where there is none."""
    return math.floor(alpha * (draws + 1) + 1e-9) - 1


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A random generator that depends only on the seed and on the purpose of the draws."""
    return np.random.default_rng(derive_seed(seed, "stats", purpose))
