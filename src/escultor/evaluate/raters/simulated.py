"""Simulated raters, for demonstrations and tests without people; everything that shows them says so.

A simulated rater sees the true score of an answer through noise. All draws are named by seed, rater and item,
so they do not depend on the order of calls.
"""

from __future__ import annotations

import math

from escultor.errors import DataError
from escultor.rng import unit
from escultor.stats import log_odds


def simulated_thumb(
    score: float, rater: str, item: str, *, threshold: float, noise: float, seed: int
) -> bool:
    """A simulated thumb: up with probability logistic((score - threshold) / noise).

    Without noise: up exactly when the score reaches the threshold.
    """
    if not (noise >= 0 and all(map(math.isfinite, (noise, score, threshold)))):
        got = f"noise {noise}, {(score, threshold)}"
        raise DataError("a simulated rater cannot read this", got, "finite, noise >= 0")
    if noise == 0:
        return score >= threshold
    draw = min(max(unit(seed, "simulated-thumb", rater, item), 1e-15), 1 - 1e-15)  # no infinite log-odds
    return log_odds(draw) < (score - threshold) / noise
