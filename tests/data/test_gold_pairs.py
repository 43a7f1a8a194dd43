"""Pairs of gold over own answers."""

from collections import Counter
from dataclasses import replace

from escultor.data.gold_pairs import gold_pairs
from escultor.types import Example, Message, Origin, Role


def test_gold_stands_over_own_answers_that_score_below_the_limit():
    gold = Example("e", (Message(Role.USER, "p"),), "gold", Origin(("d",), "test/1"))
    examples = [gold, replace(gold, id="f"), replace(gold, id="g")]
    counts = Counter()
    score = {"gold": 1.0, "near": 0.95, "far": 0.1}
    pairs = gold_pairs(examples, ["gold", "near", "far"], lambda _, answer: score[answer], 0.9, counts)
    assert [(p.chosen, p.rejected, p.origin.parents) for p in pairs] == [("gold", "far", ("g",))]
    assert counts == {
        "answers": 3,
        "no pair: the answer is the gold": 1,
        "no pair: the answer is good enough": 1,
    }
