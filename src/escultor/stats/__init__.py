"""Statistics of paired comparisons: pure functions, seeded by name, checked against scipy.

Throughout, `level` is one-sided: `low` and `high` each miss the truth with probability `level` at most,
so level 0.025 is the usual 95 % interval. The unit that is drawn is the *cluster* (a conversation, a
document, a prompt family); items inside one may depend on each other (Miller 2024, arXiv:2411.00640).
Results do not depend on the order of the items. Unusable input raises DataError.

sampling      clusters and draws
means         studentised cluster bootstrap; distribution-free bounds
permutation   sign flips by cluster, exact McNemar, Holm
sizes         how many items would be enough
shares        binomial shares, win rates, quantiles
"""

from __future__ import annotations

from escultor.stats.means import Bound, Interval, bootstrap_mean, bounded_mean
from escultor.stats.permutation import SignFlip, holm, mcnemar, sign_flip
from escultor.stats.sampling import Array, Clusters, Grouping, cluster_sums, grouped, standard_error
from escultor.stats.shares import Quantile, WinRate, quantile, wilson, win_rate
from escultor.stats.sizes import Condition, lattice, n_for_power, n_to_meet, n_without_event, spread_of

__all__ = [
    "Array",
    "Bound",
    "Clusters",
    "Condition",
    "Grouping",
    "Interval",
    "Quantile",
    "SignFlip",
    "WinRate",
    "bootstrap_mean",
    "bounded_mean",
    "cluster_sums",
    "grouped",
    "holm",
    "lattice",
    "mcnemar",
    "n_for_power",
    "n_to_meet",
    "n_without_event",
    "quantile",
    "sign_flip",
    "spread_of",
    "standard_error",
    "wilson",
    "win_rate",
]
