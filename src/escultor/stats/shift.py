"""Whether the shares of categories have shifted: the population stability index and a permutation test.

PSI is the symmetrised divergence Σ (p - q) ln(p / q) of two distributions (Siddiqi 2006, Credit Risk
Scorecards, §6). The test is exact for independent observations: under exchangeability the counts of one group
given both groups' totals are multivariate hypergeometric; the statistic is Pearson's X².
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import gammaincc

from escultor.stats.sampling import blocks, draws_for, generator

SCREEN = 50  # times alpha: above this p-value of chi-square's law no draw is needed
ENOUGH = 20  # draws beyond the statistic make the p-value precise enough (Besag & Clifford 1991)


def psi(recent: Mapping[str, int], before: Mapping[str, int]) -> float:
    """The population stability index of two groups' counts, with half an observation added to each category
    of each group, so that an empty one is no infinity."""
    categories = recent.keys() | before.keys()
    if not categories:
        return 0.0
    counts = np.array([[group.get(c, 0) + 0.5 for c in sorted(categories)] for group in (recent, before)])
    p, q = counts / counts.sum(axis=1, keepdims=True)
    return float(((p - q) * np.log(p / q)).sum())


def shift_p_value(recent: Mapping[str, int], before: Mapping[str, int], alpha: float, seed: int = 0) -> float:
    """The p-value of the hypothesis that both groups are drawn from one distribution. Drawn precisely where
    it is near or below `alpha`; elsewhere that of the chi-square law. 1 where a group is empty."""
    categories = sorted(recent.keys() | before.keys())
    mine = np.array([recent.get(c, 0) for c in categories], np.int64)
    both = mine + np.array([before.get(c, 0) for c in categories], np.int64)
    mine, both = mine[both > 0], both[both > 0]
    n, total = int(mine.sum()), int(both.sum())
    if len(both) < 2 or n in (0, total):
        return 1.0
    expected = both * (n / total)
    squares = float(((mine - expected) ** 2 / expected).sum())
    p_value = float(gammaincc((len(both) - 1) / 2, squares * total / (total - n) / 2))
    if p_value > SCREEN * alpha:
        return p_value
    rng, draws, beyond = generator(seed, "shift"), 0, 0
    for size in blocks(draws_for(alpha), 8 * len(both)):
        drawn = rng.multivariate_hypergeometric(both, n, size=size, method="marginals")
        beyond += int((((drawn - expected) ** 2 / expected).sum(axis=1) >= squares * (1 - 1e-12)).sum())
        draws += size
        if beyond >= ENOUGH:
            break
    return (1 + beyond) / (1 + draws)
