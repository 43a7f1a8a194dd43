"""Statistics of the whole package: pure functions, with random draws that are seeded by name.

`alpha` is one-sided everywhere: `low` and `high` are each wrong with probability `alpha` at most, so
alpha 0.025 gives the usual 95 % interval. A function whose error is that of both sides together says so in
the name of its parameter: `confidence` (0.95) or `two_sided_alpha` (0.05).

The sampling unit is the *cluster* (a conversation, a document, a prompt family); items inside one may depend
on each other (Miller 2024, arXiv:2411.00640). Results do not depend on the order of the items. Unusable
input raises DataError.

sampling      clusters and random draws
means         studentised cluster bootstrap; distribution-free bounds
permutation   sign flips by cluster, exact McNemar test, Holm's correction
coin          tails of fair coins
sizes         how many items would be enough
shares        binomial shares, win rates, quantiles
sequential    bounds that hold at every interim analysis
exceedance    evidence that a share is above a limit, at any time
odds          log-odds, and a comparison with several readings
logistic      logistic regression
agreement     Krippendorff's alpha, AUC, calibration error
"""

from __future__ import annotations

from escultor.stats.agreement import auc, auc_interval, calibration_error, krippendorff_alpha
from escultor.stats.logistic import LogisticFit, fit_logistic, sigmoid
from escultor.stats.means import Bound, Interval, bootstrap_mean, bootstrap_ratio, bounded_mean
from escultor.stats.odds import expected_preference, log_odds, logistic
from escultor.stats.permutation import SignFlip, holm, mcnemar, sign_flip
from escultor.stats.sampling import Array, Clusters, Grouping, cluster_sums, grouped, standard_error
from escultor.stats.shares import (
    Quantile,
    WinRate,
    binomial_p_value,
    clopper_pearson,
    quantile,
    quantile_of_counts,
    wilson,
    win_rate,
)
from escultor.stats.sizes import (
    Condition,
    n_for_power,
    n_to_meet,
    n_without_event,
    score_step,
    standard_error_of_one,
)

__all__ = [
    "Array",
    "Bound",
    "Clusters",
    "Condition",
    "Grouping",
    "Interval",
    "LogisticFit",
    "Quantile",
    "SignFlip",
    "WinRate",
    "auc",
    "auc_interval",
    "binomial_p_value",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bounded_mean",
    "calibration_error",
    "clopper_pearson",
    "cluster_sums",
    "expected_preference",
    "fit_logistic",
    "grouped",
    "holm",
    "krippendorff_alpha",
    "log_odds",
    "logistic",
    "mcnemar",
    "n_for_power",
    "n_to_meet",
    "n_without_event",
    "quantile",
    "quantile_of_counts",
    "score_step",
    "sigmoid",
    "sign_flip",
    "standard_error",
    "standard_error_of_one",
    "wilson",
    "win_rate",
]
