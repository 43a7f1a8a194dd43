"""Bounds that hold at every look: look each minute, stop when you like, the error stays what was asked.

Rates of small samples: the beta-binomial mixture (Robbins 1970; Howard et al. 2021, §4), exact at every n.
Means and rates of larger ones: asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy &
Ramdas 2024, Annals of Statistics 52, theorem 2.2 and its one-sided form). Tails of a latency: the share of
answers beyond the agreed time, which is a rate. `alpha` is the chance of ever being wrong, over all looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SMALL = 100  # observations an arm needs before the asymptotic bounds may speak
EXACT_PART = 0.1  # of alpha, for the exact bounds that speak before
BISECTIONS = 50


def rate_bounds(events: ArrayLike, n: ArrayLike, alpha: float) -> tuple[Array, Array]:
    """Bounds of a rate after `events` of `n` trials that hold for all n at once with probability
    1 - alpha: the rates p whose likelihood is not 1 / alpha times below its mixture over Beta(1/2, 1/2).

    Elementwise over arrays; (0, 1) where n is 0.
    """
    from scipy.special import betaln

    k, total = np.broadcast_arrays(np.asarray(events, np.float64), np.asarray(n, np.float64))
    limit = betaln(0.5 + k, 0.5 + total - k) - betaln(0.5, 0.5) + math.log(alpha)
    share = k / np.maximum(total, 1)

    def inside(p: Array) -> NDArray[np.bool_]:
        with np.errstate(divide="ignore", invalid="ignore"):
            hit = np.where(k > 0, k * np.log(p), 0.0)
            missed = np.where(total > k, (total - k) * np.log1p(-p), 0.0)
        return hit + missed > limit

    return _edge(inside, np.zeros_like(share), share), _edge(inside, np.ones_like(share), share)


def _edge(inside: Callable[[Array], NDArray[np.bool_]], outer: Array, inner: Array) -> Array:
    """Where between a point outside and one inside the set ends; the outer point if that is inside."""
    whole = inside(outer)
    out, at = outer.copy(), inner.copy()
    for _ in range(BISECTIONS):
        middle = (out + at) / 2
        kept = inside(middle)
        out, at = np.where(kept, out, middle), np.where(kept, middle, at)
    return np.where(whole, outer, out)


def radius(variance: ArrayLike, n: ArrayLike, alpha: float, tuned: float) -> Array:
    """How far below its estimate a mean may lie, at all looks at once (and as far above, at alpha again).

    `variance` is that of the estimate, estimated itself; `n` the observations behind it; the bound is
    tightest near `tuned` of them, a number that must be fixed in advance. Holds from some tens of
    observations on, whatever their distribution (finite variance).
    """
    v, t = np.asarray(variance, np.float64), np.maximum(np.asarray(n, np.float64), 1e-12)
    spent = -2 * math.log(2 * alpha)
    rho2 = (spent + math.log(spent + 1)) / tuned
    grown = t * rho2 + 1
    return np.sqrt(v * 2 * grown / (t * rho2) * np.log1p(np.sqrt(grown) / (2 * alpha)))


# --- two arms ---------------------------------------------------------------------------------


class SubjectTally(NamedTuple):
    """Sums over the subjects of one arm in one step of a trial; subjects bring several observations, which
    may depend on each other. `first` counts events among every subject's first observation."""

    subjects: int = 0
    n: float = 0.0  # observations
    total: float = 0.0  # events, or the sum of what was measured
    nn: float = 0.0  # sums over subjects of n², n · total, total²
    nt: float = 0.0
    tt: float = 0.0
    first: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0


class Harm(NamedTuple):
    """How much worse the candidate is than the champion, with the bounds that hold at every look."""

    difference: float
    low: float
    high: float
    champion: SubjectTally
    candidate: SubjectTally


def harm(
    champion: Sequence[SubjectTally],
    candidate: Sequence[SubjectTally],
    alpha: float,
    tuned: float,
    rate: bool = True,
) -> Harm:
    """Candidate minus champion of a figure of which less is better, over the steps of a trial.

    Each step is compared within itself (Mantel-Haenszel weights): traffic changes from day to day, and the
    candidate's share of it grows. `low` and `high` each are wrong at some look with probability alpha at
    most. For a rate a tenth of alpha goes to exact bounds of each step by itself (their levels sum to it),
    which speak from the first observation on.
    """
    both = [(a, b) for a, b in zip(champion, candidate, strict=True) if a.n and b.n]
    old, new = (_merged([pair[side] for pair in both]) for side in (0, 1))
    low, high, difference = -math.inf, math.inf, 0.0
    if both:
        weights = np.array([a.n * b.n / (a.n + b.n) for a, b in both])
        gaps = np.array([b.mean - a.mean for a, b in both])
        parts = np.array([_noise(old, rate) / a.n + _noise(new, rate) / b.n for a, b in both])
        difference = float(weights @ gaps / weights.sum())
        if min(old.subjects, new.subjects) >= SMALL:
            variance = float(weights**2 @ parts / weights.sum() ** 2)
            rest = alpha * (1 - EXACT_PART) if rate else alpha
            wide = float(radius(variance, weights.sum(), rest, tuned / 2))
            low, high = difference - wide, difference + wide
    if rate:
        exact = [_exact(a, b, alpha * EXACT_PART / (s * (s + 1))) for s, (a, b) in enumerate(both, 1)]
        low = max([low, -1.0, *(at for at, _ in exact)])
        high = min(high, exact[0][1]) if len(exact) == 1 else min(high, 1.0)
    return Harm(difference, low, high, old, new)


def _exact(champion: SubjectTally, candidate: SubjectTally, alpha: float) -> tuple[float, float]:
    """Bounds of a difference of rates in one step, from every subject's first observation."""
    (a, b), (c, d) = (rate_bounds(t.first, t.subjects, alpha / 2) for t in (champion, candidate))
    return float(c - b), float(d - a)


def _merged(tallies: Sequence[SubjectTally]) -> SubjectTally:
    return (
        SubjectTally(*(sum(column) for column in zip(*tallies, strict=True))) if tallies else SubjectTally()
    )


def _noise(t: SubjectTally, rate: bool) -> float:
    """Variance that one observation brings to the mean, taken between subjects; for a rate one event more
    is supposed than was seen, since an arm without any has not shown that it has none."""
    p = t.mean
    spread = max(t.tt - 2 * p * t.nt + p * p * t.nn, 0.0) / t.n
    return spread + 1 / t.n if rate else spread
