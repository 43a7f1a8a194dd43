"""Log-odds, and what several readings of one comparison say together; without numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable


def log_odds(p: float) -> float:
    """log(p / (1 - p)), the inverse of `logistic`."""
    return math.log(p / (1 - p))


def logistic(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow for any x."""
    e = math.exp(-abs(log_odds))
    return 1 / (1 + e) if log_odds >= 0 else e / (1 + e)


def expected_preference(readings: Iterable[float]) -> float:
    """P(first is better) - P(second is better), between -1 and 1, after independent readings of a
    comparison in which both may be equal. A reading is the log-odds with which it favours the first where
    they differ.

    Exact by Bayes' rule. Before any reading both are good or bad by a fair coin each: they are equal with
    probability 1/2, and either is better with 1/4. A reading of accuracy a comes out as it did with
    probability a, 1 - a, or 1/2 where the first is better, the second is, or both are equal. In units of
    the last, the likelihoods of n readings are A = prod 2 a, B = prod 2 (1 - a) and 1, so that the result
    is (A - B) / (A + B + 2). One choice of accuracy 0.75 gives 0.25, three alike 0.59, two against one
    0.21.
    """
    xs = list(readings)
    first = math.fsum(math.log(2 * logistic(x)) for x in xs)
    second = math.fsum(math.log(2 * logistic(-x)) for x in xs)
    top = max(first, second, 0.0)
    a, b, equal = (math.exp(x - top) for x in (first, second, 0.0))
    return (a - b) / (a + b + 2 * equal)
