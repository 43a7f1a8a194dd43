"""Evidence that a share is above, or below, a limit, which may be looked at after every observation.

A test martingale (Ville 1939; Waudby-Smith & Ramdas 2024, JRSS B 86, §4): while the true share is at most the
limit p, the product of 1 + λ w (x - p) over the observations x in [0, 1] has an expected value of at most 1,
so it ever reaches 1 / α with probability α at most. It is exact at every sample size, for shares between 0
and 1 as for events, and for weights w in [0, 1] that are known before their observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from escultor.stats.sampling import Array

# Alternatives, as multiples of the limit, with their prior weights. λ of an alternative q is
# (q - p) / (p (1 - p)), for which the product is the likelihood ratio of q to p where x is 0 or 1.
ABOVE = ((1.6, 0.9), (3.0, 0.1))
BELOW = ((0.75, 0.5), (0.5, 0.5))
EDGE = 1e-4
LARGEST = 0.95  # share that an alternative names at most


@dataclass(frozen=True, slots=True)
class Exceedance:
    """Log evidence over a series of observations, summed from its beginning: one row an alternative."""

    above: Array  # (len(ABOVE), N + 1)
    below: Array  # (len(BELOW), N + 1)

    def log_above(self, starts: Sequence[int]) -> tuple[float, int]:
        """Log of the evidence that the share is above the limit, in the observations behind the start for
        which it is largest, and that start."""
        return _largest(self.above, ABOVE, starts)

    def log_below(self, starts: Sequence[int]) -> tuple[float, int]:
        """Log of the evidence that the share is below the limit, and the start, as `log_above`."""
        return _largest(self.below, BELOW, starts)


def exceedance(values: ArrayLike, weights: ArrayLike, limit: float) -> Exceedance:
    """The evidence in `values` (in [0, 1], in the order they were seen) about a limit. Limits of 0 and 1 are
    taken as 0.0001 and 0.9999, since a likelihood ratio to an impossible event is infinite."""
    x, w = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    within = min(max(limit, EDGE), 1 - EDGE)
    return Exceedance(_sums(x, w, within, ABOVE), _sums(x, w, within, BELOW))


def _sums(x: Array, w: Array, limit: float, alternatives: tuple[tuple[float, float], ...]) -> Array:
    ratios = np.array([ratio for ratio, _ in alternatives])
    shares = np.where(ratios > 1, np.minimum(limit * ratios, max(LARGEST, (1 + limit) / 2)), limit * ratios)
    bets = (shares - limit) / (limit * (1 - limit))
    logs = np.log1p(bets[:, None] * (w * (x - limit))[None])
    return np.concatenate([np.zeros((len(bets), 1)), np.cumsum(logs, axis=1)], axis=1)


def _largest(
    sums: Array, alternatives: tuple[tuple[float, float], ...], starts: Sequence[int]
) -> tuple[float, int]:
    priors = np.log([prior for _, prior in alternatives])
    gains = sums[:, -1:] - sums[:, list(starts)] + priors[:, None]  # (alternatives, starts)
    evidence = np.logaddexp.reduce(gains)
    best = int(evidence.argmax())
    return float(evidence[best]), starts[best]
