"""Simulated raters: they play the people where none are at hand, and say so wherever they are shown.

Nothing here is a human judgement. A simulated rater reads the true score of an answer through noise. All
draws are named by seed, rater and item, so the order of calls changes nothing.
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
    _check(noise, score, threshold)
    if noise == 0:
        return score >= threshold
    draw = min(max(unit(seed, "simulated-thumb", rater, item), 1e-15), 1 - 1e-15)  # no infinite log-odds
    return log_odds(draw) < (score - threshold) / noise


def _check(noise: float, *values: float) -> None:
    if not (math.isfinite(noise) and noise >= 0 and all(map(math.isfinite, values))):
        raise DataError(
            "a simulated rater cannot read this", f"noise {noise}, {values}", "finite, noise >= 0"
        )
