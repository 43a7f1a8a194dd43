"""Preference pairs: from the model's own answers against gold, and from feedback."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from escultor.ids import hash_value
from escultor.rng import unit
from escultor.store.feedback import THUMB, live
from escultor.types import (
    Consent,
    Example,
    Feedback,
    Interaction,
    Origin,
    Pair,
    Rating,
)

MAX_PAIRS_PER_PROMPT = 4
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


def thumbs(feedback: Iterable[Feedback]) -> dict[str, bool]:
    """The current thumb on each answer: the latest word of each subject counts, the majority of
    subjects decides, a draw is no verdict. A fold: order-free and idempotent."""
    votes: defaultdict[str, int] = defaultdict(int)
    for (target, _, name), event in live(feedback).items():
        if name == THUMB and isinstance(event, Rating):
            votes[target] += 1 if event.value else -1
    return {target: vote > 0 for target, vote in votes.items() if vote}


def feedback_pairs(
    interactions: Iterable[Interaction],
    feedback: Iterable[Feedback],
    counts: Counter[str],
    held_out: frozenset[str] = frozenset(),
) -> list[Pair]:
    """Up over down on the same prompt, at most four pairs per prompt.

    Never an up on one prompt against a down on another. Prompts whose hash is in `held_out`, and
    interactions whose subject did not consent to training, never enter. Order-free and idempotent.
    """
    verdicts = thumbs(feedback)
    groups: defaultdict[str, list[Interaction]] = defaultdict(list)
    for interaction in interactions:
        if interaction.id not in verdicts:
            counts["not rated"] += 1
        elif interaction.prompt_hash in held_out:
            counts["left out: held-out prompt"] += 1
        elif interaction.consent is not Consent.TRAIN:
            counts["left out: no consent"] += 1
        else:
            groups[interaction.prompt_hash].append(interaction)
    pairs: list[Pair] = []
    for prompt in sorted(groups):
        pairs += _pairs_of_group(groups[prompt], verdicts, counts)
    counts["pairs"] += len(pairs)
    return pairs


def _pairs_of_group(
    group: Sequence[Interaction], verdicts: Mapping[str, bool], counts: Counter[str]
) -> list[Pair]:
    """Distinct answers only; an answer text that was judged both ways is left out."""
    ups = {i.answer: i for i in sorted(group, key=lambda i: i.id) if verdicts[i.id]}
    downs = {i.answer: i for i in sorted(group, key=lambda i: i.id) if not verdicts[i.id]}
    for text in ups.keys() & downs.keys():
        counts["left out: same answer, both verdicts"] += 1
        del ups[text], downs[text]
    if not ups or not downs:
        counts["no pair: one verdict only"] += 1
        return []
    made = []
    for up in ups.values():
        for down in downs.values():
            name = hash_value([up.prompt_hash, up.answer, down.answer])
            origin = Origin((up.id, down.id), "same-prompt-thumbs/1")
            made.append(Pair(name, up.messages, up.answer, down.answer, origin))
    made.sort(key=lambda pair: unit(0, "pairs", pair.id))
    return made[:MAX_PAIRS_PER_PROMPT]
