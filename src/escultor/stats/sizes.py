"""How many items would be enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.sampling import Clusters, cluster_sums, grouped, standard_error

MAX_ITEMS = 10**9  # no larger sample is ever named
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition to be shown: that a mean is above its limit.

    slack        mean minus limit
    spread       standard error of the mean of one item; that of n items is spread / sqrt(n)
    alpha        one-sided error of the bound
    harm         mean minus the worst value that an unseen item can have; 0 without distribution-free bounds
    per_cluster  items in a cluster
    step         `score_step` of the differences where signs are flipped: half of what one flip can change
                 the total by, which ties of the test lose
    seen         items that slack was estimated from; None: slack is the true value
    """

    slack: float
    spread: float
    alpha: float
    harm: float = 0.0
    per_cluster: float = 1.0
    step: float = 0.0
    seen: int | None = None

    def power(self, n: float) -> float:
        """The probability that n fresh items show the condition, given that it holds."""
        # 1. A distribution-free bound gives one unseen cluster a random weight of mean 1 / (clusters + 1) at
        #    `harm` below the mean, so that much slack is lost; without enough clusters the bound cannot
        #    reach the limit whatever is seen (rule of three). Ties of a sign-flip test lose `step` / n.
        clusters = n / self.per_cluster
        slack = self.slack - self.harm / (clusters + 1) - self.step / n
        if self.harm > 0:
            clusters_needed = n_without_event(self.slack / self.harm, self.alpha)
            if clusters_needed is None or clusters < clusters_needed:
                return 0.0
        if self.spread <= 0:
            return 1.0 if slack > 0 else 0.0
        # 2. The condition is shown when the estimate exceeds its limit by z standard errors. In units of the
        #    standard error the estimate is normal around slack · sqrt(n) / spread. Having to estimate the
        #    spread costs z² / 2 clusters (Guenther 1981). The random weight of the unseen cluster has a
        #    standard deviation of about 1 / (clusters + 1) too, which widens the bound.
        z = _NORMAL.inv_cdf(1 - self.alpha)
        precision = math.sqrt(max(n - self.per_cluster * z * z / 2, 0.0)) / self.spread
        excess = slack * precision - z * math.hypot(1.0, precision * self.harm / (clusters + 1))
        if self.seen is None:
            return _NORMAL.cdf(excess)
        # 3. An estimated slack has an error of its own, of variance 1 / seen to the new sample's 1 / n. The
        #    truth is taken as normal around the estimate, which adds n / seen to the unit variance of
        #    the excess, and as above the limit, which divides by the probability of that. A figure that
        #    came out high by chance would otherwise promise too much.
        p_holds = _NORMAL.cdf(self.slack * math.sqrt(self.seen) / self.spread)
        return min(1.0, _NORMAL.cdf(excess / math.sqrt(1 + n / self.seen)) / p_holds)


def n_to_meet(conditions: Sequence[Condition], power: float = 0.8) -> int | None:
    """The fewest items that show all conditions together with `power`, however they depend on each other
    (Bonferroni); None where a condition has no slack or 10^9 items are too few."""
    if any(c.slack <= 0 or not math.isfinite(c.spread) for c in conditions):
        return None

    def is_enough(n: int) -> bool:
        return sum(1 - c.power(n) for c in conditions) <= 1 - power + 1e-12

    high = 1
    while not is_enough(high):
        if high >= MAX_ITEMS:
            return None
        high = min(2 * high, MAX_ITEMS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def n_for_power(
    differences: ArrayLike, clusters: Clusters, effect: float, alpha: float, power: float = 0.8
) -> int | None:
    """Items needed to show `effect` one-sided at `alpha` with `power`, at the observed spread and clustering.

    `((z_alpha + z_power) · sd / effect)² + z_alpha² / 2` with the variance taken between clusters. None
    where the effect is not positive, there is only one cluster, or more than 10^9 items would be needed.
    """
    groups = grouped(clusters)
    spread = standard_error_of_one(differences, groups)
    return n_to_meet([Condition(effect, spread, alpha, per_cluster=len(groups) / len(groups.sizes))], power)


def standard_error_of_one(differences: ArrayLike, clusters: Clusters) -> float:
    """The standard error of the mean of one item, taken between clusters; inf for a single cluster."""
    return standard_error(*cluster_sums(differences, clusters)) * math.sqrt(len(clusters))


def score_step(differences: ArrayLike) -> float:
    """The number of which all differences are whole multiples; 0 where there is none.

    1 for wins and losses, 1/4 for marks in quarters, 0 for the differences of a continuous score. Only the
    smallest difference is tried: if the differences are multiples of a step and their smallest is not the
    step itself, the result is 0, which leaves the ties of the test out of the plan.
    """
    sizes = np.unique(np.abs(np.asarray(differences, dtype=np.float64)))
    sizes = sizes[sizes > 1e-12]
    if len(sizes) == 0:
        return 0.0
    multiples = sizes / sizes[0]
    return float(sizes[0]) if np.abs(multiples - np.round(multiples)).max() < 1e-6 else 0.0


def n_without_event(share: float, alpha: float) -> int | None:
    """Clusters needed, none of them with an event, to show that fewer than `share` have one.

    The exact form of the rule of three, `(1 - share)^n <= alpha`; None where 10^9 would be too few.
    """
    if share <= 1 / MAX_ITEMS:
        return None
    return 1 if share >= 1 else max(1, math.ceil(math.log(alpha) / math.log1p(-share)))
