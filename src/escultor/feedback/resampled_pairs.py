"""Pairs out of new answers: to prompts whose answers displeased, the model answers again a few times and a
judge ranks what it says. The data room takes the samples as they are; who draws and ranks them is outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.types import Messages, Origin, Pair

RULE = "resampled/1"


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One new answer and what the judge gives it; more is better."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class ResampledPrompt:
    """The new answers to one prompt. `parents` are the answers that displeased; `judge` names who ranked."""

    prompt: Messages
    prompt_hash: str
    parents: tuple[str, ...]
    samples: tuple[ScoredSample, ...]
    judge: str


def resampled_pairs(
    found: Iterable[ResampledPrompt],
    least_gap: float,
    flip_rate: float,
    counts: Counter[str],
    held_out: frozenset[str] = frozenset(),
) -> list[Pair]:
    """The best sample over the worst, where the judge sees a gap of at least `least_gap`; one pair a prompt.

    `flip_rate` is how often the judge is wrong about two answers. The verdicts on the old answers chose the
    prompt, they are not this pair's label, so they remain for other routes. Raises DataError for a gap or a
    rate out of range.
    """
    if not least_gap >= 0 or not 0 <= flip_rate < 0.5:
        got = f"gap {least_gap}, flip rate {flip_rate}"
        raise DataError("samples cannot be paired so", got, "a gap >= 0, 0 <= flip rate < 0.5")
    made: dict[str, Pair] = {}
    for each in found:
        if each.prompt_hash in held_out:
            counts["left out: held-out prompt"] += 1
            continue
        ranked = sorted(each.samples, key=lambda s: (s.score, s.text))
        if len(ranked) < 2 or ranked[0].text == ranked[-1].text:
            counts["no pair: all new answers are alike"] += 1
        elif ranked[-1].score - ranked[0].score < least_gap or ranked[-1].score == ranked[0].score:
            counts["no pair: the judge sees no difference"] += 1
        else:
            best, worst = ranked[-1].text, ranked[0].text
            origin = Origin(tuple(sorted(each.parents)), f"{RULE};{each.judge}")
            id = hash_value([each.prompt_hash, best, worst])
            made[id] = Pair(id, each.prompt, best, worst, origin, 1.0, flip_rate)
    return [made[id] for id in sorted(made)]
