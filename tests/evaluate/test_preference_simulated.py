"""Simulated raters: seeded by name, blind, honest about ties."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from escultor.errors import DataError
from escultor.evaluate import preference_simulated as preference

ITEMS = [f"i{k}" for k in range(400)]


def choices(a, b, seed=0, **options):
    return [preference.simulated_choice(a, b, "r", i, 1.0, seed, **options) for i in ITEMS]


def close(count, n, p):
    return binom.ppf(1e-4, n, p) <= count <= binom.ppf(1 - 1e-4, n, p)


def test_choices_follow_rao_and_kupper():
    found, gap, width = choices(1.0, 0.0, tie_width=0.3), 1.0, 0.3
    assert close(found.count("a"), 400, 1 / (1 + math.exp(-(gap - width))))
    assert close(found.count("b"), 400, 1 / (1 + math.exp(gap + width)))


def test_equal_answers_win_equally_often_though_the_first_side_is_favoured():
    found = choices(0.5, 0.5, first_bias=3.0, tie_width=0.0)
    assert close(found.count("a"), 400, 0.5)
    assert close(sum(preference.simulated_order("r", i, 0)[0] == "a" for i in ITEMS), 400, 0.5)


@settings(max_examples=30)
@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 9))
def test_without_noise_the_higher_score_wins_and_equals_tie(a, b, seed):
    expected = "tie" if a == b else "a" if a > b else "b"
    assert preference.simulated_choice(a, b, "r", "i", 0.0, seed) == expected


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


def test_win_rate_counts_every_rater_and_sees_a_real_gap():
    found = preference.simulated_win_rate(
        [0.8] * 100, [0.5] * 100, ITEMS[:100], ITEMS[:100], raters=("r1", "r2", "r3"), noise=0.3, seed=0
    )
    assert found.n == 300
    assert 0.5 < found.low < found.value < found.high < 1
    assert 0 < found.ties < 100


def test_win_rate_of_equal_answers_straddles_one_half():
    same = [0.5] * 200
    found = preference.simulated_win_rate(
        same, same, ITEMS[:200], ITEMS[:200], raters=("r",), noise=1, seed=3
    )
    assert found.low < 0.5 < found.high


def test_unusable_arguments_are_refused():
    with pytest.raises(DataError, match="cannot read"):
        preference.simulated_choice(math.nan, 0.0, "r", "i", 1.0, 0)
    with pytest.raises(DataError, match="noise"):
        preference.simulated_thumb(0.5, "r", "i", threshold=0.5, noise=-1.0, seed=0)
    with pytest.raises(DataError, match="tie width"):
        preference.simulated_choice(0.0, 0.0, "r", "i", 1.0, 0, tie_width=-0.1)
    with pytest.raises(DataError, match="same items"):
        preference.simulated_win_rate([1.0], [], ["i"], ["i"], raters=("r",), noise=1.0, seed=0)
