"""Simulated raters: seeded by name."""

import math

import pytest
from scipy.stats import binom

from escultor.errors import DataError
from escultor.evaluate.raters import simulated as preference

ITEMS = [f"i{k}" for k in range(400)]


def close(count, n, p):
    return binom.ppf(1e-4, n, p) <= count <= binom.ppf(1 - 1e-4, n, p)


def test_thumbs_are_up_with_the_logistic_probability_whatever_the_order_of_calls():
    def thumb(item):
        return preference.simulated_thumb(0.7, "r", item, threshold=0.5, noise=0.2, seed=1)

    ups = {i: thumb(i) for i in ITEMS}
    assert close(sum(ups.values()), 400, 1 / (1 + math.exp(-1)))
    assert {i: thumb(i) for i in reversed(ITEMS)} == ups


def test_thumbs_without_noise_follow_the_threshold():
    options = {"threshold": 0.5, "noise": 0.0, "seed": 0}
    assert preference.simulated_thumb(0.5, "r", "i", **options)
    assert not preference.simulated_thumb(0.49, "r", "i", **options)


def test_unusable_arguments_are_refused():
    for score, noise in ((0.5, -1.0), (math.nan, 1.0), (0.5, math.inf)):
        with pytest.raises(DataError, match="cannot read"):
            preference.simulated_thumb(score, "r", "i", threshold=0.5, noise=noise, seed=0)
