"""How far raters agree, and how far scores can be trusted: Krippendorff's alpha, AUC, calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.means import Interval
from escultor.stats.sampling import Clusters, cluster_sums, grouped


def krippendorff_alpha(units: Sequence[Sequence[int]], values: Sequence[float]) -> float | None:
    """Krippendorff's alpha with interval distance (Krippendorff 2004, §11.3): 1 - D_o / D_e.

    `units[u][k]` is the number of raters who gave unit u the value `values[k]`; raters may be missing, and
    units with fewer than two ratings do not count. For two values this is the nominal alpha too. None where
    it is not defined: no unit has two ratings, or all ratings are equal.

    Ratings come as counts, so a million verdicts need no table of raters by units.
    """
    counts = np.asarray(units, np.float64).reshape(len(units), len(values))  # (U, K)
    counts = counts[counts.sum(1) > 1]
    v = np.asarray(values, np.float64)
    distances = np.triu((v[:, None] - v) ** 2)  # (K, K)

    def disagreement(rows: np.ndarray) -> np.ndarray:
        """Σ_j<k 2 n_j n_k (v_j - v_k)² of each row."""
        return np.einsum("uj,jk,uk->u", 2 * rows, distances, rows)

    totals = counts.sum(0)
    n, between = float(totals.sum()), float(disagreement(totals[None])[0])
    if not between:
        return None
    observed = math.fsum((disagreement(counts) / (counts.sum(1) - 1)).tolist()) / n
    return 1 - observed / (between / (n * (n - 1)))


def auc(scores: ArrayLike, outcomes: ArrayLike) -> float:
    """The probability that a row with outcome 1 scores above one with outcome 0, ties as a half (Mann &
    Whitney 1947); 0.5 where only one outcome occurs."""
    from scipy.stats import rankdata

    positive = np.asarray(outcomes) == 1
    n = positive.sum()
    if not 0 < n < len(positive):
        return 0.5
    ranks = rankdata(np.asarray(scores))
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def auc_interval(
    scores: ArrayLike, outcomes: ArrayLike, clusters: Clusters, alpha: float = 0.025
) -> Interval:
    """`auc` with bounds whose variance is between clusters (Obuchowski 1997, Biometrics 53:567), formed on
    its log-odds; from 0 to 1 where only one outcome occurs, or one cluster."""
    from scipy.stats import rankdata

    x, is_one, groups = np.asarray(scores, np.float64), np.asarray(outcomes) == 1, grouped(clusters)
    value, g, m = auc(x, is_one), len(groups.sizes), int(is_one.sum())
    n = len(x) - m
    if min(m, n) == 0 or g < 2:
        return Interval(value, 0.0, 1.0, len(x))
    # A row's share of the rows of the other outcome that it beats: its rank among all less among its own.
    ranks, within = rankdata(x), np.empty(len(x))
    within[is_one], within[~is_one] = rankdata(x[is_one]), rankdata(x[~is_one])
    beaten = (ranks - within) / np.where(is_one, n, m)
    parts = np.where(is_one, (beaten - value) / m, (1 - beaten - value) / n)
    by_cluster, _ = cluster_sums(parts, groups)
    error = math.sqrt(g / (g - 1) * float(by_cluster @ by_cluster))
    if value in (0.0, 1.0):  # no row is out of order: what as many independent rows could hide
        hidden = 1 - alpha ** (1 / min(m, n))
        return Interval(value, max(0.0, value - hidden), min(1.0, value + hidden), len(x))
    centre, half = (
        math.log(value / (1 - value)),
        NormalDist().inv_cdf(1 - alpha) * error / (value * (1 - value)),
    )
    low, high = (1 / (1 + math.exp(-max(-40.0, min(40.0, centre + side)))) for side in (-half, half))
    return Interval(value, low, high, len(x))


def calibration_error(scores: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599, eq. 3): |mean score - mean outcome| in
    bins of equal width, weighted by the rows in each."""
    x, y = np.asarray(scores, np.float64), np.asarray(outcomes, np.float64)
    gaps = np.bincount(bin_of(x, bins), weights=x - y)
    return float(sum(abs(gap) for gap in gaps.tolist()) / len(x))


def bin_of(scores: ArrayLike, bins: int) -> np.ndarray:
    """The number of the bin of equal width over [0, 1] in which each score lies: (N,)."""
    return np.minimum((np.asarray(scores, np.float64) * bins).astype(np.intp), bins - 1)
