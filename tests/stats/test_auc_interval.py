"""The interval of an AUC: its variance is that by definition, clusters widen it, no data says nothing."""

import math

import numpy as np
import pytest

from escultor.stats import auc, auc_interval


def data(clusters=1, n=60):
    rng = np.random.default_rng(4)
    outcomes = rng.integers(0, 2, n)
    return rng.normal(size=n) + outcomes, outcomes, [f"{k // clusters}" for k in range(n)]


def test_it_is_the_interval_by_placements_on_the_log_odds():
    scores, outcomes, clusters = data()
    ones, zeros = scores[outcomes == 1], scores[outcomes == 0]
    wins = (ones[:, None] > zeros).astype(float)
    value, m, n = wins.mean(), len(ones), len(zeros)
    parts = [*((wins.mean(1) - value) / m), *((wins.mean(0) - value) / n)]
    error = math.sqrt((m + n) / (m + n - 1) * sum(p * p for p in parts)) / (value * (1 - value))
    low = 1 / (1 + math.exp(-(math.log(value / (1 - value)) - 1.959963984540054 * error)))
    found = auc_interval(scores, outcomes, clusters)
    assert found.value == pytest.approx(auc(scores, outcomes)) == pytest.approx(value)
    assert found.low == pytest.approx(low)


def test_copies_of_rows_in_their_clusters_say_no_more():
    scores, outcomes, clusters = data()
    once = auc_interval(scores, outcomes, clusters)
    copied = auc_interval(np.tile(scores, 5), np.tile(outcomes, 5), clusters * 5)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    pretended = auc_interval(np.tile(scores, 5), np.tile(outcomes, 5), [str(k) for k in range(300)])
    assert pretended.low > copied.low


def test_a_perfect_order_of_few_rows_and_one_outcome_alone_leave_room():
    assert auc_interval([1, 2, 3, 4], [0, 0, 1, 1], list("abcd")).low == pytest.approx(0.025**0.5)
    assert auc_interval([1, 2], [1, 1], ["a", "b"])[1:3] == (0.0, 1.0)
