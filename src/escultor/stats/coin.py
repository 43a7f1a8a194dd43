"""Tails of fair coins, by numpy alone: the gate is installed without scipy."""

from __future__ import annotations

import math

import numpy as np

from escultor.stats.sampling import Array

EXACT = 60  # tosses, up to which whole numbers are summed


def log_factorials(most: int) -> Array:
    """ln 0!, ln 1!, … ln most!"""
    return np.array([math.lgamma(n + 1) for n in range(most + 1)])


def coin_tail(heads: int, tosses: int) -> float:
    """P(X >= heads), X ~ Binomial(tosses, 1/2)."""
    least = np.full(1, heads)
    return float(coin_tails(least, np.full(1, tosses), log_factorials(tosses))[0])


def coin_tails(heads: Array, tosses: Array, logs: Array) -> Array:
    """P(X >= heads), X ~ Binomial(tosses, 1/2), element by element; `logs` from `log_factorials`, up to the
    largest number of tosses."""
    tails = np.zeros(len(heads))
    for at, (least, n) in enumerate(zip(heads.astype(int), tosses.astype(int), strict=True)):
        tails[at] = _exact(least, n) if n <= EXACT else _by_logarithms(least, n, logs)
    return tails


def _exact(heads: int, tosses: int) -> float:
    return sum(math.comb(tosses, k) for k in range(max(heads, 0), tosses + 1)) / 2**tosses


def _by_logarithms(heads: int, tosses: int, logs: Array) -> float:
    # The shorter side is summed: the other is what it leaves of 1.
    is_upper = 2 * heads > tosses
    k = np.arange(heads, tosses + 1) if is_upper else np.arange(0, heads)
    share = float(np.exp(logs[tosses] - logs[k] - logs[tosses - k] - tosses * math.log(2)).sum())
    return share if is_upper else 1 - share
