"""Simulated raters: they play the people where none are at hand, and say so wherever they are shown.

Nothing here is a human judgement. A simulated rater reads the true scores of the answers through noise;
it is blind (it sees two sides, not which system wrote them) and the sides are put in random order. All
draws are named by seed, rater and item, so the order of calls changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from escultor.errors import DataError
from escultor.evaluate import stats
from escultor.rng import unit

Winner = Literal["a", "b", "tie"]


def simulated_choice(
    score_a: float,
    score_b: float,
    rater: str,
    item: str,
    noise: float,
    seed: int,
    tie_width: float = 0.2,
    first_bias: float = 0.0,
) -> Winner:
    """Which answer a simulated rater prefers: Bradley-Terry with ties (Rao & Kupper 1967).

    The rater sees `(first - second) / noise + first_bias` plus logistic noise and calls a tie when that
    is within `tie_width` of 0; `first_bias` is a taste for the side shown first. Without noise the higher
    score wins and equal scores tie.
    """
    _check(noise, score_a, score_b, tie_width, first_bias)
    if tie_width < 0:
        raise DataError("a simulated rater's tie width is negative", tie_width, ">= 0")
    if noise == 0:
        return "tie" if score_a == score_b else "a" if score_a > score_b else "b"
    first, second = simulated_order(rater, item, seed)
    scores = {"a": score_a, "b": score_b}
    draw = unit(seed, "simulated-choice", rater, item)
    felt = (scores[first] - scores[second]) / noise + first_bias + _logit(draw)
    if abs(felt) <= tie_width:
        return "tie"
    return first if felt > 0 else second


def simulated_order(rater: str, item: str, seed: int) -> tuple[Literal["a", "b"], Literal["a", "b"]]:
    """The order in which a simulated rater is shown the two answers to an item: either, by a fair coin."""
    return ("a", "b") if unit(seed, "simulated-order", rater, item) < 0.5 else ("b", "a")


def simulated_thumb(
    score: float, rater: str, item: str, *, threshold: float, noise: float, seed: int
) -> bool:
    """A simulated thumb: up with probability logistic((score - threshold) / noise).

    Without noise: up exactly when the score reaches the threshold.
    """
    _check(noise, score, threshold)
    if noise == 0:
        return score >= threshold
    return _logit(unit(seed, "simulated-thumb", rater, item)) < (score - threshold) / noise


def simulated_win_rate(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    items: Sequence[str],
    clusters: Sequence[str],
    *,
    raters: Sequence[str],
    noise: float,
    seed: int,
    level: float = 0.025,
    tie_width: float = 0.2,
) -> stats.WinRate:
    """Share of decided votes that simulated raters give to `a`, every rater judging every item.

    Returns (value, low, high, n, ties): n counts votes, ties are left out of the rate, and the interval
    draws whole clusters, so more raters on the same items do not pass for more evidence.
    """
    if not len(scores_a) == len(scores_b) == len(items) == len(clusters) or not raters:
        raise DataError(
            "simulated raters need the same items on both sides",
            f"{len(scores_a)} and {len(scores_b)} scores, {len(items)} items, {len(clusters)} clusters, "
            f"{len(raters)} raters",
            "equal lengths and at least one rater",
        )
    worth = {"a": 1.0, "tie": 0.0, "b": -1.0}
    votes = [
        worth[simulated_choice(a, b, rater, item, noise, seed, tie_width)]
        for a, b, item in zip(scores_a, scores_b, items, strict=True)
        for rater in raters
    ]
    return stats.win_rate(votes, [c for c in clusters for _ in raters], level, seed)


def _check(noise: float, *values: float) -> None:
    if not (math.isfinite(noise) and noise >= 0 and all(map(math.isfinite, values))):
        raise DataError(
            "a simulated rater cannot read this", f"noise {noise}, {values}", "finite, noise >= 0"
        )


def _logit(draw: float) -> float:
    """A standard logistic variate from a uniform one; 0 and 1 themselves are moved inside."""
    inside = min(max(draw, 1e-15), 1 - 1e-15)
    return math.log(inside / (1 - inside))
