"""Bounds that hold at every look, against closed forms and by stated odds."""

import math

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import binom

from escultor.stats.sequential import SubjectTally, excess, harm, radius, rate_bounds


def arm(k, n):
    return SubjectTally(int(n), float(n), float(k), float(n), float(k), float(k), float(k))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (50, 400)])
def test_rate_bounds_are_where_the_mixture_beats_the_rate_by_one_over_alpha(k, n):
    low, high = map(float, rate_bounds(k, n, 0.05))
    mixture = betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5)
    for p in (low, high):
        if 0 < p < 1:
            assert mixture - k * math.log(p) - (n - k) * math.log1p(-p) == pytest.approx(
                math.log(20), abs=1e-6
            )
    assert low <= k / n <= high
    assert (low == 0) == (k == 0)


def test_nothing_seen_says_nothing():
    assert tuple(map(float, rate_bounds(0, 0, 0.05))) == (0.0, 1.0)
    found = harm([], [], 0.05, 3000)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_radius_is_the_published_formula():
    t, alpha, tuned, sd = 700, 0.05, 500, 2.0
    rho = math.sqrt((-2 * math.log(2 * alpha) + math.log(-2 * math.log(2 * alpha) + 1)) / tuned)
    inner = 2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log1p(math.sqrt(t * rho**2 + 1) / (2 * alpha))
    assert float(radius(sd**2 / t, t, alpha, tuned)) == pytest.approx(sd * math.sqrt(inner))


def test_rate_bounds_are_ever_wrong_as_seldom_as_promised():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(60):
        low, high = rate_bounds(np.cumsum(rng.random(300) < 0.1), np.arange(1, 301), 0.05)
        wrong += bool(((low > 0.1) | (high < 0.1)).any())
    assert wrong <= binom.ppf(0.999, 60, 0.05)


def test_clear_harm_is_called_and_a_clear_gain_is_not():
    assert harm([arm(80, 1000)], [arm(160, 1000)], 0.05, 3000).low > 0
    assert harm([arm(160, 1000)], [arm(80, 1000)], 0.05, 3000).high < 0
    assert harm([arm(0, 40)], [arm(35, 40)], 0.05, 3000).low > 0  # exact bounds speak before the others


def test_a_rate_at_its_limit_is_ever_called_above_it_as_seldom_as_promised():
    rng, wrong, looks = np.random.default_rng(1), 0, (10, 50, 100, 200, 400, 900, 1500)
    for _ in range(40):
        seen = np.cumsum(rng.random(1500) < 0.1)
        wrong += any(excess([arm(seen[n - 1], n)], 0.1, 0.05, 3000).low > 0 for n in looks)
    assert wrong <= binom.ppf(0.999, 40, 0.05)
    assert excess([arm(160, 1000)], 0.1, 0.05, 3000).low > 0 > excess([arm(50, 1000)], 0.1, 0.05, 3000).high
    assert excess([arm(5, 5), arm(0, 5)], 0.01, 0.05, 3000).low > 0  # by the first observations
    assert (found := excess([], 0.1, 0.05, 3000)).low < 0 < found.high


def test_a_bad_day_with_more_candidate_traffic_is_not_harm():
    # Both arms are equal each day; pooled over days the candidate would look far worse.
    old, new = [arm(100, 2000), arm(200, 500)], [arm(25, 500), arm(800, 2000)]
    found = harm(old, new, 0.05, 3000)
    assert found.difference == pytest.approx(0.0)
    assert found.candidate.mean - found.champion.mean > 0.2
    assert found.low < 0


def test_many_words_of_few_people_are_few_words():
    # 200 people say the same thing ten times over.
    loud = SubjectTally(200, 2000.0, 240.0, 20000.0, 2400.0, 2400.0, 24.0)
    quiet = SubjectTally(200, 2000.0, 120.0, 20000.0, 1200.0, 1200.0, 12.0)
    assert harm([quiet], [loud], 0.05, 3000).low < 0
    assert harm([arm(120, 2000)], [arm(240, 2000)], 0.05, 3000).low > 0


def test_means_have_asymptotic_bounds_alone():
    few = SubjectTally(50, 50.0, 1.0, 50.0, 1.0, 0.03, 0.0)
    assert harm([few], [few], 0.05, 3000, is_rate=False).low == -math.inf
