"""Hypothesis tests: paired permutation of whole clusters, exact McNemar tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.coin import coin_tail, coin_tails, log_factorials
from escultor.stats.sampling import (
    MANY_CLUSTERS,
    Array,
    Clusters,
    blocks,
    cluster_sums,
    draws_for,
    generator,
)

EXACT_CLUSTERS = 12  # up to here all sign flips are enumerated
SHARES = 256  # of decided items, over which the unconditional test takes its maximum
_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)


class SignFlip(NamedTuple):
    """One-sided p-values of one permutation test, in both directions."""

    better: float  # of `the mean difference is not above 0`
    worse: float  # of `the mean difference is not below 0`


def sign_flip(differences: ArrayLike, clusters: Clusters, alpha: float, seed: int) -> SignFlip:
    """One-sided p-values of the mean difference by a paired permutation test of whole clusters.

    Each cluster's sign is flipped with probability one half (Fisher 1935, §21). Up to 12 clusters all flips
    are enumerated; beyond, they are drawn, as many as resolve `alpha`, with the +1 correction (Phipson &
    Smyth 2010). Lowering a difference never lowers `better`.
    """
    sums, _ = cluster_sums(differences, clusters)
    # Rounding scales with the differences themselves, which may cancel within a cluster, not with their sum.
    g, tolerance = len(sums), 1e-12 * float(np.abs(differences).sum())
    # The flipped total reaches the observed one exactly when the flipped clusters sum to at most 0.
    if g <= EXACT_CLUSTERS:
        flipped = (((np.arange(2**g)[:, None] >> np.arange(g)) & 1) @ sums)[None]
        draws, observed = flipped.size, 0  # the identity is one of the flips
    else:
        draws, observed = draws_for(alpha), 1
        flipped = _flipped_sums(sums, draws, generator(seed, "sign-flip"))
    low = high = 0
    for totals in flipped:
        low += int(np.count_nonzero(totals <= tolerance))
        high += int(np.count_nonzero(totals >= -tolerance))
    return SignFlip((observed + low) / (observed + draws), (observed + high) / (observed + draws))


def _flipped_sums(sums: Array, draws: int, rng: np.random.Generator):
    """Blocks of sums over random halves of the clusters: (rows,) each.

    Eight clusters at a time are chosen by one random byte, through a table of their 256 partial sums, so a
    hundred thousand clusters take a fraction of a second.
    """
    padded = np.zeros(-(-len(sums) // 8) * 8)
    padded[: len(sums)] = sums
    octets = padded.reshape(-1, 8)  # (G / 8, 8)
    for rows in blocks(draws, -(-len(octets) // 8)):
        picks = rng.integers(256, size=(rows, len(octets)), dtype=np.uint8).T  # (G / 8, rows)
        totals = np.zeros(rows)
        for octet, pick in zip(octets, np.ascontiguousarray(picks), strict=True):
            totals += (_BITS @ octet)[pick]
        yield totals


def mcnemar(wins: int, losses: int, items: int) -> float:
    """Exact one-sided p-value of `a win is no more likely than a loss` over `items` independent pairs.

    Up to 1,000 items the unconditional test (Suissa & Shuster 1991): the probability of a score
    (wins - losses) / sqrt(wins + losses) as high as the one seen, at the share of decided items where it is
    highest. It needs about a tenth fewer items than the conditional test (McNemar 1947), which is used
    beyond. Turning a win into a tie, or a tie into a loss, never lowers it.
    """
    decided = wins + losses
    if decided == 0 or wins <= losses:
        return 1.0
    if items > MANY_CLUSTERS:
        return coin_tail(wins, decided)
    count = np.arange(items + 1)  # decided items of another sample
    least = (count + (wins - losses) * np.sqrt(count / decided)) / 2  # its wins, for a score as high
    least = np.minimum(np.maximum(np.ceil(least - 1e-9), 1), count + 1)
    logs = log_factorials(items)
    tail = coin_tails(least, count.astype(np.float64), logs)
    share = np.sin(np.linspace(0, np.pi / 2, SHARES + 1)[1:, None]) ** 2
    ways = logs[items] - logs[count] - logs[items - count]
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(count == items, 0.0, (items - count) * np.log1p(-share))
    likelihood = np.exp(ways + count * np.log(share) + rest)  # (SHARES, items + 1)
    return min(1.0, float((likelihood @ tail).max()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, highest)
    return tuple(adjusted)
