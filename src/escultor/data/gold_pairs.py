"""Preference pairs of gold answers over the model's own answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from escultor.ids import hash_value
from escultor.types import Example, Origin, Pair


def gold_pairs(
    examples: Sequence[Example],
    answers: Sequence[str],
    score: Callable[[Example, str], float],
    below: float,
    counts: Counter[str],
) -> list[Pair]:
    """Pairs of gold over the model's own answer, where the answer scores under `below`; all are counted.

    `score` is in [0, 1] and gives gold 1. Answers at or above `below` make no pair, which would only teach
    to tell good from good.
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
            id = hash_value([example.id, answer])
            pairs.append(Pair(id, example.prompt, example.response, answer, origin))
    return pairs
