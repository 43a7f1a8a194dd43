"""Many verdicts of a judge, corrected by few of people: prediction-powered inference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from escultor.errors import DataError

ALPHA = 0.025  # one-sided
FEWEST = 2  # clusters with labels: with fewer nothing tells how far they vary


@dataclass(frozen=True, slots=True)
class CorrectedMean:
    """A mean as people would see it, from their labels and a judge's.

    `power` is the weight the judge was given: 0 for one that tells nothing of people's labels (the
    interval is then that of people's labels alone), up to 1.
    """

    value: float
    low: float
    high: float
    power: float
    labelled: int
    judged_alone: int
    people_low: float  # the interval from people's labels alone
    people_high: float


def prediction_powered_mean(
    labels: Sequence[float],
    judged: Sequence[float],
    clusters: Sequence[str],
    judged_alone: Sequence[float],
    clusters_alone: Sequence[str],
    alpha: float = ALPHA,
) -> CorrectedMean:
    """The mean label over all items, of which some have a person's label and all a judge's.

    PPI++ (Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453, eq. 2 and Prop. 2):
    mean(labels) + power · (mean(judged alone) - mean(judged, where labelled)), with the power that makes
    its variance least, within [0, 1]. Variances are between clusters; the quantile is Student's with the
    labelled clusters less one degrees of freedom. Raises DataError where there are fewer than two.
    """
    y, f = np.asarray(labels, dtype=float), np.asarray(judged, dtype=float)
    alone = np.asarray(judged_alone, dtype=float)
    fit = len(y) == len(f) == len(clusters) and len(alone) == len(clusters_alone)
    if len(set(clusters)) < FEWEST or not fit:
        got = f"{len(y)} labels, {len(f)} verdicts, {len(set(clusters))} clusters"
        raise DataError("a judge cannot be corrected", got, "labels of people in two clusters at least")
    if not all(np.isfinite(each).all() for each in (y, f, alone)):
        raise DataError("a label or verdict is not finite", remedy="leave the item out")
    from scipy.stats import t

    people, both = _residuals(y, clusters), _residuals(f, clusters)
    several = len(set(clusters_alone)) > 1
    variance_alone = _variance(_residuals(alone, clusters_alone)) if several else math.inf
    spread = _variance(both) + variance_alone
    power = min(1.0, max(0.0, _covariance(people, both) / spread)) if 0 < spread < math.inf else 0.0
    value = float(y.mean()) + (power * float(alone.mean() - f.mean()) if power else 0.0)
    variance = _variance(people - power * both) + (power**2 * variance_alone if power else 0.0)
    quantile = float(t.ppf(1 - alpha, len(people) - 1))
    half, half_people = quantile * math.sqrt(variance), quantile * math.sqrt(_variance(people))
    mean = float(y.mean())
    return CorrectedMean(
        value, value - half, value + half, power, len(y), len(alone), mean - half_people, mean + half_people
    )


def correct_judge(
    judged: Mapping[str, float], people: Mapping[str, float], clusters: Mapping[str, str]
) -> CorrectedMean | None:
    """The mean preference over all items that a judge judged, corrected by those that people rated too;
    by item. None where people rated fewer than two clusters of them."""
    both = [item for item in judged if item in people]
    alone = [item for item in judged if item not in people]
    if len({clusters[item] for item in both}) < FEWEST:
        return None
    return prediction_powered_mean(
        [people[item] for item in both],
        [judged[item] for item in both],
        [clusters[item] for item in both],
        [judged[item] for item in alone],
        [clusters[item] for item in alone],
    )


def _residuals(values: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.float64]:
    """Each cluster's part of the error of the mean: (G,)."""
    _, where = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return np.bincount(where, weights=values - values.mean()) / len(values)


def _variance(residuals: NDArray[np.float64]) -> float:
    return _covariance(residuals, residuals)


def _covariance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return len(one) / (len(one) - 1) * float(one @ other)
