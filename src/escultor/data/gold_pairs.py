"""Preference pairs from the model's own answers against gold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from escultor.ids import hash_value
from escultor.types import Example, Origin, Pair

Score = Callable[[Example, str], float]


def gold_pairs(
    examples: Sequence[Example],
    answers: Sequence[str],
    score: Score,
    below: float,
    counts: Counter[str],
) -> list[Pair]:
    """Gold over the model's own answer, where the answer's score is under `below`.

    `score` is a stated one, in [0, 1], that gives gold 1. Answers at or above `below` make no pair:
    nothing would be learnt but to tell good from good.
    """
    pairs = []
    for example, answer in zip(examples, answers, strict=True):
        counts["answers"] += 1
        if answer == example.response:
            counts["no pair: the answer is the gold"] += 1
        elif score(example, answer) >= below:
            counts["no pair: the answer is good enough"] += 1
        else:
            origin = Origin((example.id,), "gold-over-own/1", example.origin.consent)
            name = hash_value([example.id, answer])
            pairs.append(Pair(name, example.prompt, example.response, answer, origin))
    return pairs
