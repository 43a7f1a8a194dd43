"""How many items would be enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.sampling import Clusters, cluster_sums, grouped, standard_error

MOST_ITEMS = 10**9  # a larger sample is nobody's to collect: no number is told
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that has to be shown: that a mean lies above its limit.

    `slack` is how far above the limit the mean lies, `spread` the standard error of one item's worth
    (that of n items is spread / sqrt(n)), `level` the one-sided level of the bound. `harm` is how far below
    the mean the worst value lies that no item showed: what distribution-free bounds pay for. `per_cluster`
    is how many items a cluster has. `step` is the `lattice` of the differences, where signs are flipped:
    half of what one flip can change the total by, which is lost to its ties. `seen` items are what slack
    was estimated from; None: it is the truth.
    """

    slack: float
    spread: float
    level: float
    harm: float = 0.0
    per_cluster: float = 1.0
    step: float = 0.0
    seen: int | None = None

    def power(self, n: float) -> float:
        """The probability that n fresh items show it, if it is so at all.

        Where slack is an estimate its own error counts too: the truth is taken as normal around it and
        above the limit. A figure that happened to come out high would else promise too much.
        """
        clusters = n / self.per_cluster
        slack = self.slack - self.harm / (clusters + 1) - self.step / n
        if self.harm > 0:
            unseen = n_without_event(self.slack / self.harm, self.level)
            if unseen is None or clusters < unseen:
                return 0.0
        if self.spread <= 0:
            return 1.0 if slack > 0 else 0.0
        z = _NORMAL.inv_cdf(1 - self.level)
        # The spread will have to be estimated too, which costs z² / 2 clusters (Guenther 1981), and the
        # cluster that no sample shows has a random weight of its own, which widens the bound.
        told = math.sqrt(max(n - self.per_cluster * z * z / 2, 0.0)) / self.spread
        beyond = slack * told - z * math.hypot(1.0, told * self.harm / (clusters + 1))
        if self.seen is None:
            return _NORMAL.cdf(beyond)
        true = _NORMAL.cdf(self.slack * math.sqrt(self.seen) / self.spread)
        return min(1.0, _NORMAL.cdf(beyond / math.sqrt(1 + n / self.seen)) / true)


def n_to_meet(conditions: Sequence[Condition], power: float = 0.8) -> int | None:
    """The fewest items with which all conditions are met together with `power`, whatever they have to do
    with each other (Bonferroni); None where a condition has no slack or 10^9 items are too few."""
    if any(c.slack <= 0 or not math.isfinite(c.spread) for c in conditions):
        return None

    def enough(n: int) -> bool:
        return sum(1 - c.power(n) for c in conditions) <= 1 - power + 1e-12

    high = 1
    while not enough(high):
        if high >= MOST_ITEMS:
            return None
        high = min(2 * high, MOST_ITEMS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def n_for_power(
    differences: ArrayLike, clusters: Clusters, effect: float, level: float, power: float = 0.8
) -> int | None:
    """Items needed to show `effect` one-sided at `level` with `power`, at the spread and clustering seen.

    `((z_level + z_power) · sd / effect)² + z_level² / 2` with the variance taken between clusters; None
    when the effect is not positive, there is one cluster only, or more than 10^9 items would be needed.
    """
    groups = grouped(clusters)
    per_cluster = len(groups) / len(groups.sizes)
    return n_to_meet([Condition(effect, spread_of(differences, groups), level, 0.0, per_cluster)], power)


def spread_of(differences: ArrayLike, clusters: Clusters) -> float:
    """The standard error of the mean of one item, taken between clusters; inf for a single cluster."""
    return standard_error(*cluster_sums(differences, clusters)) * math.sqrt(len(clusters))


def lattice(differences: ArrayLike) -> float:
    """The number of which all differences are whole multiples (1 for wins and losses, 1/4 for marks in
    quarters); 0 where the smallest of them is none, as for differences of a continuous score."""
    sizes = np.unique(np.abs(np.asarray(differences, dtype=np.float64)))
    sizes = sizes[sizes > 1e-12]
    if len(sizes) == 0:
        return 0.0
    times = sizes / sizes[0]
    return float(sizes[0]) if np.abs(times - np.round(times)).max() < 1e-6 else 0.0


def n_without_event(share: float, level: float) -> int | None:
    """Clusters needed, all of them free of an event, to show that it befalls fewer than `share`.

    The exact form of the rule of three, `(1 - share)^n <= level`; None when no 10^9 would be enough.
    """
    if share <= 1 / MOST_ITEMS:
        return None
    return 1 if share >= 1 else max(1, math.ceil(math.log(level) / math.log1p(-share)))
