"""Tests: paired permutation by whole clusters, exact McNemar, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.sampling import Array, Clusters, blocks, cluster_sums, draws_for, generator

EXACT_CLUSTERS = 12  # up to here all sign flips are enumerated
_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)


class SignFlip(NamedTuple):
    """One-sided p-values of one permutation test, both ways."""

    better: float  # of `the mean difference is not above 0`
    worse: float  # of `the mean difference is not below 0`


def sign_flip(differences: ArrayLike, clusters: Clusters, level: float, seed: int) -> SignFlip:
    """One-sided p-values of the mean difference: paired permutation by whole clusters.

    Every cluster's sign is flipped with probability one half (Fisher 1935, §21); all flips are enumerated
    up to 12 clusters, else drawn, with the +1 correction (Phipson & Smyth 2010). `level` sets how finely.
    Lowering a difference never lowers `better`.
    """
    sums, _ = cluster_sums(differences, clusters)
    # Differences that cancel within a cluster leave their rounding: its size is theirs, not their sum's.
    g, tolerance = len(sums), 1e-12 * float(np.abs(differences).sum())
    # The flipped total reaches the observed one exactly when the flipped clusters sum to at most 0.
    if g <= EXACT_CLUSTERS:
        flipped = (((np.arange(2**g)[:, None] >> np.arange(g)) & 1) @ sums)[None]
        low, high, draws, seen = 0, 0, flipped.size, 0
    else:
        draws, seen = draws_for(level), 1
        flipped, low, high = _flipped_sums(sums, draws, generator(seed, "sign-flip")), 0, 0
    for totals in flipped:
        low += int(np.count_nonzero(totals <= tolerance))
        high += int(np.count_nonzero(totals >= -tolerance))
    return SignFlip((seen + low) / (seen + draws), (seen + high) / (seen + draws))


def _flipped_sums(sums: Array, draws: int, rng: np.random.Generator):
    """Blocks of totals over random halves of the clusters: eight clusters at a time by one random byte and
    a table of their 256 sums, so that a hundred thousand clusters take a fraction of a second."""
    padded = np.zeros(-(-len(sums) // 8) * 8)
    padded[: len(sums)] = sums
    octets = padded.reshape(-1, 8)  # (G / 8, 8)
    for rows in blocks(draws, -(-len(octets) // 8)):
        picks = rng.integers(256, size=(rows, len(octets)), dtype=np.uint8).T  # (G / 8, rows)
        totals = np.zeros(rows)
        for octet, pick in zip(octets, np.ascontiguousarray(picks), strict=True):
            totals += (_BITS @ octet)[pick]
        yield totals


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
