"""A judge's many verdicts, corrected by people's few: prediction-powered inference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from escultor.errors import DataError
from escultor.stats import Array, cluster_sums

ALPHA = 0.025  # one-sided
MIN_CLUSTERS = 2  # with labels: a variance between clusters needs two


@dataclass(frozen=True, slots=True)
class CorrectedMean:
    """An estimate of people's mean label from their labels and a judge's.

    `power` is the weight of the judge, from 0 (unrelated to people's labels: the interval is that of their
    labels alone) to 1.
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
    """The mean of people's labels over all items, of which some have a person's label and all a judge's.

    PPI++ (Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453, eq. 2 and Prop. 2):
    mean(labels) + power · (mean(judged alone) - mean(judged, where labelled)), with the power that makes
    its variance least, within [0, 1]. Variances are between clusters; the quantile is Student's with the
    labelled clusters less one degrees of freedom. Raises DataError where there are fewer than two.
    """
    y, f = np.asarray(labels, dtype=float), np.asarray(judged, dtype=float)
    alone = np.asarray(judged_alone, dtype=float)
    is_matched = len(y) == len(f) == len(clusters) and len(alone) == len(clusters_alone)
    if len(set(clusters)) < MIN_CLUSTERS or not is_matched:
        got = f"{len(y)} labels, {len(f)} verdicts, {len(set(clusters))} clusters"
        raise DataError("a judge cannot be corrected", got, "labels of people in two clusters at least")
    if not all(np.isfinite(each).all() for each in (y, f, alone)):
        raise DataError("a label or verdict is not finite", remedy="leave the item out")
    from scipy.stats import t

    people, both = _residuals(y, clusters), _residuals(f, clusters)
    variance_alone = math.inf
    if len(set(clusters_alone)) > 1:
        residuals_alone = _residuals(alone, clusters_alone)
        variance_alone = _covariance(residuals_alone, residuals_alone)
    spread = _covariance(both, both) + variance_alone
    power = min(1.0, max(0.0, _covariance(people, both) / spread)) if 0 < spread < math.inf else 0.0
    mean = float(y.mean())
    value = mean + (power * float(alone.mean() - f.mean()) if power else 0.0)
    rest = people - power * both
    variance = _covariance(rest, rest) + (power**2 * variance_alone if power else 0.0)
    quantile = float(t.ppf(1 - alpha, len(people) - 1))
    half, half_people = (quantile * math.sqrt(v) for v in (variance, _covariance(people, people)))
    return CorrectedMean(
        value=value,
        low=value - half,
        high=value + half,
        power=power,
        labelled=len(y),
        judged_alone=len(alone),
        people_low=mean - half_people,
        people_high=mean + half_people,
    )


def correct_judge(
    judged: Mapping[str, float], people: Mapping[str, float], clusters: Mapping[str, str]
) -> CorrectedMean | None:
    """The mean preference over all judged items, corrected by those that people rated too (all by item). None
    where people rated fewer than two clusters of them."""
    both = [item for item in judged if item in people]
    alone = [item for item in judged if item not in people]
    if len({clusters[item] for item in both}) < MIN_CLUSTERS:
        return None
    return prediction_powered_mean(
        [people[item] for item in both],
        [judged[item] for item in both],
        [clusters[item] for item in both],
        [judged[item] for item in alone],
        [clusters[item] for item in alone],
    )


def _residuals(values: Array, clusters: Sequence[str]) -> Array:
    """Each cluster's part of the error of the mean: (G,)."""
    return cluster_sums(values - values.mean(), clusters)[0] / len(values)


def _covariance(residuals: Array, others: Array) -> float:
    """The covariance of two means from their residuals by cluster, (G,) each."""
    return len(residuals) / (len(residuals) - 1) * float(residuals @ others)
