"""Bounds that hold at every interim analysis: analyse and stop at any time, the error stays the same.

Rates of small samples: the beta-binomial mixture (Robbins 1970; Howard et al. 2021, §4), exact at every n.
Means and rates of larger samples: asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy &
Ramdas 2024, Annals of Statistics 52, theorem 2.2 and its one-sided form). The tail of a latency is the share
of answers slower than an agreed time, which is a rate. The error probabilities here are those of ever being
wrong, over all analyses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from escultor.stats.sampling import Array

MIN_SUBJECTS = 100  # of an arm, from which on the asymptotic bounds are used
EXACT_SHARE = 0.1  # of alpha, for the exact bounds of the first observations
BISECTIONS = 50


def rate_bounds(events: ArrayLike, n: ArrayLike, two_sided_alpha: float) -> tuple[Array, Array]:
    """Bounds of a rate after `events` of `n` trials that hold for all n together with probability
    1 - two_sided_alpha. Elementwise over arrays; (0, 1) where n is 0."""
    from scipy.special import betaln

    # Under the true rate p the likelihood ratio of a mixture of rates to p,
    #     M_n = ∫ q^k (1-q)^(n-k) dBeta(1/2, 1/2)(q) / (p^k (1-p)^(n-k)),
    # is a martingale of mean 1, so it ever reaches 1 / alpha with probability alpha at most (Ville 1939).
    # The bounds enclose the rates p for which it has not: k log p + (n-k) log(1-p) > log B(k+1/2, n-k+1/2)
    # - log B(1/2, 1/2) + log alpha. The left side is concave in p with its maximum at k / n, so they are an
    # interval around k / n, whose ends are found by bisection.
    k, total = np.broadcast_arrays(np.asarray(events, np.float64), np.asarray(n, np.float64))
    limit = betaln(0.5 + k, 0.5 + total - k) - betaln(0.5, 0.5) + math.log(two_sided_alpha)
    share = k / np.maximum(total, 1)

    def is_inside(p: Array) -> NDArray[np.bool_]:
        with np.errstate(divide="ignore", invalid="ignore"):
            hits = np.where(k > 0, k * np.log(p), 0.0)
            misses = np.where(total > k, (total - k) * np.log1p(-p), 0.0)
        return hits + misses > limit

    return _edge(is_inside, np.zeros_like(share), share), _edge(is_inside, np.ones_like(share), share)


def _edge(is_inside: Callable[[Array], NDArray[np.bool_]], outer: Array, inner: Array) -> Array:
    """The end of a set between a point outside and one inside it; the outer point where that is inside."""
    is_whole = is_inside(outer)
    outside, inside = outer.copy(), inner.copy()
    for _ in range(BISECTIONS):
        middle = (outside + inside) / 2
        kept = is_inside(middle)
        outside, inside = np.where(kept, outside, middle), np.where(kept, middle, inside)
    return np.where(is_whole, outer, outside)


def radius(variance: ArrayLike, n: ArrayLike, alpha: float, tuned_n: float) -> Array:
    """The distance below its estimate within which a mean lies at all analyses together (and above it, at a
    further alpha).

    `variance` is the estimated variance of the estimate, `n` the observations behind it. The bound is
    tightest near `tuned_n` observations, a number that must be fixed in advance. Valid from some tens of
    observations on, for any distribution with a finite variance.
    """
    # The sum of t observations of unit variance behaves as a Brownian motion. Mixing exp(λ S_t - λ² t / 2)
    # over a half-normal λ >= 0 of scale rho gives a martingale whose crossing of 1 / alpha bounds S_t by
    #     sqrt(2 (t rho² + 1) / rho² · log(1 + sqrt(t rho² + 1) / (2 alpha))),
    # in closed form by a lower bound of the mixture (theorem 2.2, one-sided). Divided by t, times the
    # standard deviation, it bounds the mean; here variance = sd² / t. rho makes it nearly shortest at
    # t = tuned_n: rho² = (-2 log(2 alpha) + log(1 - 2 log(2 alpha))) / tuned_n.
    v, t = np.asarray(variance, np.float64), np.maximum(np.asarray(n, np.float64), 1e-12)
    cost = -2 * math.log(2 * alpha)
    rho2 = (cost + math.log(cost + 1)) / tuned_n
    growth = t * rho2 + 1
    return np.sqrt(v * 2 * growth / (t * rho2) * np.log1p(np.sqrt(growth) / (2 * alpha)))


# --- two arms ---------------------------------------------------------------------------------


class SubjectTally(NamedTuple):
    """Sums over the subjects of one arm in one stage of a trial. A subject has several observations, which
    may depend on each other. `first` counts events among the first observations of all subjects."""

    subjects: int = 0
    n: float = 0.0  # observations
    total: float = 0.0  # events, or the sum of the measured values
    nn: float = 0.0  # sums over subjects of n², n · total, total²
    nt: float = 0.0
    tt: float = 0.0
    first: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0


class Harm(NamedTuple):
    """How much worse the candidate is than the champion, or than a limit, with bounds that hold at every
    analysis."""

    difference: float
    low: float
    high: float
    champion: SubjectTally  # empty where a limit takes its place
    candidate: SubjectTally
    limit: float | None = None


def harm(
    champion: Sequence[SubjectTally],
    candidate: Sequence[SubjectTally],
    alpha: float,
    tuned_n: float,
    is_rate: bool = True,
) -> Harm:
    """Candidate minus champion of a figure of which less is better, over the stages of a trial.

    Stages are compared each within itself and combined with Mantel-Haenszel weights: traffic changes from
    day to day while the candidate's share of it grows. `low` and `high` are each ever wrong with
    probability alpha at most.
    """
    # The difference is Σ w_s (candidate mean - champion mean) / Σ w_s with w_s = n m / (n + m), nearly the
    # inverse of its variance in stage s; its variance is Σ w_s² v_s / (Σ w_s)². For a rate a tenth of alpha
    # goes to exact bounds of each stage, which are informative from the first observation on: stage s has
    # alpha / 10 / (s (s + 1)), and these sum to alpha / 10 over all stages.
    stages = [(a, b) for a, b in zip(champion, candidate, strict=True) if a.n and b.n]
    old, new = (_merged([stage[arm] for stage in stages]) for arm in (0, 1))
    low, high, difference = -math.inf, math.inf, 0.0
    if stages:
        weights = np.array([a.n * b.n / (a.n + b.n) for a, b in stages])
        gaps = np.array([b.mean - a.mean for a, b in stages])
        old_variance, new_variance = _variance(old, is_rate), _variance(new, is_rate)
        variances = np.array([old_variance / a.n + new_variance / b.n for a, b in stages])
        difference = float(weights @ gaps / weights.sum())
        if min(old.subjects, new.subjects) >= MIN_SUBJECTS:
            variance = float(weights**2 @ variances / weights.sum() ** 2)
            rest = alpha * (1 - EXACT_SHARE) if is_rate else alpha
            width = float(radius(variance, weights.sum(), rest, tuned_n / 2))
            low, high = difference - width, difference + width
    if is_rate:
        exact = [_exact(a, b, alpha * EXACT_SHARE / (s * (s + 1))) for s, (a, b) in enumerate(stages, 1)]
        low = max([low, -1.0, *(bound for bound, _ in exact)])
        high = min(high, exact[0][1]) if len(exact) == 1 else min(high, 1.0)
    return Harm(difference, low, high, old, new)


def excess(candidate: Sequence[SubjectTally], limit: float, alpha: float, tuned_n: float) -> Harm:
    """Candidate minus limit, of a rate of which less is better, over the stages of a trial. `low` and `high`
    are each ever wrong with probability alpha at most."""
    stages = [tally for tally in candidate if tally.n]
    new = _merged(stages) if stages else SubjectTally()
    low, high = 0.0, 1.0
    for s, tally in enumerate(stages, 1):  # exact bounds of the first observations, as in `harm`
        spent = alpha * EXACT_SHARE / (s * (s + 1))
        low = max(low, float(rate_bounds(tally.first, tally.subjects, 2 * spent)[0]))
    if new.subjects >= MIN_SUBJECTS:
        variance = _variance(new, is_rate=True) / new.n
        width = float(radius(variance, new.n, alpha * (1 - EXACT_SHARE), tuned_n))
        low, high = max(low, new.mean - width), min(high, new.mean + width)
    return Harm(
        difference=new.mean - limit,
        low=low - limit,
        high=high - limit,
        champion=SubjectTally(),
        candidate=new,
        limit=limit,
    )


def _exact(champion: SubjectTally, candidate: SubjectTally, alpha: float) -> tuple[float, float]:
    """Bounds of a difference of rates in one stage, from the first observation of every subject."""
    (a, b), (c, d) = (rate_bounds(t.first, t.subjects, alpha / 2) for t in (champion, candidate))
    return float(c - b), float(d - a)


def _merged(tallies: Sequence[SubjectTally]) -> SubjectTally:
    return SubjectTally(*map(sum, zip(*tallies, strict=True)))


def _variance(t: SubjectTally, is_rate: bool) -> float:
    """The variance that one observation adds to the mean, taken between subjects. For a rate one event more
    than was seen is assumed, since an arm without events has not shown that it can have none."""
    p = t.mean
    variance = max(t.tt - 2 * p * t.nt + p * p * t.nn, 0.0) / t.n
    return variance + 1 / t.n if is_rate else variance
