"""Draws have the odds of softmax and of the nucleus, and each row's are its own."""

from collections import Counter
from random import Random

import pytest
import torch

from escultor.model.sampling import FEW, Draw, draw

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, float("-inf")])
DRAWS = 4000


def drawn(logits, temperature, top_p, seed=0):
    row = Draw(temperature, top_p, Random(seed))
    return Counter(draw(logits.expand(DRAWS, -1), [row] * DRAWS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    expected = (LOGITS / temperature).softmax(-1)
    found = drawn(LOGITS, temperature, 1.0)
    for token, p in enumerate(expected.tolist()):  # 5 standard errors: odds of about 1 in 300,000 a run
        assert abs(found[token] / DRAWS - p) <= 5 * (p * (1 - p) / DRAWS) ** 0.5 + 1e-12


def test_a_nucleus_is_the_fewest_tokens_that_hold_its_mass_in_their_own_proportions():
    p = LOGITS.softmax(-1)  # .56 .21 .13 .08 .03 0
    found = drawn(LOGITS, 1.0, 0.7)
    assert set(found) == {0, 1}
    share = float(p[0] / (p[0] + p[1]))
    assert abs(found[0] / DRAWS - share) <= 5 * (share * (1 - share) / DRAWS) ** 0.5
    assert set(drawn(LOGITS, 1.0, 1e-9)) == {0}


def test_a_nucleus_of_many_tokens_is_drawn_from_whole():
    even = torch.zeros(4 * FEW)
    found = drawn(even, 1.0, 0.5)
    assert len(found) > FEW
    assert max(found) < 2 * FEW + 1


def test_temperature_0_takes_the_likeliest_and_uses_up_no_number():
    row = Draw(0.0, 1.0, Random(7))
    assert draw(LOGITS[None], [row]) == [0]
    assert row.random.random() == Random(7).random()


def test_a_temperature_close_to_0_is_greedy_and_finite():
    assert set(drawn(LOGITS, 1e-30, 1.0)) == {0}


def test_a_rows_draw_is_the_same_whatever_stands_beside_it():
    torch.manual_seed(0)
    logits = torch.randn(7, 50)
    make = lambda i: Draw((0.0, 1.0, 1.0)[i % 3], (1.0, 0.5, 1.0)[i % 3], Random(i))  # noqa: E731
    together = draw(logits, [make(i) for i in range(7)])
    assert together == [draw(logits[i : i + 1], [make(i)])[0] for i in range(7)]
